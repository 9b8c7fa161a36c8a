"""Settings, rare and hostile, which run inside services."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli
from app.kit.settings import CoreSettings, SettingsError, forget, load
from app.ports.db.database import Database


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    forget()
    yield
    forget()


@pytest.mark.parametrize(("name", "content"), [("key", b"\xff"), ("key", b"x" * 65_537), (".env", b"\xff")])
def test_what_is_no_short_text_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(CoreSettings.model_config, "env_file", ".env")
    (tmp_path / name).write_bytes(content)
    if name == "key":
        monkeypatch.setenv("SECRET_KEY_FILE", str(tmp_path / name))
    with pytest.raises(SettingsError, match=f"{name} cannot be read; it must be"):
        load(CoreSettings)


def test_wrong_settings_and_a_port_in_use_end_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        serve = [sys.executable, "-m", "app.cli", "serve", "--port", str(taken.getsockname()[1]), "--reload"]
        for level, code, told in (("LOUD", 2, "LOG_LEVEL: Input should be"), ("INFO", 2, "PORT: something listens on")):
            env = os.environ | {"LOG_LEVEL": level}
            ended = subprocess.run(serve, env=env, capture_output=True, check=False, timeout=30)
            assert (ended.returncode, told in f"{ended}") == (code, True), ended


def test_doctor_names_what_no_setting_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("LOG_LEVL=INFO\nport=8000\nSECRET_KEY_FILE=/none\nCOMPOSE_PROJECT_NAME=shop\n")
    [line] = [line for line in CliRunner().invoke(cli, ["doctor"]).output.splitlines() if line.startswith("unknown ")]
    assert line.startswith("unknown .env: no setting is called LOG_LEVL (LOG_LEVEL?), COMPOSE_PROJECT_NAME. ")


def test_doctor_names_a_misspelt_setting_also_where_the_right_one_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENVIRONMENT", "production")
    (tmp_path / ".env").write_text(f"SECRET_KYE={secrets.token_urlsafe(48)}\n")
    done = CliRunner().invoke(cli, ["doctor"])
    assert "no setting is called SECRET_KYE (SECRET_KEY?)" in done.output
    assert "SECRET_KEY: production needs" in str(done.exception)


def test_doctor_gives_an_advice_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables cannot be looked at in a database that is away: migrating it is no advice then."""

    async def refuse(*_: object) -> None:
        raise ConnectionRefusedError("no")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Database, "fetch", refuse)
    ill = CliRunner().invoke(cli, ["doctor"])
    assert ill.exit_code == 1
    assert "database: ConnectionRefusedError: no. Check that DATABASE_URL names a database" in ill.output
    assert "migrations: ConnectionRefusedError: no. See above." in ill.output


def test_secrets_are_read_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "key"
    secret.write_text("hunter2" * 5 + "\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(secret))
    assert load(CoreSettings).secret_key.get_secret_value() == "hunter2" * 5


def test_production_takes_a_long_secret_and_hides_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("SECRET_KEY", secrets.token_hex(16))
    assert load(CoreSettings).docs is False
    assert CoreSettings(docs_enabled=True).docs is True


@pytest.mark.parametrize("secret", ["x" * 64, "ab" * 30, "hunter2" * 8, "0123456789" * 5, f"{'x' * 60}{'yz' * 9}"])
def test_a_long_secret_that_repeats_itself_is_none(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("SECRET_KEY", secret)
    with pytest.raises(SettingsError, match="SECRET_KEY: production needs at least 32 random characters"):
        load(CoreSettings)


def test_random_secrets_are_secrets() -> None:
    digits = ["".join(secrets.choice("0123456789") for _ in range(32)) for _ in range(100)]
    for secret in (*digits, *(secrets.token_hex(16) for _ in range(100)), secrets.token_urlsafe(24)):
        assert CoreSettings(environment="production", secret_key=secret).production


@pytest.mark.parametrize("proxies", ["*", "10.0.0.1, *", "0.0.0.0/0", "10.0.0.1,::/0"])
def test_in_production_no_client_says_who_it_is(monkeypatch: pytest.MonkeyPatch, proxies: str) -> None:
    monkeypatch.setenv("SECRET_KEY", secrets.token_hex(16))
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", proxies)
    assert load(CoreSettings).forwarded_allow_ips == proxies
    forget()
    monkeypatch.setenv("ENVIRONMENT", "production")
    with pytest.raises(SettingsError, match="FORWARDED_ALLOW_IPS: lets any client choose its address"):
        load(CoreSettings)
    forget()
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "10.0.0.0/8,2001:db8::/32")
    assert load(CoreSettings).production

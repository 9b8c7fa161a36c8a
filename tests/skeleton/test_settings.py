"""Settings, rare and hostile, which run inside services."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.kit.settings import CoreSettings, SettingsError, forget, load


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
        for level, code, told in (("LOUD", 2, "LOG_LEVEL: Input should be"), ("INFO", 3, "Address already in use")):
            env = os.environ | {"LOG_LEVEL": level}
            ended = subprocess.run(serve, env=env, capture_output=True, check=False, timeout=30)
            assert (ended.returncode, told in f"{ended}") == (code, True), ended


def test_secrets_are_read_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "key"
    secret.write_text("hunter2" * 5 + "\n")
    monkeypatch.setenv("SECRET_KEY_FILE", str(secret))
    assert load(CoreSettings).secret_key.get_secret_value() == "hunter2" * 5


def test_production_takes_a_long_secret_and_hides_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENVIRONMENT", "production")
    monkeypatch.setenv("SECRET_KEY", "x" * 32)
    assert load(CoreSettings).docs is False
    assert CoreSettings(docs_enabled=True).docs is True

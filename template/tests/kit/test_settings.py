import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import Field, SecretStr

from app.kit.settings import CoreSettings, ModuleSettings, SettingsError, env_file, forget, load, write_secrets
from app.main import check_settings, settings_classes

ROOT = Path(__file__).parents[2]


class Mail(ModuleSettings):
    """Mail."""

    mail_password: SecretStr = Field(description="The password of the relay.")
    mail_port: int = Field(25, description="Its port.")


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    forget()
    yield
    forget()


def test_env_example_is_what_the_settings_say() -> None:
    assert (ROOT / ".env.example").read_text("utf-8") == env_file(settings_classes()), "run: make env-example"


def test_a_new_env_is_private_and_an_old_one_gets_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    write_secrets(path, [CoreSettings])
    written = path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert re.fullmatch(r"# .*\nSECRET_KEY=\S{64}\n", written)
    write_secrets(path, [CoreSettings])
    assert path.read_text() == written
    path.write_text("DEBUG=true")
    write_secrets(path, [CoreSettings])
    assert re.fullmatch(r"DEBUG=true\nSECRET_KEY=\S{64}\n", path.read_text())


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "MAIL_PASSWORD: Field required"),
        ({"MAIL_PASSWORD": "hunter2", "MAIL_PORT": "hunter2"}, "MAIL_PORT: Input should be a valid integer"),
        *(({"MAIL_PASSWORD_FILE": it}, f"MAIL_PASSWORD_FILE: {it} cannot be read") for it in ("/", "/no", "/dev/zero")),
        ({"MAIL_PASSWORD": "hunter2", "MAIL_PASSWORD_FILE": "/x"}, "MAIL_PASSWORD and MAIL_PASSWORD_FILE are both set"),
        *(({"DATABASE_URL": url}, "DATABASE_URL: a database in memory") for url in ("sqlite://", "sqlite:///:memory:")),
        *(({"CORS_ORIGINS": f"*,{it}"}, "CORS_ORIGINS: list") for it in ("http://a/", "a.b", "//A", "http://a:80")),
        ({"ENVIRONMENT": "production", "SECRET_KEY": "x" * 31}, "SECRET_KEY: production needs at least 32"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        [*map(load, settings_classes()), load(Mail)]
    assert (str(caught.value).startswith(message), "hunter2" in str(caught.value)) == (True, False)


def test_production_refuses_every_convenience_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ENVIRONMENT": "production", "DEBUG": "true", "CORS_ORIGINS": "*", "DATABASE_URL": "x"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        check_settings()
    named = [line.split(":")[0] for line in str(caught.value).splitlines()]
    assert named == ["SECRET_KEY", "DEBUG", "CORS_ORIGINS", "DATABASE_URL"]

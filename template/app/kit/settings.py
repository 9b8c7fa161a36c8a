"""Typed settings: one class per module, read from the environment, from `.env` and from secret files."""

import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

DEVELOPMENT_SECRET = "development-only-secret-key-never-use-it-in-production"  # noqa: S105
MINIMUM_SECRET_LENGTH = 32


class SettingsError(Exception):
    """Some settings are missing or wrong; the message has one line for each and never shows a value."""


class SecretFiles(PydanticBaseSettingsSource):
    """Reads NAME from the file that NAME_FILE names, as container secrets are mounted."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read the file of one field. Raises SettingsError when it cannot be read or the value is set twice."""
        name = env_name(self.settings_cls, field_name)
        written = dotenv_values(str(self.config.get("env_file") or os.devnull))
        environment = {key.upper(): value for key, value in (written | os.environ).items()}
        path = environment.get(f"{name}_FILE")
        if not path:
            return None, field_name, False
        if environment.get(name):
            raise SettingsError(f"{name} and {name}_FILE are both set: keep one of them.")
        try:
            return Path(path).read_text(encoding="utf-8").rstrip("\r\n"), field_name, False
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{name}_FILE: {path} cannot be read ({type(error).__name__}).") from None

    def __call__(self) -> dict[str, Any]:
        """Read the files of all fields."""
        values = {name: self.get_field_value(field, name)[0] for name, field in self.settings_cls.model_fields.items()}
        return {name: value for name, value in values.items() if value is not None}


class ModuleSettings(BaseSettings):
    """The base of every settings class. Subclasses set their prefix and describe every field."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    @classmethod
    def settings_customise_sources(  # type: ignore[override]
        cls, settings_cls: type[BaseSettings], **sources: PydanticBaseSettingsSource
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over secret files, and these over `.env`."""
        order = sources["init_settings"], sources["env_settings"], SecretFiles(settings_cls)
        return *order, sources["dotenv_settings"]


AnySettings = TypeVar("AnySettings", bound=ModuleSettings)
_loaded: dict[type[ModuleSettings], ModuleSettings] = {}


def load(settings: type[AnySettings]) -> AnySettings:
    """Read a settings class once per process. Raises SettingsError, which names every wrong setting."""
    found = _loaded.get(settings)
    if found is None:
        try:
            found = _loaded[settings] = settings()
        except ValidationError as error:
            lines = (_problem(settings, dict(problem)) for problem in error.errors(include_input=False))
            raise SettingsError("\n".join(lines)) from None
    return found  # type: ignore[return-value]


def forget() -> None:
    """Read every settings class anew at its next use (for tests)."""
    _loaded.clear()


def env_name(settings: type[BaseSettings], field: str) -> str:
    """The environment variable that a field is read from."""
    return f"{settings.model_config.get('env_prefix', '')}{field}".upper()


def _problem(settings: type[ModuleSettings], problem: dict[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{env_name(settings, str(problem['loc'][0]))}: {message}" if problem["loc"] else message


class Setting(NamedTuple):
    """One setting, as the command line and `.env.example` show it."""

    name: str
    description: str
    default: str
    secret: bool
    generated: bool


def describe(settings: type[ModuleSettings]) -> list[Setting]:
    """List the settings of a class in the order of its fields."""
    found = []
    for field, info in settings.model_fields.items():
        default = None if info.is_required() else info.get_default()
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        elif isinstance(default, (bool, list)):
            default = str(default).lower() if isinstance(default, bool) else ",".join(default)
        name, description = env_name(settings, field), info.description or ""
        generated = "generated" in str(info.json_schema_extra)
        found.append(Setting(name, description, str(default or ""), "SecretStr" in str(info.annotation), generated))
    return found


def env_file(classes: Iterable[type[ModuleSettings]], *, fresh: bool = False) -> str:
    """Write the text of `.env.example`, or with `fresh` of a new `.env` whose secrets have just been drawn."""
    blocks = []
    for settings in classes:
        lines = [f"# {(settings.__doc__ or settings.__name__).splitlines()[0]}"]
        for setting in describe(settings):
            lines += ["", f"# {setting.description}"]
            value = setting.default
            if setting.generated:
                value = secrets.token_urlsafe(48) if fresh else ""
            lines.append(f"{setting.name}={value}" if value else f"# {setting.name}=")
        blocks.append("\n".join(lines))
    return "\n\n\n".join(blocks) + "\n"


def write_secrets(path: Path, classes: Iterable[type[ModuleSettings]]) -> None:
    """Make a new `.env` for its owner's eyes only, or add what a newer version of the service draws at random."""
    classes = tuple(classes)
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(env_file(classes, fresh=True), encoding="utf-8")
        return
    text = path.read_text(encoding="utf-8")
    drawn = [setting.name for settings in classes for setting in describe(settings) if setting.generated]
    missing = [name for name in drawn if not re.search(rf"^{name}(_FILE)?=", text, re.MULTILINE)]
    with path.open("a", encoding="utf-8") as file:
        file.write("" if text.endswith("\n") or not missing else "\n")
        file.writelines(f"{name}={secrets.token_urlsafe(48)}\n" for name in missing)


class CoreSettings(ModuleSettings):
    """The process itself."""

    environment: Literal["development", "test", "production"] = Field(
        "development", description="development, test or production, which is strict."
    )
    debug: bool = Field(False, description="Say more in error responses. Refused in production.")
    secret_key: SecretStr = Field(
        SecretStr(DEVELOPMENT_SECRET),
        description=f"Signs what leaves the service; at least {MINIMUM_SECRET_LENGTH} random characters.",
        json_schema_extra={"generated": True},
    )
    docs_enabled: bool | None = Field(None, description="Serve /docs and /openapi.json. Default: not in production.")
    cors_origins: Annotated[list[str], NoDecode] = Field(
        [], description="Origins whose pages may call the API, separated by commas."
    )
    cors_allow_credentials: bool = Field(True, description="Let those pages send cookies and authorization headers.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 inside a container.")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")
    forwarded_allow_ips: str = Field("127.0.0.1", description="Proxies whose X-Forwarded-* headers are believed.")
    graceful_shutdown_seconds: int = Field(
        30, ge=1, description="How long running requests may take to end on SIGTERM."
    )
    max_body_bytes: int = Field(1_048_576, ge=1024, description="The largest request body that is read.")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def split(cls, value: object) -> object:
        """Accept the comma-separated form that an environment variable has."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @model_validator(mode="after")
    def guard_production(self) -> "CoreSettings":
        """Refuse in production what is only convenient in development."""
        if not self.production:
            return self
        problems = []
        secret = self.secret_key.get_secret_value()
        if secret == DEVELOPMENT_SECRET or len(secret) < MINIMUM_SECRET_LENGTH:
            problems.append(f"SECRET_KEY: production needs at least {MINIMUM_SECRET_LENGTH} random characters.")
        if self.debug:
            problems.append("DEBUG: must be off in production.")
        if "*" in self.cors_origins and self.cors_allow_credentials:
            problems.append("CORS_ORIGINS: * with credentials lets any site act for your users; list the origins.")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def production(self) -> bool:
        """Whether the strict rules hold."""
        return self.environment == "production"

    @property
    def docs(self) -> bool:
        """Whether the interactive documentation is served."""
        return not self.production if self.docs_enabled is None else self.docs_enabled

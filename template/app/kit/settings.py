"""Typed settings: one class per module, read from the environment, from `.env` and from secret files."""

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

from dotenv import dotenv_values
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, NoDecode, SettingsConfigDict

DEVELOPMENT_SECRET = "development-only-secret-key-never-use-it-in-production"  # noqa: S105
MINIMUM_SECRET_LENGTH = 32
MAXIMUM_FILE_BYTES = 65_536
# Browsers spell an origin in one way, and any other would never match.
_ORIGIN = r"\*|(?!http:.*:80$|https:.*:443$)[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:]+\])(:[0-9]+)?"


class SettingsError(Exception):
    """Some settings are missing or wrong; the message has one line for each and never shows a value."""


class SecretURL(SecretStr):
    """A URL that is shown without its password and without the values of its query."""

    def _display(self) -> str:
        address = re.sub("//([^:@]*):.*@", r"//\1:***@", self.get_secret_value(), flags=re.DOTALL)
        return re.sub("=[^&]*", "=***", address)


def _read(path: Path, name: str) -> str:
    """Read a text, but neither a device without an end nor a pipe that nobody writes to. Raises SettingsError."""
    with suppress(OSError, ValueError):
        if path.is_file() and path.stat().st_size <= MAXIMUM_FILE_BYTES:
            return path.read_text(encoding="utf-8-sig")
    raise SettingsError(f"{name} cannot be read; it must be a file of UTF-8 text, at most 64 KiB.")


def _read_secret_files(settings: type[BaseSettings], environment: Mapping[str, str | None]) -> dict[str, str]:
    """Read NAME from the file that NAME_FILE names, as container secrets are mounted."""
    values = {}
    for field in settings.model_fields:
        name = env_name(settings, field)
        path = environment.get(f"{name}_FILE".lower())
        if path and environment.get(name.lower()):
            raise SettingsError(f"{name} and {name}_FILE are both set: keep one of them.")
        if path:
            values[field] = _read(Path(path), f"{name}_FILE: {path}").rstrip("\r\n")
    return values


class ModuleSettings(BaseSettings):
    """The base of every settings class. Subclasses set their prefix and describe every field."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True)

    @classmethod
    def settings_customise_sources(cls, settings_cls: type[BaseSettings], **sources: Any) -> tuple[Any, ...]:  # type: ignore[override]
        """Read the environment, `.env` and the secret files that they name; the environment wins over `.env`."""
        environment, dotenv = sources["env_settings"], sources["dotenv_settings"]
        files = _read_secret_files(settings_cls, {**dotenv.env_vars, **environment.env_vars})
        return sources["init_settings"], environment, InitSettingsSource(settings_cls, files), dotenv


AnySettings = TypeVar("AnySettings", bound=ModuleSettings)
_made = cache(lambda settings: settings())
forget = _made.cache_clear  # For tests: every settings class is read anew at its next use.


def load(settings: type[AnySettings]) -> AnySettings:
    """Read a settings class once per process. Raises SettingsError, which names every wrong setting."""
    try:
        return _made(settings)  # type: ignore[no-any-return]
    except ValidationError as error:
        found = [(problem["loc"], problem["msg"].removeprefix("Value error, ")) for problem in error.errors()]
        lines = [f"{env_name(settings, str(place[0]))}: {text}" if place else text for place, text in found]
        raise SettingsError("\n".join(lines)) from None
    except (OSError, UnicodeDecodeError):
        raise SettingsError(".env cannot be read; it must be a file of UTF-8 text.") from None


def env_name(settings: type[BaseSettings], field: str) -> str:
    """The environment variable that a field is read from."""
    return f"{settings.model_config.get('env_prefix', '')}{field}".upper()


class Setting(NamedTuple):
    """One setting, as the command line and `.env.example` show it."""

    name: str
    description: str
    default: str
    generated: bool


def describe(settings: type[ModuleSettings]) -> Iterator[Setting]:
    """List the settings of a class in the order of its fields."""
    for field, info in settings.model_fields.items():
        generated = "generated" in str(info.json_schema_extra)
        default = None if info.is_required() or generated else info.get_default()
        if isinstance(default, SecretStr):
            default = default.get_secret_value()
        yield Setting(env_name(settings, field), info.description or "", written(default), generated)


def written(value: Any) -> str:
    """Write a value as `.env` would hold it; a secret stays hidden."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def env_file(classes: Iterable[type[ModuleSettings]]) -> str:
    """Write the text of `.env.example`."""
    blocks = []
    for settings in classes:
        lines = [f"# {(settings.__doc__ or settings.__name__).splitlines()[0]}"]
        for name, description, default, _ in describe(settings):
            lines += ["", f"# {description}", f"{name}={default}" if default else f"# {name}="]
        blocks.append("\n".join(lines))
    return "\n\n\n".join(blocks) + "\n"


def write_secrets(path: Path, classes: Iterable[type[ModuleSettings]]) -> None:
    """Make a `.env` for its owner's eyes only where there is none, and add the secrets that it lacks."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text("# What differs from the defaults, which .env.example lists.\n", encoding="utf-8")
    text = _read(path, str(path))
    present = dotenv_values(stream=StringIO(text)).keys()
    drawn = [setting.name for settings in classes for setting in describe(settings) if setting.generated]
    missing = "".join(f"{it}={secrets.token_urlsafe(48)}\n" for it in drawn if present.isdisjoint((it, f"{it}_FILE")))
    with path.open("a", encoding="utf-8") as file:
        file.write(missing if text.endswith("\n") or not missing else f"\n{missing}")


def strangers(path: Path, classes: Iterable[type[ModuleSettings]]) -> list[str]:
    """List what a `.env` sets and no setting is called, each with the setting that is spelled most like it."""
    known = {setting.name for settings in classes for setting in describe(settings)}
    unknown = [it for it in map(str.upper, dotenv_values(path)) if known.isdisjoint((it, it.removesuffix("_FILE")))]
    return [" ".join([name, *(f"({near}?)" for near in get_close_matches(name, known, 1))]) for name in unknown]


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
    graceful_shutdown_seconds: int = Field(30, ge=1, description="How long running requests may take on SIGTERM.")
    max_body_bytes: int = Field(1_048_576, ge=1024, description="The largest request body that is read.")

    @field_validator("cors_origins", mode="before")
    @classmethod
    def split(cls, value: str | list[str]) -> list[str]:
        """Accept the comma-separated form that an environment variable has, and only what a browser can send."""
        origins = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not all(re.fullmatch(_ORIGIN, origin) for origin in origins):
            raise ValueError("list scheme://host[:port] in lower case, without a path or a default port")
        return origins

    @model_validator(mode="after")
    def guard_production(self) -> "CoreSettings":
        """Refuse in production what is only convenient in development."""
        secret = self.secret_key.get_secret_value()
        weak = secret == DEVELOPMENT_SECRET or len(secret.strip()) < MINIMUM_SECRET_LENGTH
        # What is random hardly ever repeats three characters.
        weak |= len({secret[at : at + 3] for at in range(len(secret))}) < MINIMUM_SECRET_LENGTH - 10
        anyone = "*" in self.cors_origins and self.cors_allow_credentials
        spoofed = re.search(r"\*|/0", self.forwarded_allow_ips) is not None
        problems = {
            f"SECRET_KEY: production needs at least {MINIMUM_SECRET_LENGTH} random characters.": weak,
            "DEBUG: must be off in production.": self.debug,
            "CORS_ORIGINS: * with credentials lets any site act for your users; list the origins.": anyone,
            "FORWARDED_ALLOW_IPS: lets any client choose its address; list your proxies or their networks.": spoofed,
        }
        found = [sentence for sentence, applies in problems.items() if applies]
        if self.production and found:
            raise ValueError("\n".join(found))
        return self

    @property
    def production(self) -> bool:
        """Whether the strict rules hold."""
        return self.environment == "production"

    @property
    def docs(self) -> bool:
        """Whether the interactive documentation is served."""
        return not self.production if self.docs_enabled is None else self.docs_enabled

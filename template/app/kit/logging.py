"""Structured logs: pretty in development, one JSON object per line in production, and never a secret."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Literal

import structlog
from pydantic import Field
from structlog.typing import Processor

from app.kit.settings import ModuleSettings

MASK = "***"
_KEYS = r"pass(word|wd|phrase)|secret|token|authorization|cookie|api[-_]?key|private[-_]?key|dsn"
_is_secret = lru_cache(maxsize=1024)(re.compile(_KEYS, re.I).search)
_mark_of_a_secret = re.compile(r"[\s=]|://|eyJ").search
# Possessive, and anchored where a word begins: a long line of nearly secrets must not cost quadratic time.
_SECRET_VALUES = re.compile(
    r"(?P<bearer>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"
    r"|(?P<url>(?<![\w+.-])[a-z][\w+.-]*+://[^\s/:@]*+:)[^\s/@]++(?=@)"
    r"|(?P<pair>(?:password|passwd|secret|token|api[-_]?key)=)[^\s&\"']+"
    r"|(?<![\w-])eyJ[\w-]{5,}+\.[\w-]++\.[\w-]*",
    re.I,
)


class LogSettings(ModuleSettings):
    """Logs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="The least that is logged.")
    log_format: Literal["auto", "pretty", "json"] = Field(
        "auto", description="pretty, json, or auto: json in production and pretty elsewhere."
    )


def redact_text(text: str) -> str:
    """Mask bearer tokens, JWTs, passwords in URLs and key=value secrets."""
    if not _mark_of_a_secret(text):
        return text
    return _SECRET_VALUES.sub(lambda match: next((part for part in match.groups() if part), "") + MASK, text)


def _redact(value: Any) -> Any:
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, Mapping):
        return {key: MASK if _is_secret(str(key)) else _redact(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_redact(item) for item in value]
    return value


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask secrets in an event, by the names of its keys and by the look of its values."""
    for key, value in event.items():
        if not key.startswith("_"):
            event[key] = MASK if _is_secret(key) else _redact(value)
    return event


def configure_logging(settings: LogSettings, *, production: bool) -> None:
    """Send structlog and the standard library's loggers through one chain to standard output."""
    json = production if settings.log_format == "auto" else settings.log_format == "json"
    pretty = structlog.dev.ConsoleRenderer(
        colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
        structlog.processors.JSONRenderer() if json else pretty,
    ]
    # Written directly: the way through the standard library costs a request three times as much.
    structlog.configure(
        processors=chain,
        logger_factory=lambda *_: structlog.WriteLogger(sys.stdout),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level]),
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *chain],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    logging.getLogger("uvicorn.access").disabled = True
    for noisy in ("aiosqlite", "alembic", "asyncio", "httpx2"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger; pass facts as keyword arguments, not in the text."""
    return structlog.get_logger(name)  # type: ignore[no-any-return]

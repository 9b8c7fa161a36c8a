"""Structured logs: pretty in development, one JSON object per line in production, and never a secret."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from enum import Enum
from functools import lru_cache
from typing import Any, Literal

import structlog
from pydantic import ConfigDict, Field, TypeAdapter
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import ExtraAdder, ProcessorFormatter
from structlog.typing import Processor

from app.kit.settings import ModuleSettings

MASK = "***"
_event = TypeAdapter(Any, config=ConfigDict(ser_json_inf_nan="strings"))
_KEYS = r"pass(word|wd|phrase)|secret|token|authorization|cookie|api[-_]?key|private[-_]?key|dsn"
_is_secret = lru_cache(maxsize=1024)(re.compile(_KEYS, re.I).search)
_mark_of_a_secret = re.compile(r"[\s=]|://|eyJ|_[0-9A-Za-z]{24}").search
# Possessive, and anchored where a word begins: a long line of nearly secrets must not cost quadratic time.
_SECRET_VALUES = re.compile(
    r"(?P<bearer>\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}"
    r"|(?P<url>(?<![\w+.-])[a-z][\w+.-]*+://[^\s/:@]*+:)[^\s/@]++(?=@)"
    r"|(?P<pair>(?:password|passwd|secret|token|api[-_]?key)=)[^\s&\"']+"
    r"|(?<![\w-])(?:eyJ[\w-]{5,}+\.[\w-]++\.[\w-]*|(?P<key>[a-z]\w{1,24}?_)[0-9a-z]{24,}+(?![\w-]))",
    re.I,
)


class LogSettings(ModuleSettings):
    """Logs."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="The least that is logged.")
    log_format: Literal["auto", "pretty", "json"] = Field("auto", description="auto: json in production, else pretty.")


def redact_text(text: str) -> str:
    """Mask bearer tokens, JWTs, API keys, passwords in URLs and key=value secrets."""
    if not _mark_of_a_secret(text):
        return text
    return _SECRET_VALUES.sub(lambda match: next((part for part in match.groups() if part), "") + MASK, text)


def _redact(value: Any) -> Any:
    if value is None or type(value) in (int, float, bool):
        return value
    if not isinstance(value, str):
        if isinstance(value, Enum):
            return _redact(value.value)
        if isinstance(value, Mapping):
            return {_redact(str(key)): MASK if _is_secret(str(key)) else _redact(item) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [_redact(item) for item in value]
    text = redact_text(str(value))
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()  # No lone surrogates.


def redact(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Mask secrets, by the names of keys and by the look of values, and leave only what can be written."""
    for key, value in event.items():
        try:
            event[key] = MASK if _is_secret(key) else _redact(value)
        except Exception:  # A log call never raises.
            event[key] = f"<{type(value).__name__}>"
    return event


def configure_logging(settings: LogSettings, *, production: bool) -> None:
    """Send structlog and the standard library's loggers through one chain to standard output."""
    pretty = ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain_traceback)
    json = structlog.processors.JSONRenderer(serializer=lambda event, **_: _event.dump_json(event).decode())
    as_json = production if settings.log_format == "auto" else settings.log_format == "json"
    chain: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
        json if as_json else pretty,
    ]
    # Written directly: the way through the standard library costs a request three times as much.
    structlog.configure(
        processors=chain,
        logger_factory=lambda *_: structlog.WriteLogger(sys.stdout),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level]),
    )
    handler = logging.StreamHandler(sys.stdout)
    foreign = [ProcessorFormatter.remove_processors_meta, *chain]
    handler.setFormatter(ProcessorFormatter(foreign_pre_chain=[ExtraAdder()], processors=foreign))
    handler.addFilter(lambda record: bool(record.__dict__.pop("color_message", True)))  # uvicorn's text in colours.
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], name != "uvicorn.access"
    for noisy in ("aiosqlite", "alembic", "asyncio", "httpx2", "watchfiles"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def get_logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return a logger; pass facts as keyword arguments, not in the text."""
    return structlog.get_logger(name)  # type: ignore[no-any-return]

"""The clock of all that is stored or told. Tests set it with time-machine."""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the current time, aware and in UTC."""
    return datetime.now(UTC)

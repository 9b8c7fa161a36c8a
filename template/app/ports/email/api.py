"""What the HTTP APIs of mail providers have in common."""

import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from app.ports.email.message import EmailDelayed, EmailFailed

if TYPE_CHECKING:
    from httpx2 import AsyncClient

# Something is being done already, took too long, comes too early or too often.
LATER = {408, 409, 425, 429}


def open_client(timeout: float, **headers: str) -> "AsyncClient":
    """Make a client that follows no redirect, which could carry a key to another server."""
    from httpx2 import AsyncClient

    return AsyncClient(timeout=timeout, headers=headers, follow_redirects=False)


def failure(status: int, reason: str, headers: Mapping[str, str]) -> EmailFailed:
    """Tell whether an answer that is no success is worth another try, and when."""
    told = f"{status} {reason}"
    return EmailDelayed(told, retry_after(headers)) if status in LATER or status >= 500 else EmailFailed(told)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Read how many seconds a server asks to wait: a number, a date (RFC 9110, 10.2.3), or the end of its window."""
    named = {name.lower(): value for name, value in headers.items()}
    with suppress(ValueError, TypeError, OverflowError):
        if value := named.get("retry-after"):
            at = value if value.isdigit() else parsedate_to_datetime(value).timestamp() - time.time()
        elif value := named.get("x-ratelimit-reset"):
            at = float(value) - time.time()
        else:
            return None
        return max(0.0, float(at))
    return None

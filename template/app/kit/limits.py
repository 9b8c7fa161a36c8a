"""Rate limits: fixed windows per client, counted in memory or in a shared store."""

import time
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Depends, Request
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, Storage
from pydantic import Field, field_validator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.errors import TooManyRequests, problem
from app.kit.settings import ModuleSettings

EXCEEDED = "Too many requests. Wait for the window to end."


class LimitSettings(ModuleSettings):
    """Rate limits."""

    rate_limit_enabled: bool = Field(True, description="Whether requests are counted and refused above the limits.")
    rate_limit_default: str = Field("300/minute", description="What one client address may do under /api.")

    @field_validator("rate_limit_default")
    @classmethod
    def parses(cls, value: str) -> str:
        """Refuse what is not of the form 300/minute."""
        try:
            parse(value)
        except ValueError:
            raise ValueError("write it as a number per second, minute, hour or day, such as 300/minute") from None
        return value


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a limit stands after a request."""

    limit: int
    used: int
    reset: float

    @property
    def allowed(self) -> bool:
        """Whether the request is within the limit."""
        return self.used <= self.limit

    @property
    def retry_after(self) -> int:
        """Whole seconds until the window ends, at least 1."""
        return max(1, round(self.reset - time.time()))

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The three headers that tell a client where it stands; the reset is a Unix time in seconds."""
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % max(0, self.limit - self.used)),
            (b"x-ratelimit-reset", b"%d" % self.reset),
        ]


class Counter(Protocol):
    """Counts one request against a limit."""

    async def __call__(self, item: RateLimitItem, key: str) -> Verdict:
        """Add one to the window that the key is in."""


def counter(storage: Storage) -> Counter:
    """Count in one of the stores of the `limits` library."""

    async def count(item: RateLimitItem, key: str) -> Verdict:
        used = await storage.incr(key, item.get_expiry())
        return Verdict(item.amount, used, await storage.get_expiry(key))

    return count


class RateLimiter:
    """Counts in memory, until a port gives it a counter that all processes share."""

    def __init__(self, settings: LimitSettings) -> None:
        self.enabled = settings.rate_limit_enabled
        self.default = parse(settings.rate_limit_default)
        self.count: Counter = counter(MemoryStorage())

    async def hit(self, item: RateLimitItem, *identifiers: str) -> Verdict:
        """Count one request of whoever the identifiers name."""
        return await self.count(item, item.key_for(*identifiers))


def client_address(scope: Scope) -> str:
    """The client's address; behind a trusted proxy the server has already put the forwarded one here."""
    return scope["client"][0] if scope.get("client") else "unknown"


class RateLimitMiddleware:
    """Holds every client to the default limit under /api, and writes the headers of the limit that was hit last."""

    def __init__(self, app: ASGIApp, *, limiter: RateLimiter) -> None:
        self.app = app
        self.limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or not self.limiter.enabled or not scope["path"].startswith("/api/"):
            await self.app(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *state["rate_limit"].headers()]
            await send(message)

        verdict = state["rate_limit"] = await self.limiter.hit(self.limiter.default, client_address(scope))
        if verdict.allowed:
            await self.app(scope, receive, send_with_headers)
            return
        headers = {"Retry-After": str(verdict.retry_after)}
        await problem(scope, 429, EXCEEDED, headers=headers)(scope, receive, send_with_headers)


def rate_limit(limit: str) -> Any:
    """Make a dependency that holds a route to a stricter limit: `dependencies=[rate_limit("5/minute")]`."""
    item = parse(limit)

    async def check(request: Request) -> None:
        limiter: RateLimiter = request.app.state.limiter
        if limiter.enabled:
            verdict = await limiter.hit(item, client_address(request.scope), request.scope["route"].path)
            request.scope["state"]["rate_limit"] = verdict
            if not verdict.allowed:
                raise TooManyRequests(EXCEEDED, headers={"Retry-After": str(verdict.retry_after)})

    return Depends(check)

"""Rate limits: fixed windows per client, counted in memory or in a shared store."""

import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, Storage
from pydantic import Field
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.errors import problem
from app.kit.settings import ModuleSettings

EXCEEDED = "Too many requests. Wait for the window to end."


class LimitSettings(ModuleSettings):
    """Rate limits."""

    rate_limit_enabled: bool = Field(True, description="Whether requests are counted and refused above the limits.")
    rate_limit_default: str = Field(
        "300/minute", pattern=r"^[1-9]\d*/(second|minute|hour|day)$", description="For one client address, under /api."
    )


class Verdict(NamedTuple):
    """How a limit stands after a request; `reset` is a Unix time in seconds."""

    limit: int
    used: int
    reset: float

    def headers(self) -> dict[str, str]:
        """Tell a client where it stands, and when to come back once the limit is used up."""
        headers = {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(max(0, self.limit - self.used)),
            "X-RateLimit-Reset": str(int(self.reset)),
        }
        if self.used > self.limit:
            headers["Retry-After"] = str(max(1, round(self.reset - time.time())))
        return headers


Counter = Callable[[RateLimitItem, str], Awaitable[Verdict]]


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


class RateLimitMiddleware:
    """Holds every client address to the default limit under /api, and says so in headers."""

    def __init__(self, app: ASGIApp, *, limiter: RateLimiter) -> None:
        self.app = app
        self.limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or not self.limiter.enabled or not scope["path"].startswith("/api/"):
            await self.app(scope, receive, send)
            return
        # Behind a proxy that is trusted, the server has already put the forwarded address here.
        client = scope["client"][0] if scope.get("client") else "unknown"
        verdict = await self.limiter.count(self.limiter.default, self.limiter.default.key_for(client))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(verdict.headers())
            await send(message)

        app = self.app if verdict.used <= verdict.limit else problem(scope, 429, EXCEEDED)
        await app(scope, receive, send_with_headers)

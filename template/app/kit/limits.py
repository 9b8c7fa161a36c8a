"""Rate limits: fixed windows per client, counted in memory or in a shared store."""

import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address
from typing import NamedTuple

from limits import RateLimitItem, parse
from pydantic import Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.kit.errors import problem
from app.kit.settings import ModuleSettings


class LimitSettings(ModuleSettings):
    """Rate limits."""

    rate_limit_enabled: bool = Field(True, description="Whether requests are counted and refused above the limits.")
    rate_limit_default: str = Field(
        "300/minute", pattern="^[1-9][0-9]{0,8}/(second|minute|hour|day)$", description="For one client, under /api."
    )


class Verdict(NamedTuple):
    """How a limit stands after a request; `reset` is a Unix time in seconds."""

    limit: int
    used: int
    reset: float

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Tell a client where it stands, and when to come back once the limit is used up."""
        told = {
            "x-ratelimit-limit": self.limit,
            "x-ratelimit-remaining": max(0, self.limit - self.used),
            "x-ratelimit-reset": int(self.reset),
        }
        if self.used > self.limit:
            told["retry-after"] = max(1, round(self.reset - time.time()))
        return [(name.encode(), b"%d" % value) for name, value in told.items()]


Counter = Callable[[RateLimitItem, str], Awaitable[Verdict]]


def memory_counter() -> Counter:
    """Count in this process. A store of `limits` would do, but its own looks through all clients at every request."""
    windows: dict[str, tuple[int, float]] = {}
    sweep_at = 1024

    async def count(item: RateLimitItem, key: str) -> Verdict:
        nonlocal windows, sweep_at
        now = time.time()
        used, reset = windows.get(key, (0, 0.0))
        windows[key] = used, reset = (used + 1, reset) if reset > now else (1, now + item.get_expiry())
        if len(windows) >= sweep_at:
            windows = {key: window for key, window in windows.items() if window[1] > now}
            sweep_at = max(1024, 2 * len(windows))
        return Verdict(item.amount, used, reset)

    return count


class RateLimiter:
    """Counts in memory, until a port gives it a counter that all processes share."""

    def __init__(self, settings: LimitSettings) -> None:
        self.enabled, self.default = settings.rate_limit_enabled, parse(settings.rate_limit_default)
        self.covers: Callable[[str], bool] = lambda path: path.startswith("/api/")
        self.count = memory_counter()


def client_key(address: str) -> str:
    """Name the client of an address. One of IPv6 is its /64, all of which one subscriber has (RFC 6177)."""
    try:
        six = IPv6Address(address) if ":" in address else None
    except ValueError:
        six = None
    return str(six.ipv4_mapped or IPv6Address(int(six) >> 64 << 64)) if six else address


class RateLimitMiddleware:
    """Holds every client address to the default limit under /api, and says so in headers."""

    def __init__(self, app: ASGIApp, *, limiter: RateLimiter) -> None:
        self.app, self.limiter = app, limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http" or not self.limiter.enabled or not self.limiter.covers(scope["path"]):
            await self.app(scope, receive, send)
            return
        # Behind a proxy that is trusted, the server has already put the forwarded address here.
        client = client_key(scope["client"][0]) if scope.get("client") else "unknown"
        verdict = await self.limiter.count(self.limiter.default, self.limiter.default.key_for(client))

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *verdict.headers()]
            await send(message)

        app = self.app if verdict.used <= verdict.limit else problem(scope, 429, "Too many requests. Wait a while.")
        await app(scope, receive, send_with_headers)

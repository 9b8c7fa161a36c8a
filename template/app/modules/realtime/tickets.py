"""Tickets: what lets a client connect that can send no headers. Each is good once, for some seconds.

What the ticket's owner showed lies in the cache meanwhile, under a pad that is drawn from the ticket: who reads the
cache sees no token. A pad needs no seal here, for what comes out is verified like what comes in any request.
"""

import json
import secrets
from collections.abc import Iterable
from datetime import timedelta
from hashlib import sha256, shake_256

from starlette.datastructures import Headers

from app.ports.cache.cache import Cache
from app.ports.cache.memory import MemoryStore

PREFIX = "ticket_"
# Where the shared store is away, a ticket is good in the process that has made it.
HERE_BYTES = 8_388_608
KEPT = {"authorization", "cookie", "origin", "sec-fetch-site", "x-requested-with"}
Shown = list[tuple[bytes, bytes]]


def shown_by(headers: Headers) -> Shown:
    """Return what a request shows of who sends it: credentials, and what protects cookies."""
    raw = headers.raw
    has_token = any(name == b"authorization" for name, _ in raw)
    kept = KEPT - ({"cookie"} if has_token else set())
    return [(name, value) for name, value in raw if name.decode("latin-1") in kept]


def bearer(token: str) -> Shown:
    """Return what a request with a token shows."""
    return [(b"authorization", b"Bearer " + token.encode("ascii", "replace"))]


class Tickets:
    """Makes tickets and takes them."""

    def __init__(self, cache: Cache, lifetime: timedelta) -> None:
        self.cache, self.lifetime = cache, lifetime
        self.here = MemoryStore(HERE_BYTES)

    async def issue(self, shown: Shown) -> str:
        """Make a ticket for whoever shows this."""
        ticket, key, value = _made(shown)
        if not await self.cache.keep_once(key, value, self.lifetime):
            # A store that only answered too late has that one all the same: in two places it would be good twice.
            ticket, key, value = _made(shown)
            await self.here.set(key, value, self.lifetime.total_seconds())
        return ticket

    async def take(self, ticket: str) -> Shown | None:
        """Return what was shown for a ticket, once."""
        key = _key(ticket)
        value = await self.here.take(key) or await self.cache.take_once(key)
        return _read(_padded(ticket, value)) if value else None


def _made(shown: Shown) -> tuple[str, str, bytes]:
    ticket = PREFIX + secrets.token_hex(32)
    return ticket, _key(ticket), _padded(ticket, _write(shown))


def _key(ticket: str) -> str:
    return "ticket:" + sha256(b"key" + ticket.encode()).hexdigest()


def _padded(ticket: str, text: bytes) -> bytes:
    pad = shake_256(b"pad" + ticket.encode()).digest(len(text))
    return bytes(a ^ b for a, b in zip(text, pad, strict=True))


def _write(shown: Iterable[tuple[bytes, bytes]]) -> bytes:
    return json.dumps([[part.decode("latin-1") for part in header] for header in shown]).encode()


def _read(text: bytes) -> Shown:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in json.loads(text)]

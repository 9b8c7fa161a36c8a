"""The public keys that a provider publishes (RFC 7517), for the tokens that it signs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import jwt
from jwt import PyJWK

from app.kit.errors import Unavailable
from app.kit.logging import get_logger

# Signatures that need a private key. A shared secret (HS256) would let whoever can verify a token forge one.
ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)
KEYS_LIFETIME_SECONDS = 600.0
KEYS_COOLDOWN_SECONDS = 10.0
AWAY = "The identity provider cannot be reached. Try again shortly."
log = get_logger(__name__)

Fetch = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]


class KeySet:
    """The keys of a provider, fetched when they are needed, by one task for all who wait.

    Keys that are there go on working while the provider is away. An unknown key makes the set be fetched again, though
    not again within the cooldown: callers cannot turn made-up key ids into requests to the provider.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        required: bool = True,
        lifetime: float = KEYS_LIFETIME_SECONDS,
        cooldown: float = KEYS_COOLDOWN_SECONDS,
    ) -> None:
        self.fetch, self.required, self.lifetime, self.cooldown = fetch, required, lifetime, cooldown
        self.failure: Exception | None = None
        self._published: list[Mapping[str, Any]] = []
        self._ready: dict[tuple[str | None, str], PyJWK] = {}
        self._fetched = self._tried = float("-inf")
        self._running: asyncio.Task[None] | None = None

    @property
    def fresh(self) -> bool:
        """Whether there are keys, and not for too long."""
        return time.monotonic() - self._fetched <= self.lifetime

    async def find(self, kid: str | None, algorithm: str) -> PyJWK | None:
        """Find a key by its id; without one, the only key for the algorithm. Raises Unavailable when it cannot tell."""
        if self._published and not self.fresh:
            self._refresh()  # Nobody waits for it.
        key = self._match(kid, algorithm)
        if key is None:
            await self.refresh()
            key = self._match(kid, algorithm)
        if key is None and self.failure:
            raise Unavailable(AWAY) from self.failure
        return key

    async def refresh(self) -> None:
        """Fetch the keys, unless that was tried just now; `failure` tells how it went."""
        if running := self._refresh():
            await asyncio.shield(running)

    def _refresh(self) -> "asyncio.Task[None] | None":
        if self._running is None and time.monotonic() - self._tried >= self.cooldown:
            self._running = asyncio.create_task(self._replace())
        return self._running

    async def _replace(self) -> None:
        try:
            self._published = usable(await self.fetch(), required=self.required)
            self._ready = {}
            self._fetched, self.failure = time.monotonic(), None
        except Exception as error:
            if self.failure is None:
                log.warning("the keys of the identity provider cannot be fetched", reason=str(error))
            self.failure = error
        finally:
            self._tried, self._running = time.monotonic(), None

    def _match(self, kid: str | None, algorithm: str) -> PyJWK | None:
        if key := self._ready.get((kid, algorithm)):
            return key
        found = [one for one in self._published if one.get("alg") in {None, algorithm}]
        found = [one for one in found if kid is None or one.get("kid") == kid]
        keys = [key for one in found if (key := make_key(one, algorithm))]
        if len(keys) != 1:
            return None
        self._ready[kid, algorithm] = keys[0]
        return keys[0]

    async def close(self) -> None:
        """Give up a fetch that is under way."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])


def usable(published: Sequence[Mapping[str, Any]], *, required: bool) -> list[Mapping[str, Any]]:
    """Keep the public keys for signatures. Raises ValueError when some are required and there are none."""
    keys = [
        key
        for key in published
        if key.get("kty") != "oct" and key.get("use", "sig") == "sig" and "verify" in key.get("key_ops", ["verify"])
    ]
    if required and not keys:
        raise ValueError("the provider publishes no key for signatures")
    return keys


def make_key(published: Mapping[str, Any], algorithm: str) -> PyJWK | None:
    """Make a key for an algorithm, if it is one for it."""
    try:
        return PyJWK(dict(published), algorithm)
    except (jwt.PyJWTError, ValueError, TypeError):
        return None

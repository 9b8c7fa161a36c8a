"""The cache port: values that can be made again, kept for a while. A store that is away costs time and fails nothing.

Values are kept as JSON by their type, never pickled: what a store holds is data, whoever wrote it.
"""

import asyncio
import functools
import inspect
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, get_type_hints

from fastapi import Depends
from pydantic import Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError
from starlette.requests import HTTPConnection

from app.kit.logging import get_logger
from app.kit.resilience import Guard, GuardedCallFailed

MOST_KEY_CHARACTERS = 200
LONGEST = timedelta(days=30)
# How long one process makes a value before others stop waiting for it, and how often they look.
LOCK_SECONDS = 5.0
LOOK_SECONDS = 0.05
TIMEOUT_SECONDS = 0.5
VERSION_BYTES = 12
Value = TypeVar("Value")
_arguments = TypeAdapter(Any)
P = ParamSpec("P")
log = get_logger(__name__)


class Store(Protocol):
    """An adapter: it keeps bytes, and may forget them before their time."""

    name: str

    async def get(self, *keys: str) -> list[bytes | None]:
        """Return the values of keys."""

    async def set(self, key: str, value: bytes, seconds: float) -> None:
        """Keep a value for some seconds."""

    async def add(self, key: str, value: bytes, seconds: float) -> bool:
        """Keep a value unless there is one. Returns whether there was none."""

    async def take(self, key: str) -> bytes | None:
        """Return a value and forget it; of several who ask at once, one gets it."""


@dataclass(frozen=True, slots=True)
class Namespace(Generic[Value]):
    """Values of one type that are kept for the same time and can be forgotten together."""

    name: str
    type: TypeAdapter[Value]
    lifetime: timedelta

    def __post_init__(self) -> None:
        """Refuse a lifetime that no version of a namespace outlives."""
        if not timedelta() < self.lifetime <= LONGEST:
            raise ValueError(f"The namespace {self.name} keeps values for more than nothing and at most {LONGEST}.")

    def key(self, key: str) -> str:
        """Return the key of the store. Long ones are hashed, and marked: no short one is read as a long one's hash."""
        written = key.encode(errors="surrogatepass")
        # A store that fails at half a character would be taken for one that is away.
        with suppress(UnicodeDecodeError):
            if len(key) <= MOST_KEY_CHARACTERS:
                return f"value:{self.name}:={written.decode()}"
        return f"value:{self.name}:#{sha256(written).hexdigest()}"

    def read(self, kept: bytes | None) -> tuple[Value] | None:
        """Read a value. What another version of the service wrote, and this one cannot read, is not there."""
        try:
            return None if kept is None else (self.type.validate_json(kept),)
        except ValidationError:
            return None


class Cache:
    """Keeps values in a store, and makes each that is missing once for all who wait for it."""

    def __init__(self, store: Store, most_bytes: int) -> None:
        self.store, self.most_bytes = store, most_bytes
        # Of anything that a store may raise: a cache is never the reason why a request fails.
        self.guard = Guard("cache", timeout=TIMEOUT_SECONDS, attempts=1, threshold=3)
        # By the version as well: who comes after an invalidation waits for nothing that began before it.
        self._flights: dict[tuple[str, bytes | None], asyncio.Future[bytes]] = {}

    async def get_or_set(self, namespace: Namespace[Value], key: str, make: Callable[[], Awaitable[Value]]) -> Value:
        """Return a value, and make it when it is not there. What `make` raises is raised and not kept.

        In this process it is made once at a time. Other processes wait some seconds for the one that makes it.
        """
        full = namespace.key(key)
        version, kept = await self._read(namespace, full)
        if found := namespace.read(kept):
            return found[0]
        while (flight := self._flights.get((full, version))) is not None:
            try:
                return namespace.type.validate_json(await asyncio.shield(flight))
            except asyncio.CancelledError:
                # Whoever made it was cut off, and not we: the next one makes it.
                if not flight.cancelled() or (task := asyncio.current_task()) is None or task.cancelling():
                    raise
        self._flights[full, version] = flight = asyncio.get_running_loop().create_future()
        try:
            kept = await self._make(namespace, full, version, make)
        except asyncio.CancelledError:
            flight.cancel()
            raise
        except BaseException as error:
            flight.set_exception(error)
            flight.exception()  # Nobody may wait for it.
            raise
        else:
            flight.set_result(kept)
            return namespace.type.validate_json(kept)
        finally:
            del self._flights[full, version]

    async def get(self, namespace: Namespace[Value], key: str) -> Value | None:
        """Return a value that is there, or None."""
        _, kept = await self._read(namespace, namespace.key(key))
        found = namespace.read(kept)
        return found[0] if found else None

    async def set(self, namespace: Namespace[Value], key: str, value: Value) -> None:
        """Keep a value."""
        full = namespace.key(key)
        version, _ = await self._read(namespace, full)
        await self._write(namespace, full, version, namespace.type.dump_json(value))

    async def delete(self, namespace: Namespace[Any], key: str) -> None:
        """Forget a value. One that is being made at this moment is kept all the same: `invalidate` is stricter."""
        await self._ask(self.store.take, namespace.key(key))

    async def invalidate(self, namespace: Namespace[Any]) -> None:
        """Forget all values of a namespace, also those that are being made at this moment."""
        await self._new_version(namespace)

    async def keep_once(self, key: str, value: bytes, lifetime: timedelta) -> bool:
        """Keep bytes for whoever takes them. Returns whether the store has them."""
        return await self._ask(self._kept, key, value, lifetime.total_seconds()) is True

    async def take_once(self, key: str) -> bytes | None:
        """Return bytes and forget them: of several who ask at once, one gets them."""
        found: bytes | None = await self._ask(self.store.take, key)
        return found

    async def _kept(self, key: str, value: bytes, seconds: float) -> bool:
        await self.store.set(key, value, seconds)
        return True

    async def _make(
        self, namespace: Namespace[Value], full: str, version: bytes | None, make: Callable[[], Awaitable[Value]]
    ) -> bytes:
        lock = f"lock:{full}"
        mine = secrets.token_bytes(8)
        alone = await self._ask(self.store.add, lock, mine, LOCK_SECONDS)
        if alone is False:
            until = asyncio.get_running_loop().time() + LOCK_SECONDS
            while asyncio.get_running_loop().time() < until:
                await asyncio.sleep(LOOK_SECONDS)
                version, kept = await self._read(namespace, full)
                if kept is not None and namespace.read(kept):
                    return kept
                if await self._ask(self.store.add, lock, mine, LOCK_SECONDS) is not False:
                    alone = True
                    break
        try:
            made = namespace.type.dump_json(await make())
            await self._write(namespace, full, version, made)
            return made
        finally:
            if alone:
                await self._ask(self.store.take, lock)

    async def _read(self, namespace: Namespace[Any], full: str) -> tuple[bytes | None, bytes | None]:
        """Return the version of the namespace, and the value if it is of that version: one round trip."""
        found = await self._ask(self.store.get, f"version:{namespace.name}", full)
        if found is None:
            return None, None
        version, entry = found
        if version is None:
            return await self._new_version(namespace, keep=True), None
        return version, entry[VERSION_BYTES:] if entry and entry.startswith(version) else None

    async def _new_version(self, namespace: Namespace[Any], *, keep: bool = False) -> bytes | None:
        """Draw a version. Each is random, so that none comes back when a store has forgotten it."""
        key, version = f"version:{namespace.name}", secrets.token_bytes(VERSION_BYTES)
        call = self.store.add if keep else self._kept
        if await self._ask(call, key, version, 2 * LONGEST.total_seconds()):
            return version
        found = await self._ask(self.store.get, key)
        current: bytes | None = found[0] if found else None
        return current

    async def _write(self, namespace: Namespace[Any], full: str, version: bytes | None, value: bytes) -> None:
        # Without a version the store is away.
        if version is not None and len(value) <= self.most_bytes:
            await self._ask(self.store.set, full, version + value, namespace.lifetime.total_seconds())

    async def _ask(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Ask the store. Returns None while it is away, which after some failures costs no time."""
        try:
            return await self.guard.call(call, *arguments)
        except GuardedCallFailed as failure:
            if failure.news:
                log.warning("the cache is away; values are made each time", reason=str(failure))
            return None


class Cached(Generic[P, Value]):
    """A function whose values are kept. Its namespace can be invalidated."""

    def __init__(
        self, function: Callable[Concatenate[Cache, P], Awaitable[Value]], namespace: Namespace[Value]
    ) -> None:
        self.function, self.namespace = function, namespace
        self._signature = inspect.signature(function)
        # Two functions may share a namespace, to be forgotten together, but no values.
        self._name = f"{function.__module__}.{function.__qualname__}"
        functools.update_wrapper(self, function)

    async def __call__(self, cache: Cache, /, *args: P.args, **kwargs: P.kwargs) -> Value:
        """Return what is kept for these arguments, or call the function."""
        key = self.key(cache, *args, **kwargs)
        return await cache.get_or_set(self.namespace, key, lambda: self.function(cache, *args, **kwargs))

    def key(self, cache: Cache, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of these arguments, however they are given. Raises TypeError for a secret: all look alike."""
        bound = self._signature.bind(cache, *args, **kwargs)
        bound.apply_defaults()
        _, *given = bound.arguments.values()
        if any(isinstance(one, (Secret, SecretBytes, SecretStr)) for one in given):
            raise TypeError(
                f"{self._name} is cached by its arguments, and a secret among them would be written as stars."
            )
        return self._name + _arguments.dump_json(given).decode()


def cached(
    name: str, lifetime: timedelta
) -> Callable[[Callable[Concatenate[Cache, P], Awaitable[Value]]], Cached[P, Value]]:
    """Keep what an async function returns, by its arguments. Its first one is the cache, its return type says what.

    Whatever decides the value is an argument, also whose it is: `async def totals(cache: Cache, owner: UUID)`.
    """

    def decorate(function: Callable[Concatenate[Cache, P], Awaitable[Value]]) -> Cached[P, Value]:
        return Cached(function, Namespace(name, TypeAdapter(get_type_hints(function)["return"]), lifetime))

    return decorate


async def _cache(connection: HTTPConnection) -> Cache:
    cache: Cache = connection.app.state.cache
    return cache


CurrentCache = Annotated[Cache, Depends(_cache)]

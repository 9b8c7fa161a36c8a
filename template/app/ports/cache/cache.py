"""The cache port: values that can be made again, kept for a while. A store that is away costs time and fails nothing.

Values are kept as JSON by their type, never pickled: what a store holds is data, whoever wrote it.
"""

import asyncio
import functools
import inspect
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, is_dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Annotated, Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, get_type_hints

from fastapi import Depends
from pydantic import BaseModel, Secret, SecretBytes, SecretStr, TypeAdapter, ValidationError
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
        # Namespaces that were to be forgotten while the store was away: that is made up for before they are read.
        self._outdated: set[str] = set()
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
        """Keep a value. One that is too large is not kept, nor is the one before it."""
        full, written = namespace.key(key), namespace.type.dump_json(value)
        version, _ = await self._read(namespace, full)
        if len(written) > self.most_bytes:
            await self.delete(namespace, key)
        elif version is None or not await self._write(namespace, full, version, written):
            self._outdated.add(namespace.name)

    async def delete(self, namespace: Namespace[Any], key: str) -> None:
        """Forget a value. One that is being made at this moment is kept all the same: `invalidate` is stricter."""
        if not await self._heard(self.store.take, namespace.key(key)):
            self._outdated.add(namespace.name)

    async def invalidate(self, namespace: Namespace[Any]) -> None:
        """Forget all values of a namespace, also those that are being made at this moment.

        While the store is away, this process does so once it is back; what others read until then may be old.
        """
        self._outdated.add(namespace.name)
        await self._new_version(namespace)

    async def keep_once(self, key: str, value: bytes, lifetime: timedelta) -> bool:
        """Keep bytes for whoever takes them. Returns whether the store has them."""
        return await self._heard(self.store.set, key, value, lifetime.total_seconds())

    async def take_once(self, key: str) -> bytes | None:
        """Return bytes and forget them: of several who ask at once, one gets them."""
        found: bytes | None = await self._ask(self.store.take, key)
        return found

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
            # Without a version the store is away.
            if version is not None and len(made) <= self.most_bytes:
                await self._write(namespace, full, version, made)
            return made
        finally:
            if alone:
                await self._ask(self.store.take, lock)

    async def _read(self, namespace: Namespace[Any], full: str) -> tuple[bytes | None, bytes | None]:
        """Return the version of the namespace, and the value if it is of that version: one round trip."""
        if namespace.name in self._outdated:
            return await self._new_version(namespace), None
        found = await self._ask(self.store.get, f"version:{namespace.name}", full)
        if found is None:
            return None, None
        version, entry = found
        if version is None:
            return await self._first_version(namespace), None
        return version, entry[VERSION_BYTES:] if entry and entry.startswith(version) else None

    async def _new_version(self, namespace: Namespace[Any]) -> bytes | None:
        """Draw a version. Each is random, so that none comes back when a store has forgotten it."""
        key, version = f"version:{namespace.name}", secrets.token_bytes(VERSION_BYTES)
        if not await self._heard(self.store.set, key, version, 2 * LONGEST.total_seconds()):
            return None
        self._outdated.discard(namespace.name)
        return version

    async def _first_version(self, namespace: Namespace[Any]) -> bytes | None:
        """Draw a version, unless somebody else has done so by now."""
        key, version = f"version:{namespace.name}", secrets.token_bytes(VERSION_BYTES)
        if await self._ask(self.store.add, key, version, 2 * LONGEST.total_seconds()):
            return version
        found = await self._ask(self.store.get, key)
        current: bytes | None = found[0] if found else None
        return current

    async def _write(self, namespace: Namespace[Any], full: str, version: bytes, value: bytes) -> bool:
        return await self._heard(self.store.set, full, version + value, namespace.lifetime.total_seconds())

    async def _heard(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> bool:
        """Tell the store something, and return whether it has heard."""

        async def tell() -> bool:
            await call(*arguments)
            return True

        return await self._ask(tell) is True

    async def _ask(self, call: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Ask the store. Returns None while it is away, which after some failures costs no time."""
        try:
            return await self.guard.call(call, *arguments)
        except GuardedCallFailed as failure:
            if failure.news:
                log.warning("the cache is away; values are made each time", reason=str(failure))
            return None


def _is_hidden(value: Any) -> bool:
    """Tell whether a value, or a part of it, is not written as what it is."""
    if isinstance(value, (Secret, SecretBytes, SecretStr)):
        return True
    if isinstance(value, BaseModel):
        return any(field.exclude for field in type(value).model_fields.values()) or _is_hidden(dict(value))
    if is_dataclass(value) and not isinstance(value, type):
        return _is_hidden(vars(value) if hasattr(value, "__dict__") else astuple(value))
    if isinstance(value, Mapping):
        return any(map(_is_hidden, (*value, *value.values())))
    return isinstance(value, (list, tuple, set, frozenset)) and any(map(_is_hidden, value))


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
        if any(map(_is_hidden, given)):
            raise TypeError(
                f"{self._name} is cached by its arguments, and a secret among them, or a field that its model leaves "
                "out of JSON, would tell nobody apart."
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

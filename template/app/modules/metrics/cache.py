"""What is measured of the cache, as a part of the service."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from fastapi import FastAPI
from prometheus_client import Counter

from app.kit.module import Module
from app.modules.metrics.durations import Durations
from app.modules.metrics.service import Metrics
from app.ports.cache.cache import Cache, Namespace, Store

OPERATIONS = ("get", "set", "add", "take")
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
Value = TypeVar("Value")


class MeasuredCache(Cache):
    """A cache that counts who has found a value, and whose store is measured."""

    def __init__(self, store: Store, most_bytes: int, metrics: Metrics) -> None:
        super().__init__(store, most_bytes)
        Durations(metrics, "cache", ("store", store.name), BUCKETS).measure(store, OPERATIONS)
        self._lookups = Counter(
            "cache_lookups",
            "Looks for values; a miss is one that was made, or was not there.",
            ["namespace", "result"],
            registry=metrics.registry,
        )

    async def get_or_set(self, namespace: Namespace[Value], key: str, make: Callable[[], Awaitable[Value]]) -> Value:
        """Return a value, and count whether it had to be made here. Who waits for another's has found it."""
        made = False

        async def make_and_note() -> Value:
            nonlocal made
            made = True
            self._lookups.labels(namespace.name, "miss").inc()
            return await make()

        value = await super().get_or_set(namespace, key, make_and_note)
        if not made:
            self._lookups.labels(namespace.name, "hit").inc()
        return value

    async def get(self, namespace: Namespace[Value], key: str) -> Value | None:
        """Return a value that is there, or None, and count which."""
        value = await super().get(namespace, key)
        self._lookups.labels(namespace.name, "miss" if value is None else "hit").inc()
        return value


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Measure the cache."""
    cache: Cache = app.state.cache
    app.state.cache = MeasuredCache(cache.store, cache.most_bytes, app.state.metrics)
    yield


metrics_cache = Module(name="metrics_cache", lifespan=lifespan)

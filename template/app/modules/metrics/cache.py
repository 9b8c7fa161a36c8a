"""What is measured of the cache, as a part of the service."""

import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import FastAPI
from prometheus_client import Counter, Histogram

from app.kit.module import Module
from app.modules.metrics.service import Metrics
from app.ports.cache.cache import VERSION_BYTES, Cache, Store

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
VALUE = "value:"
Result = TypeVar("Result")


class MeasuredStore:
    """A store whose operations are measured."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self.name, self._store = store.name, store
        self._lookups = Counter(
            "cache_lookups", "Looks for values.", ["namespace", "result"], registry=metrics.registry
        )
        self._durations = Histogram(
            "cache_operation_duration_seconds",
            "Duration of operations of the store; error_type is empty for those that succeed.",
            ["store", "operation", "error_type"],
            buckets=BUCKETS,
            registry=metrics.registry,
        )

    def __getattr__(self, name: str) -> Any:
        """Leave what is not measured to the store."""
        return getattr(self._store, name)

    async def get(self, *keys: str) -> list[bytes | None]:
        """Return the values of keys, and count those that are values of a namespace."""
        found = await self._timed("get", self._store.get(*keys))
        if len(keys) == 2 and keys[1].startswith(VALUE):
            version, entry = found
            # A value of an earlier version of its namespace is none.
            hit = version is not None and entry is not None and entry[:VERSION_BYTES] == version
            self._lookups.labels(keys[1].split(":")[1], "hit" if hit else "miss").inc()
        return found

    async def set(self, key: str, value: bytes, seconds: float) -> None:
        """Keep a value."""
        await self._timed("set", self._store.set(key, value, seconds))

    async def add(self, key: str, value: bytes, seconds: float) -> bool:
        """Keep a value unless there is one."""
        return await self._timed("add", self._store.add(key, value, seconds))

    async def take(self, key: str) -> bytes | None:
        """Return a value and forget it."""
        return await self._timed("take", self._store.take(key))

    async def _timed(self, operation: str, call: Awaitable[Result]) -> Result:
        started, error_type = time.perf_counter(), ""
        try:
            return await call
        except BaseException as error:
            error_type = type(error).__name__
            raise
        finally:
            measured = self._durations.labels(self.name, operation, error_type)
            measured.observe(time.perf_counter() - started)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Measure the store of the cache."""
    cache: Cache = app.state.cache
    cache.store = MeasuredStore(cache.store, app.state.metrics)
    yield


metrics_cache = Module(name="metrics_cache", lifespan=lifespan)

import asyncio
from datetime import timedelta
from typing import Any, NoReturn

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import TypeAdapter

from app.modules.metrics.cache import MeasuredCache
from app.modules.metrics.service import Metrics
from app.ports.cache.cache import Cache, Namespace, Store
from app.ports.cache.memory import MemoryStore

NUMBERS = Namespace("odd:numbers", TypeAdapter(int), timedelta(minutes=1))


class Away:
    """A store that refuses everything."""

    name = "away"

    async def _refuse(self, *_: Any) -> NoReturn:
        raise ConnectionError

    get = set = add = take = _refuse


def cache_and_registry(store: Store) -> tuple[Cache, CollectorRegistry]:
    metrics = Metrics(FastAPI())
    return MeasuredCache(store, 1000, metrics), metrics.registry


async def forty_two() -> int:
    await asyncio.sleep(0.2)
    return 42


def lookups(registry: CollectorRegistry) -> tuple[float, float]:
    hit, miss = (
        registry.get_sample_value("cache_lookups_total", {"namespace": "odd:numbers", "result": result}) or 0.0
        for result in ("hit", "miss")
    )
    return hit, miss


async def test_hits_and_misses_are_counted_by_namespace() -> None:
    store = MemoryStore(1_000_000)
    cache, registry = cache_and_registry(store)
    for _ in range(3):
        assert await cache.get_or_set(NUMBERS, "answer", forty_two) == 42
    assert lookups(registry) == (2, 1)
    await cache.set(NUMBERS, "answer", 43)
    assert lookups(registry) == (2, 1)
    assert await cache.get(NUMBERS, "answer") == 43
    # What is kept of before is no hit.
    await cache.invalidate(NUMBERS)
    assert await cache.get(NUMBERS, "answer") is None
    assert lookups(registry) == (3, 2)
    assert await cache.keep_once("once", b"x", timedelta(minutes=1))
    assert (await cache.take_once("once"), await cache.take_once("once")) == (b"x", None)
    assert lookups(registry) == (3, 2)
    labels = {"store": "memory", "operation": "take", "error_type": ""}
    assert (registry.get_sample_value("cache_operation_duration_seconds_count", labels) or 0) >= 2


async def test_who_waits_for_a_value_of_somebody_else_has_found_it() -> None:
    store = MemoryStore(1_000_000)
    (cache, registry), (other, theirs) = cache_and_registry(store), cache_and_registry(store)
    # As from two processes with one store: the second looks for it again and again until it is there.
    await asyncio.gather(*(cache.get_or_set(NUMBERS, "a", forty_two) for _ in range(10)))
    waiting = asyncio.create_task(cache.get_or_set(NUMBERS, "b", forty_two))
    await asyncio.sleep(0.05)
    assert await other.get_or_set(NUMBERS, "b", forty_two) == await waiting == 42
    assert lookups(registry) == (9, 2)
    assert lookups(theirs) == (1, 0)


async def test_a_store_that_is_away_is_seen_and_fails_nothing() -> None:
    cache, registry = cache_and_registry(Away())
    assert await cache.get_or_set(NUMBERS, "answer", forty_two) == 42
    labels = {"store": "away", "operation": "get", "error_type": "ConnectionError"}
    assert registry.get_sample_value("cache_operation_duration_seconds_count", labels) == 1
    assert lookups(registry) == (0, 1)


async def test_the_cache_of_the_service_is_measured(app: FastAPI) -> None:
    cache: Cache = app.state.cache
    registry: CollectorRegistry = app.state.metrics.registry
    hits, misses = lookups(registry)
    for _ in range(2):
        await cache.get_or_set(NUMBERS, "measured", forty_two)
    assert lookups(registry) == (hits + 1, misses + 1)

from datetime import timedelta
from typing import Any, NoReturn

import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import TypeAdapter

from app.modules.metrics.cache import MeasuredStore
from app.modules.metrics.service import Metrics
from app.ports.cache.cache import Cache, Namespace
from app.ports.cache.memory import MemoryStore

NUMBERS = Namespace("numbers", TypeAdapter(int), timedelta(minutes=1))


class Away:
    """A store that refuses everything."""

    name = "away"

    async def _refuse(self, *_: Any) -> NoReturn:
        raise ConnectionError

    get = set = add = take = _refuse


def registry_of(cache: Cache) -> CollectorRegistry:
    metrics = Metrics(FastAPI())
    cache.store = MeasuredStore(cache.store, metrics)
    return metrics.registry


async def forty_two() -> int:
    return 42


def lookups(registry: CollectorRegistry) -> tuple[float, float]:
    hit, miss = (
        registry.get_sample_value("cache_lookups_total", {"namespace": "numbers", "result": result}) or 0.0
        for result in ("hit", "miss")
    )
    return hit, miss


async def test_hits_and_misses_are_counted_by_namespace() -> None:
    cache = Cache(MemoryStore(1_000_000), 1000)
    registry = registry_of(cache)
    for _ in range(3):
        assert await cache.get_or_set(NUMBERS, "answer", forty_two) == 42
    assert lookups(registry) == (2, 1)
    # What is kept of before is no hit.
    await cache.invalidate(NUMBERS)
    assert await cache.get(NUMBERS, "answer") is None
    assert lookups(registry) == (2, 2)
    assert await cache.keep_once("once", b"x", timedelta(minutes=1))
    assert (await cache.take_once("once"), await cache.take_once("once")) == (b"x", None)
    assert lookups(registry) == (2, 2)
    labels = {"store": "memory", "operation": "take", "error_type": ""}
    assert (registry.get_sample_value("cache_operation_duration_seconds_count", labels) or 0) >= 2


async def test_a_store_that_is_away_is_seen_and_fails_nothing() -> None:
    cache = Cache(Away(), 1000)
    registry = registry_of(cache)
    assert await cache.get_or_set(NUMBERS, "answer", forty_two) == 42
    labels = {"store": "away", "operation": "get", "error_type": "ConnectionError"}
    assert registry.get_sample_value("cache_operation_duration_seconds_count", labels) == 1


async def test_the_cache_of_the_service_is_measured(app: FastAPI) -> None:
    cache: Cache = app.state.cache
    registry: CollectorRegistry = app.state.metrics.registry
    hits, misses = lookups(registry)
    await cache.get_or_set(NUMBERS, "measured", forty_two)
    assert lookups(registry) == pytest.approx((hits, misses + 1))

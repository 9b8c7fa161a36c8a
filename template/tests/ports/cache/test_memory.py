import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, NoReturn

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from pydantic import TypeAdapter
from structlog.testing import capture_logs

from app.kit.resilience import Guard
from app.ports.cache.cache import Cache, CurrentCache, Namespace
from app.ports.cache.memory import MemoryStore
from tests.ports.cache.contract import CacheContract, Maker, Price

NUMBERS = Namespace("numbers", TypeAdapter(int), timedelta(minutes=1))


class TestMemory(CacheContract):
    @pytest.fixture
    def make(self) -> Callable[[], MemoryStore]:
        store = MemoryStore(1_000_000)
        return lambda: store


async def test_memory_is_bounded() -> None:
    store = MemoryStore(100_000)
    for number in range(10_000):
        await store.set(str(number), b"x" * 100, 60)
    assert sum(map(bool, await store.get(*map(str, range(10_000))))) == 200
    await store.set("too large for all of it", b"x" * 100_000, 60)
    assert await store.get("too large for all of it", "9999") == [None, b"x" * 100]


class Away:
    """A store that does not answer."""

    name = "away"

    def __init__(self) -> None:
        self.asked = 0

    async def _hang(self, *_: Any) -> NoReturn:
        self.asked += 1
        await asyncio.sleep(3600)
        raise AssertionError

    get = set = add = take = _hang


async def test_a_store_that_is_away_costs_little_and_fails_nothing() -> None:
    store, maker = Away(), Maker(0)
    cache, prices = Cache(store, 1000), Namespace("prices", TypeAdapter(Price), timedelta(minutes=1))
    with capture_logs() as logs:
        found = [(await cache.get_or_set(prices, "a", maker)).cents for _ in range(50)]
    assert found == list(range(1, 51))
    # After that nobody waits for it.
    assert store.asked == 3
    assert [entry["event"] for entry in logs] == ["the cache is away; values are made each time"]
    await cache.set(prices, "a", Price(name="a"))
    await cache.invalidate(prices)
    assert await cache.get(prices, "a") is None
    assert not await cache.keep_once("a", b"", timedelta(minutes=1))


async def test_what_was_to_be_forgotten_while_the_store_was_away_is_so_when_it_is_back() -> None:
    store, prices = MemoryStore(100_000), Namespace("prices", TypeAdapter(int), timedelta(minutes=1))
    cache = Cache(store, 10_000)
    cache.guard = Guard("cache", timeout=1, attempts=1, threshold=1, recovery=0.05)

    async def refuse(*_: object) -> None:
        raise ConnectionError("away")

    async def while_away(what: Awaitable[None]) -> None:
        with pytest.MonkeyPatch.context() as away:
            for name in ("get", "set", "add", "take"):
                away.setattr(store, name, refuse)
            await what
        await asyncio.sleep(0.06)

    for forget in (cache.invalidate(prices), cache.delete(prices, "a"), cache.set(prices, "a", 2)):
        await cache.set(prices, "a", 1)
        assert await cache.get(prices, "a") == 1
        await while_away(forget)
        assert await cache.get(prices, "a") is None


async def test_while_a_store_is_away_many_at_once_still_make_a_value_once() -> None:
    cache, maker = Cache(Away(), 1000), Maker(0.1)
    cache.guard.timeout = 0.01
    prices = Namespace("prices", TypeAdapter(Price), timedelta(minutes=1))
    await asyncio.gather(*(cache.get_or_set(prices, "a", maker) for _ in range(50)))
    assert maker.made == 1


async def test_a_service_has_a_cache(app: FastAPI) -> None:
    other = FastAPI()
    other.state.cache = app.state.cache

    @other.get("/")
    async def read(cache: CurrentCache) -> int:
        async def make() -> int:
            return 42

        return await cache.get_or_set(NUMBERS, "answer", make)

    async with AsyncClient(transport=ASGITransport(other), base_url="http://test") as client:
        assert [(await client.get("/")).json() for _ in range(2)] == [42, 42]
    assert await app.state.cache.get(NUMBERS, "answer") == 42

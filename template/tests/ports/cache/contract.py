"""What every store of the cache does."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, Field, SecretStr, TypeAdapter

from app.ports.cache.cache import Cache, Namespace, Store, cached

MINUTE = timedelta(minutes=1)
Make = Callable[[], Store]


class Price(BaseModel):
    name: str
    cents: int | None = None


class Maker:
    """Makes prices, and counts how often."""

    def __init__(self, seconds: float = 0.05) -> None:
        self.seconds, self.made = seconds, 0

    async def __call__(self) -> Price:
        self.made += 1
        made = self.made
        await asyncio.sleep(self.seconds)
        return Price(name="\N{EURO SIGN}", cents=made)

    async def begins(self) -> None:
        """Wait until the first one is being made."""
        while not self.made:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class CacheContract:
    """A class has the fixture `make`, which returns a store that shares what it holds with the others of the test."""

    @pytest.fixture
    def prices(self) -> Namespace[Price]:
        return Namespace(uuid4().hex, TypeAdapter(Price), MINUTE)

    @pytest.fixture
    def cache(self, make: Make) -> Cache:
        return Cache(make(), 10_000)

    async def test_a_store_keeps_forgets_and_hands_over(self, make: Make) -> None:
        store, key, other = make(), uuid4().hex, uuid4().hex
        assert await store.get(key, other) == [None, None]
        await store.set(key, b"\x00\xff", 60)
        assert await make().get(other, key) == [None, b"\x00\xff"]
        assert not await store.add(key, b"x", 60)
        assert await store.add(other, b"y", 60)
        taken = await asyncio.gather(*(make().take(key) for _ in range(10)))
        assert sorted(filter(None, taken)) == [b"\x00\xff"]
        await store.set(key, b"soon", 0.05)
        await asyncio.sleep(0.1)
        assert await store.get(key) == [None]
        assert await store.take(key) is None

    async def test_a_value_is_made_once_and_comes_back_as_it_was(self, cache: Cache, prices: Namespace[Price]) -> None:
        make = Maker()
        found = [await cache.get_or_set(prices, "a", make) for _ in range(3)]
        assert found == [Price(name="\N{EURO SIGN}", cents=1)] * 3
        # Nobody changes what others get.
        found[0].cents = 7
        assert await cache.get(prices, "a") == found[1]
        assert await cache.get(prices, "b") is None
        await cache.delete(prices, "a")
        assert (await cache.get_or_set(prices, "a", make)).cents == 2

    async def test_many_at_once_make_it_once(self, make: Make, prices: Namespace[Price]) -> None:
        maker, caches = Maker(0.2), [Cache(make(), 10_000) for _ in range(3)]
        found = await asyncio.gather(*(caches[at % 3].get_or_set(prices, "a", maker) for at in range(60)))
        assert (maker.made, {price.cents for price in found}) == (1, {1})

    async def test_what_fails_is_told_to_all_and_not_kept(self, cache: Cache, prices: Namespace[Price]) -> None:
        async def fail() -> Price:
            await asyncio.sleep(0.02)
            raise ZeroDivisionError

        waiting = (cache.get_or_set(prices, "a", fail) for _ in range(5))
        assert {type(one) for one in await asyncio.gather(*waiting, return_exceptions=True)} == {ZeroDivisionError}
        assert (await cache.get_or_set(prices, "a", Maker())).cents == 1

    async def test_who_waits_is_not_cut_off_with_who_makes(self, cache: Cache, prices: Namespace[Price]) -> None:
        maker = Maker(0.5)
        first = asyncio.create_task(cache.get_or_set(prices, "a", maker))
        await maker.begins()
        others = [asyncio.create_task(cache.get_or_set(prices, "a", maker)) for _ in range(3)]
        await asyncio.sleep(0.01)
        first.cancel()
        others[0].cancel()
        assert {(await one).cents for one in others[1:]} == {2}
        for one in (first, others[0]):
            with pytest.raises(asyncio.CancelledError):
                await one

    async def test_an_invalidation_holds_for_what_is_being_made(self, cache: Cache, prices: Namespace[Price]) -> None:
        maker = Maker(0.5)
        old = asyncio.create_task(cache.get_or_set(prices, "a", maker))
        await maker.begins()
        await cache.invalidate(prices)
        maker.seconds = 0
        assert await cache.get(prices, "a") is None
        assert (await old).cents == 1
        assert await cache.get(prices, "a") in (None, Price(name="\N{EURO SIGN}", cents=2))
        assert (await cache.get_or_set(prices, "a", maker)).cents == 2
        other = Namespace(f"{prices.name}-other", prices.type, MINUTE)
        await cache.set(other, "a", Price(name="kept"))
        await cache.invalidate(prices)
        assert await cache.get(other, "a") == Price(name="kept")

    async def test_keys_and_values_are_bounded(self, cache: Cache, prices: Namespace[Price]) -> None:
        maker = Maker(0)
        for key in (
            "k" * 100_000,
            "\ud800" * 300,
            *["\ud800" + "a" * number for number in range(5)],
            "a:b",
            "",
            "\x00",
        ):
            made = await cache.get_or_set(prices, key, maker)
            assert await cache.get_or_set(prices, key, maker) == made
        assert maker.made == 10
        # Whoever chooses a short key cannot choose that of a long one.
        short = prices.key("k" * 100_000).removeprefix(prices.key("")[:-1])
        for key in (short, short[1:]):
            await cache.set(prices, key, Price(name="poison"))
        assert (await cache.get_or_set(prices, "k" * 100_000, maker)).name != "poison"
        await cache.set(prices, "large", Price(name="x" * 20_000))
        assert await cache.get(prices, "large") is None

        async def large() -> Price:
            return Price(name="x" * 20_000)

        assert len((await cache.get_or_set(prices, "large", large)).name) == 20_000
        await cache.set(prices, "grown", Price(name="x"))
        await cache.set(prices, "grown", await large())
        assert await cache.get(prices, "grown") is None
        with pytest.raises(ValueError, match="at most 30 days"):
            Namespace("ages", TypeAdapter(int), timedelta(days=31))

    async def test_what_cannot_be_read_is_not_there(self, cache: Cache, prices: Namespace[Price]) -> None:
        await cache.set(Namespace(prices.name, TypeAdapter(dict[str, str]), MINUTE), "a", {"other": "shape"})
        assert await cache.get(prices, "a") is None
        assert (await cache.get_or_set(prices, "a", Maker(0))).cents == 1

    async def test_a_function_is_called_once_for_its_arguments(self, cache: Cache) -> None:
        calls: list[tuple[int, str]] = []

        @cached(uuid4().hex, MINUTE)
        async def double(cache: Cache, number: int, unit: str = "m") -> list[Price]:
            calls.append((number, unit))
            return [Price(name=unit, cents=2 * number)]

        assert await double(cache, 2) == await double(cache, number=2, unit="m") == [Price(name="m", cents=4)]
        assert await double(cache, 2, "km") == [Price(name="km", cents=4)]
        assert calls == [(2, "m"), (2, "km")]
        await cache.invalidate(double.namespace)
        await double(cache, 2)
        assert len(calls) == 3

    async def test_functions_and_secrets_are_not_taken_for_each_other(self, cache: Cache) -> None:
        name = uuid4().hex

        @cached(name, MINUTE)
        async def income(cache: Cache, owner: int) -> str:
            return "income"

        @cached(name, MINUTE)
        async def debts(cache: Cache, owner: int) -> str:
            return "debts"

        assert (await income(cache, 1), await debts(cache, 1)) == ("income", "debts")

        @cached(name, MINUTE)
        async def whose(cache: Cache, token: SecretStr) -> str:
            return token.get_secret_value()

        @dataclass
        class Held:
            token: SecretStr

        class Shy(BaseModel):
            name: str = Field(exclude=True)

        @cached(name, MINUTE)
        async def which(cache: Cache, what: Any) -> str:
            return "one of them"

        with pytest.raises(TypeError, match="a secret among them"):
            await whose(cache, SecretStr("ada's"))
        for what in (Held(SecretStr("x")), [{"it": (SecretStr("x"),)}], {SecretStr("x"): 1}, [Shy(name="ada")]):
            with pytest.raises(TypeError, match="would tell nobody apart"):
                await which(cache, what)
        assert await which(cache, [Price(name="ada"), {"it": (1, {2})}]) == "one of them"

    async def test_bytes_are_handed_over_once(self, cache: Cache) -> None:
        key = uuid4().hex
        assert await cache.keep_once(key, b"secret", MINUTE)
        taken = await asyncio.gather(*(cache.take_once(key) for _ in range(10)))
        assert [one for one in taken if one] == [b"secret"]

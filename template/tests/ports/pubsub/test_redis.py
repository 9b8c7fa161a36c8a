import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from structlog.testing import capture_logs

from app.kit.resilience import Guard, GuardedCallFailed
from app.ports.pubsub import redis
from app.ports.pubsub.redis import RedisPubSub
from tests.ports.pubsub.contract import Open, Process, PubSubContract, until
from tests.ports.pubsub.cut import Cut


@pytest.fixture
async def cut() -> AsyncIterator[Cut]:
    url = os.environ.get("TEST_REDIS_URL")
    if not url:
        pytest.skip("TEST_REDIS_URL names no Redis server")
    async with Cut(urlsplit(url).hostname or "", urlsplit(url).port or 6379) as cut:
        yield cut


@pytest.fixture
def opened(cut: Cut) -> Open:
    topic, title = "topic", uuid4().hex

    @asynccontextmanager
    async def open() -> AsyncIterator[Process]:
        app = FastAPI(title=title)
        app.state.redis = Redis(port=cut.port, socket_timeout=0.5, socket_connect_timeout=0.5)
        received: list[bytes] = []
        missed: list[None] = []
        pubsub = RedisPubSub.make(app, topic, received.append, lambda: missed.append(None))
        assert pubsub is not None
        await pubsub.open()
        try:
            yield Process(pubsub, received, missed)
        finally:
            await pubsub.close()
            await app.state.redis.aclose()

    return open


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis, "LONGEST_PAUSE_SECONDS", 0.2)


class TestRedis(PubSubContract):
    async def test_what_one_process_tells_reaches_the_others_in_order(self, opened: Open) -> None:
        sent = [str(number).encode() for number in range(300)]
        async with opened() as one, opened() as two:
            for message in sent:
                one.pubsub.publish(message)
            await until(lambda: len(two.received) == len(sent))
            assert one.received == two.received == sent

    async def test_people_are_present_as_long_as_one_process_has_them(self, opened: Open) -> None:
        async with opened() as one, opened() as two:
            assert await one.pubsub.enter("room", "ada")
            assert not await two.pubsub.enter("room", "ada")
            assert not await one.pubsub.leave("room", "ada")
            assert await one.pubsub.present("room", 10) == (["ada"], 1)
            assert await two.pubsub.leave("room", "ada")
            assert await one.pubsub.present("room", 10) == ([], 0)

    async def test_people_of_a_process_that_has_died_are_forgotten(
        self, opened: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis, "PRESENT_SECONDS", 0.3)
        async with opened() as one, opened() as two:
            await one.pubsub.enter("room", "ada")
            await two.pubsub.enter("room", "eve")
            for _ in range(5):
                await asyncio.sleep(0.1)
                await two.pubsub.stay([("room", "eve")], 0.3)
            assert await two.pubsub.present("room", 10) == (["eve"], 1)
            assert await two.pubsub.enter("room", "ada")

    @pytest.mark.parametrize("how", ["refuse", "hang"])
    async def test_while_redis_is_away_each_process_goes_on_and_then_they_hear_each_other_again(
        self, opened: Open, cut: Cut, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis, "SILENT_SECONDS", 0.2)
        with capture_logs() as logs:
            async with opened() as one, opened() as two:
                monkeypatch.setattr(one.pubsub, "guard", Guard("redis", timeout=0.2, attempts=1, recovery=0.1))
                getattr(cut, how)()
                await until(lambda: bool(one.pubsub.trouble() and two.pubsub.trouble()))
                one.pubsub.publish(b"alone")
                assert one.received == [b"alone"]
                assert await one.pubsub.enter("room", "ada")
                await one.pubsub.leave("room", "ada")
                cut.mend()
                await until(lambda: not one.pubsub.trouble() and not two.pubsub.trouble())
                await until(lambda: bool(one.missed and two.missed))
                await asyncio.sleep(0.3)
                one.pubsub.publish(b"together")
                await until(lambda: two.received[-1:] == [b"together"])
                assert one.received == [b"alone", b"together"]
        assert [entry["event"] for entry in logs].count("other processes are not heard") == 2

    async def test_a_process_begins_without_redis(self, opened: Open, cut: Cut) -> None:
        cut.refuse()
        async with opened() as one:
            assert one.pubsub.trouble()
            cut.mend()
            await until(lambda: not one.pubsub.trouble())
            assert one.missed == []

    async def test_what_waits_for_redis_is_bounded(self, opened: Open, cut: Cut) -> None:
        async with opened() as one:
            cut.hang()
            for number in range(5000):
                one.pubsub.publish(str(number).encode())
            assert len(one.received) == 5000
            assert len(one.pubsub._waiting) <= 1000  # type: ignore[attr-defined]

    async def test_what_is_lost_on_the_way_is_told_to_the_others(self, opened: Open, cut: Cut) -> None:
        async with opened() as one, opened() as two:
            for number in range(1500):
                one.pubsub.publish(str(number).encode())
            await until(lambda: bool(two.missed))
            assert two.received == one.received[-1000:]
            assert one.missed == []

    async def test_what_is_lost_while_a_sender_is_cut_off_is_told_afterwards(
        self, opened: Open, cut: Cut, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(redis, "SILENT_SECONDS", 0.2)
        async with opened() as one, opened() as two:
            guard = Guard("redis", timeout=0.5, attempts=1, recovery=0.1)
            monkeypatch.setattr(one.pubsub, "guard", guard)
            with monkeypatch.context() as away:
                away.setattr(guard, "call", refuse)
                one.pubsub.publish(b"lost")
                await asyncio.sleep(0.3)
                assert (two.received, two.missed) == ([], [])
            await until(lambda: bool(two.missed))
            one.pubsub.publish(b"heard")
            await until(lambda: two.received == [b"heard"])
            assert len(two.missed) == 1


async def refuse(*_: object) -> None:
    raise GuardedCallFailed("redis is away", news=True)


JUNK = [b"", b"x" * 31, b"\xff" * 64, b"0" * 32, b"0" * 32 + b"raise"]


async def test_what_others_write_to_the_channel_stops_nobody_from_listening(cut: Cut) -> None:
    app = FastAPI(title=uuid4().hex)
    app.state.redis = Redis(port=cut.port)
    received: list[bytes] = []

    def receive(message: bytes) -> None:
        if message == b"raise":
            raise UnicodeError
        received.append(message)

    pubsub = RedisPubSub(app.state.redis, app.title, receive, lambda: None)
    await pubsub.open()
    for junk in JUNK:
        await app.state.redis.publish(pubsub.channel, junk)
    await app.state.redis.publish(pubsub.channel, b"1" * 32 + b"good")
    await until(lambda: received[-1:] == [b"good"])
    assert pubsub.trouble() is None
    await pubsub.close()
    await app.state.redis.aclose()


async def test_services_on_other_databases_of_a_redis_are_not_heard(cut: Cut) -> None:
    title, heard = uuid4().hex, dict[int, list[bytes]]()
    clients = {db: Redis(port=cut.port, db=db) for db in (0, 1)}
    ends = {}
    for db, client in clients.items():
        heard[db] = []
        ends[db] = RedisPubSub(client, title, heard[db].append, lambda: None)
        await ends[db].open()
    twin = RedisPubSub(clients[1], title, lambda message: None, lambda: None)
    ends[0].publish(b"of 0")
    await twin.open()
    twin.publish(b"of 1")
    await until(lambda: bool(heard[1]))
    await asyncio.sleep(0.1)
    assert heard == {0: [b"of 0"], 1: [b"of 1"]}
    for end in (*ends.values(), twin):
        await end.close()
    for client in clients.values():
        await client.aclose()


async def test_without_an_address_it_is_not_taken() -> None:
    app = FastAPI()
    app.state.redis = None
    assert RedisPubSub.make(app, "topic", lambda message: None, lambda: None) is None

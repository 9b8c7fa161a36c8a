"""Processes that reach each other through Redis."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from app.modules.realtime.module import ProcessesApart, check
from app.modules.realtime.publishing import publish
from app.modules.realtime.rooms import user_room
from app.ports.pubsub import redis
from tests.modules.realtime.conftest import WS, Serve, process
from tests.ports.pubsub.contract import until
from tests.ports.pubsub.cut import Cut


@pytest.fixture
def url() -> str:
    url = os.environ.get("TEST_REDIS_URL")
    if not url:
        pytest.skip("TEST_REDIS_URL names no Redis server")
    return url


async def test_what_one_process_tells_reaches_the_clients_of_another(
    serve: Serve, environment: dict[str, str], url: str, tmp_path: Path
) -> None:
    async with serve(REDIS_URL=url) as live:
        with process(tmp_path / "log", {**environment, "REDIS_URL": url}) as (port, _):
            here = await live.enter()
            me = next(iter(live.hub.users))
            # A ticket of one process is good in the other, once.
            there = await live.enter(port=port, query=f"?token={await live.ticket()}", headers={})
            async with live.app.state.database.session() as session:
                publish(session, user_room(me), "order.shipped", {"number": 1})
            events = [await here.next("event"), await there.next("event")]
            assert events[0] == events[1]
            assert events[0]["data"] == {"number": 1}
            assert (await (await live.api()).get(f"{WS}/status")).json()["reach"] == "all processes, through Redis"


async def test_redis_goes_and_comes_back_and_clients_stay(
    serve: Serve, environment: dict[str, str], url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis, "LONGEST_PAUSE_SECONDS", 0.2)
    parts = urlsplit(url)
    async with Cut(parts.hostname or "", parts.port or 6379) as cut:
        through = parts._replace(netloc=f"127.0.0.1:{cut.port}").geturl()
        settings = {"REDIS_URL": through, "LOG_FORMAT": "json"}
        async with serve(**settings) as live:
            with process(tmp_path / "log", {**environment, **settings}) as (port, _):
                here, there = await live.enter(), await live.enter(port=port)
                room = user_room(next(iter(live.hub.users)))

                async def is_heard() -> bool:
                    async with live.app.state.database.session() as session:
                        publish(session, room, "begun")
                    with suppress(TimeoutError):
                        async with asyncio.timeout(0.5):
                            return bool(await there.next("event"))
                    return False

                # While that process started, nothing here passed on what it said to Redis.
                async with asyncio.timeout(20):
                    while not await is_heard():
                        continue
                cut.refuse()
                await until(lambda: live.hub.pubsub.trouble() is not None)
                with pytest.raises(ProcessesApart, match="not heard"):
                    await check(live.app)
                async with live.app.state.database.session() as session:
                    publish(session, room, "alone")
                while (told := (await here.next("event"))["event"]) == "begun":
                    pass
                assert told == "alone"
                # Who comes meanwhile is let in as well.
                third = await live.enter(query=f"?token={await live.ticket()}", headers={})
                cut.mend()
                while (told := (await there.next("missed", "event"))).get("event") == "begun":
                    pass
                assert told["type"] == "missed"
                assert (await third.next("missed", "event"))["type"] == "missed"
                assert "reaches all processes" in await check(live.app)
                # What is sent is tried again by and by, once it has failed several times.
                async with asyncio.timeout(30):
                    while not await is_heard():
                        continue
                for number in range(100):
                    async with live.app.state.database.session() as session:
                        publish(session, room, "together", {"number": number})
                numbers: list[int] = []
                while len(numbers) < 100:
                    if (told := await there.next("event"))["event"] == "together":
                        numbers.append(told["data"]["number"])
                assert numbers == list(range(100))

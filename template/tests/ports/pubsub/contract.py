"""What every way to reach other processes does."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from app.ports.pubsub.pubsub import PubSub


class Process(NamedTuple):
    """One process: its end of the topic, what it has received, and how often it may have missed something."""

    pubsub: PubSub
    received: list[bytes]
    missed: list[None]


Open = Callable[[], AbstractAsyncContextManager[Process]]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class PubSubContract:
    """A class has the fixture `opened`, which opens one more process on the topic of the test."""

    async def test_messages_come_in_order_and_once(self, opened: Open) -> None:
        sent = [b"%d \x00\n\xff" % number for number in range(300)]
        async with opened() as process:
            for message in sent:
                process.pubsub.publish(message)
            await until(lambda: len(process.received) == len(sent))
            await asyncio.sleep(0.1)
            assert process.received == sent
            assert process.missed == []
            assert process.pubsub.trouble() is None

    async def test_who_is_present_is_counted_once(self, opened: Open) -> None:
        async with opened() as process:
            pubsub = process.pubsub
            assert [await pubsub.enter("room", who) for who in ("ada", "eve", "ada")] == [True, True, False]
            assert await pubsub.present("room", 10) == (["ada", "eve"], 2)
            named, total = await pubsub.present("room", 1)
            assert (len(named), total) == (1, 2)
            assert await pubsub.present("other", 1) == ([], 0)
            await pubsub.stay([("room", "ada"), ("room", "eve")], 60)
            assert [await pubsub.leave("room", who) for who in ("ada", "ada", "bob")] == [True, False, False]
            assert await pubsub.leave("nowhere", "ada") is False
            assert await pubsub.present("room", 10) == (["eve"], 1)

"""Pub/sub between processes, through Redis. While it is away each process tells itself, and the rest is lost."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Self
from uuid import uuid4

from fastapi import FastAPI
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from app.kit.logging import get_logger
from app.kit.resilience import Guard, GuardedCallFailed
from app.ports.pubsub.pubsub import Receive

TIMEOUT_SECONDS = 0.5
# A subscription that is silent for so long is asked for a sign of life, and begun anew when none comes.
SILENT_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 2.0
# What waits for Redis: more of it is not worth having any more.
MOST_WAITING = 1000
# Says that others have lost something of ours. No message is empty.
MISSED = b""
# Of people whose process has died: they are present for so long until the process would have said that they stay.
PRESENT_SECONDS = 90.0
AWAY = (RedisError, OSError, TimeoutError)
log = get_logger(__name__)


def impatient(client: Redis) -> Redis:
    """Return a client that tells at once when its connection is lost, and does not begin anew behind our back."""
    pool = client.connection_pool
    options = pool.connection_kwargs | {"retry": Retry(NoBackoff(), 0)}
    return Redis(connection_pool=ConnectionPool(pool.connection_class, **options))


class RedisPubSub:
    """Tells this process directly and the others through a channel of Redis; who is present is in sorted sets there.

    A place has a set of people, and a person in a place has one of processes, each by the time until when it counts.
    """

    reach = "all processes, through Redis"

    def __init__(self, client: Redis, prefix: str, receive: Receive, missed: Callable[[], None]) -> None:
        self.client, self.prefix = client, prefix
        # All databases of a Redis share the names of channels, and another one may be another service's.
        self.channel = f"{prefix}:{client.connection_pool.connection_kwargs.get('db', 0)}"
        self.receive, self.missed = receive, missed
        self.guard = Guard("redis", timeout=TIMEOUT_SECONDS, attempts=1, retry_on=AWAY)
        self.process = uuid4().hex
        self.listening = False
        self._waiting: deque[bytes] = deque(maxlen=MOST_WAITING)
        # Whether others have lost something of ours, and have not been told so.
        self._lost = False
        self._more = asyncio.Event()
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    def make(cls, app: FastAPI, topic: str, receive: Receive, missed: Callable[[], None]) -> Self | None:
        """Return one where REDIS_URL names a Redis."""
        client = app.state.redis
        return None if client is None else cls(client, f"{topic}:{app.title}", receive, missed)

    async def open(self) -> None:
        """Begin to listen. Where Redis is away, that begins when it is back."""
        subscribed = asyncio.Event()
        self._tasks = [asyncio.create_task(self._listen(subscribed)), asyncio.create_task(self._send())]
        with suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                await subscribed.wait()

    async def close(self) -> None:
        """Stop; again and again, because the client swallows a cancellation that comes at a bad time."""
        self._closed = True
        left = set(self._tasks)
        while left:
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=TIMEOUT_SECONDS)

    def publish(self, message: bytes) -> None:
        """Tell this process now, and the others in a moment."""
        self.receive(message)
        if len(self._waiting) == MOST_WAITING and not self._lost:
            log.warning("messages to other processes come faster than Redis takes them; the oldest are lost")
            self._lost = True
        self._waiting.append(message)
        self._more.set()

    async def _send(self) -> None:
        while not self._closed:
            with suppress(TimeoutError):
                async with asyncio.timeout(SILENT_SECONDS if self._lost else None):
                    await self._more.wait()
            self._more.clear()
            while self._waiting:
                if not await self._sent(self._waiting.popleft()):
                    self._lost = True
            if self._lost:
                self._lost = False
                if not await self._sent(MISSED):
                    self._lost = True

    async def _sent(self, message: bytes) -> bool:
        with suppress(GuardedCallFailed):
            await self._guarded(self.client.publish, self.channel, self.process.encode() + message)
            return True
        return False

    async def _listen(self, subscribed: asyncio.Event) -> None:
        pause = 0.1
        listener = impatient(self.client)
        while not self._closed:
            channel = listener.pubsub()
            try:
                await channel.subscribe(self.channel)
                await self._receive(channel, subscribed)
            except AWAY as error:
                if self.listening:
                    log.warning("other processes are not heard", reason=f"{type(error).__name__}: {error}")
            finally:
                if self.listening:
                    pause = 0.1
                self.listening = False
                with suppress(*AWAY):
                    await channel.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))  # noqa: S311 - so that not all come at once
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _receive(self, channel: Any, subscribed: asyncio.Event) -> None:
        asked = False
        while not self._closed:
            message = await channel.get_message(timeout=SILENT_SECONDS)
            if message is None:
                if asked:
                    raise TimeoutError("Redis is silent")
                await channel.ping()
                asked = True
                continue
            asked = False
            if message["type"] == "subscribe":
                if subscribed.is_set():
                    log.info("other processes are heard again")
                    self.missed()
                self.listening = True
                subscribed.set()
            elif message["type"] == "message" and not message["data"].startswith(self.process.encode()):
                told = message["data"][len(self.process) :]
                if told == MISSED:
                    self.missed()
                    continue
                try:
                    self.receive(told)
                except Exception as error:  # Whoever wrote that: who listens goes on.
                    log.warning("a message of another process cannot be read", reason=type(error).__name__)

    async def enter(self, place: str, who: str) -> bool:
        """Note that somebody is present through this process. Where Redis is away, they count as the first time."""
        try:
            before = await self._guarded(self._note, [(place, who)], PRESENT_SECONDS, True)
        except GuardedCallFailed:
            return True
        return not before

    async def leave(self, place: str, who: str) -> bool:
        """Note that somebody is present through this process no more."""
        people, processes = self._keys(place, who)
        try:
            async with self.client.pipeline(transaction=True) as pipe:
                pipe.zrem(processes, self.process)
                pipe.zcount(processes, time.time(), "+inf")
                removed, left = await self._guarded(pipe.execute)
            if removed and not left:
                await self._guarded(self.client.zrem, people, who)
        except GuardedCallFailed:
            return True
        return bool(removed and not left)

    async def stay(self, present: Iterable[tuple[str, str]], seconds: float) -> None:
        """Say who is still present through this process."""
        there = list(present)
        with suppress(GuardedCallFailed):
            for begin in range(0, len(there), 500):
                await self._guarded(self._note, there[begin : begin + 500], max(seconds, PRESENT_SECONDS), False)

    async def present(self, place: str, most: int) -> tuple[list[str], int]:
        """List who is present, and count them all. Raises GuardedCallFailed."""
        people, _ = self._keys(place, "")
        async with self.client.pipeline(transaction=True) as pipe:
            pipe.zremrangebyscore(people, "-inf", time.time())
            pipe.zrange(people, 0, most - 1)
            pipe.zcard(people)
            _, found, total = await self._guarded(pipe.execute)
        return sorted(one.decode() for one in found), total

    def trouble(self) -> str | None:
        """Tell whether other processes are heard."""
        return None if self.listening else "Redis is away, and other processes are not heard"

    async def _note(self, present: list[tuple[str, str]], seconds: float, ask: bool) -> int:
        now = time.time()
        async with self.client.pipeline(transaction=True) as pipe:
            for place, who in present:
                people, processes = self._keys(place, who)
                if ask:
                    pipe.zcount(processes, now, "+inf")
                pipe.zadd(processes, {self.process: now + seconds})
                pipe.zadd(people, {who: now + seconds})
                for key in (people, processes):
                    pipe.pexpire(key, int(2000 * seconds))
            return int((await pipe.execute())[0]) if present else 0

    def _keys(self, place: str, who: str) -> tuple[str, str]:
        return f"{self.prefix}:present:{place}", f"{self.prefix}:present:{place}:{who}"

    async def _guarded(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await self.guard.call(call, *arguments)
        except GuardedCallFailed as failure:
            if failure.news:
                log.warning("redis is away; other processes are not told", reason=str(failure))
            raise

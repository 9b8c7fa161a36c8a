"""ARQ: Redis tells workers of jobs. The rows stay the truth, so what Redis forgets is told again."""

import asyncio
import json
import logging
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from arq.connections import ArqRedis
from arq.constants import expires_extra_ms, job_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms, to_unix_ms
from arq.worker import Retry, Worker, func
from fastapi import FastAPI
from redis.exceptions import RedisError

from app.kit import clock
from app.kit.logging import get_logger
from app.kit.settings import load
from app.ports.db.database import Database
from app.ports.jobs import brokered
from app.ports.jobs.brokered import AGAIN_SECONDS, IN_ADVANCE, OLDEST, BrokeredEngine, Closing, Full
from app.ports.jobs.queue import Committed
from app.ports.jobs.runner import lasting, stop
from app.ports.jobs.tasks import Queue
from app.ports.redis.module import RedisSettings

if TYPE_CHECKING:
    from app.ports.jobs.settings import JobSettings

FUNCTION = "run"
POLL_SECONDS = 0.05
AT_ONCE = 100
log = get_logger(__name__)
# Two lines for each job, beside ours.
logging.getLogger("arq").setLevel(logging.WARNING)


def _write(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode()


def name_of(jobs: Sequence[Committed]) -> str:
    """Return what a message about some jobs is called."""
    if len(jobs) == 1:
        return f"{jobs[0].id}:{jobs[0].run_at.timestamp()}"
    said = "".join(f"{job.id}{job.run_at.timestamp()}" for job in jobs)
    return f"{jobs[0].id}:{sha256(said.encode()).hexdigest()[:32]}"


class ArqEngine(BrokeredEngine):
    """Lets ARQ's workers take what Redis tells of. Messages are JSON: ARQ's pickle would run what it reads."""

    VARIABLE = "REDIS_URL"

    def __init__(self, app: FastAPI, database: Database, settings: "JobSettings") -> None:
        self.redis = app.state.redis
        super().__init__(app, database, settings, there=self.redis is not None)
        # Services may share a Redis, and what is told to the wrong one is told again only later. What older versions of
        # this engine have told there by pickle is not looked at: the rows are told of again.
        self.prefix = f"jobs:json:{app.title}:{database.engine.url.database}"
        self._workers: list[Worker] = []
        self._messages: set[asyncio.Task[None]] = set()
        self._consuming: list[asyncio.Task[None]] = []

    @staticmethod
    def missing() -> str | None:
        """Tell that there is no Redis."""
        return None if load(RedisSettings).redis_url else "REDIS_URL"

    def connect(self) -> None:
        """Share the connections of the service."""
        self.client = ArqRedis(self.redis.connection_pool)

    def work(self) -> None:
        """Have a worker for each queue."""
        self._consuming = [
            asyncio.create_task(lasting(partial(self._work, queue, most))) for queue, most in self.runner.slots.items()
        ]

    async def tell(self, messages: Sequence[Sequence[Committed]]) -> None:
        """Tell Redis what `ArqRedis.enqueue_job` would, many messages in one round trip.

        A message is named for its jobs and for when they are due; what Redis has been told already stays as it is.
        """
        for at in range(0, len(messages), AT_ONCE):
            now = timestamp_ms()
            async with self.client.pipeline(transaction=True) as pipe:
                for jobs in messages[at : at + AT_ONCE]:
                    ids = tuple(str(job.id) for job in jobs)
                    due = max(to_unix_ms(max(job.run_at for job in jobs)), now)
                    message = serialize_job(FUNCTION, ids, {}, None, now, serializer=_write)
                    pipe.set(f"{job_key_prefix}{name_of(jobs)}", message, px=due - now + expires_extra_ms, nx=True)
                    pipe.zadd(f"{self.prefix}:{jobs[0].queue}", {name_of(jobs): due}, nx=True)
                await pipe.execute()

    async def missed(self) -> Sequence[Any]:
        """Return what is overdue."""
        return await self.store.overdue(clock.now() - brokered.OVERDUE, OLDEST)

    async def _work(self, queue: Queue, slots: int) -> None:
        away = False

        async def run(ctx: dict[Any, Any], *ids: str) -> None:
            # ARQ may give up waiting, and must not cancel what the runner sees to; the slots are taken until then.
            try:
                if runs := await self.take([UUID(id) for id in ids], queue):
                    await asyncio.wait(runs, timeout=self.settings.jobs_lease_seconds)
            except Closing:
                return
            except Full:
                # The same message again: another one would come beside it, and more with each turn.
                raise Retry from None

        while True:
            worker = Worker(
                functions=[func(cast("Any", run), name=FUNCTION, keep_result=0, timeout=None, max_tries=10**9)],
                queue_name=f"{self.prefix}:{queue}",
                redis_pool=self.client,
                max_jobs=slots * IN_ADVANCE[queue],
                poll_delay=POLL_SECONDS,
                job_timeout=self.settings.jobs_lease_seconds + 2 * brokered.PATIENCE_SECONDS,
                keep_result=0,
                job_deserializer=json.loads,
                job_serializer=_write,
                handle_signals=False,
                log_results=False,
            )
            self._workers.append(worker)
            try:
                await worker.async_run()
            except (RedisError, OSError, TimeoutError) as error:
                if not away:
                    log.warning("redis is away; the worker waits", queue=queue.value, reason=type(error).__name__)
                away = True
            finally:
                self._workers.remove(worker)
                if worker.main_task:
                    worker.main_task.cancel()
                for message in worker.tasks.values():
                    # What cannot be told to Redis any more is in the row.
                    message.add_done_callback(lambda done: done.cancelled() or done.exception())
                    self._messages.add(message)
                    message.add_done_callback(self._messages.discard)
            await asyncio.sleep(AGAIN_SECONDS)

    async def close(self) -> None:
        """Take no more jobs; those that run have some seconds."""
        if self.instead:
            return await self.instead.close()
        for worker in self._workers:
            # They end by themselves then; cut off in the middle of a transaction, redis-py loses a connection.
            worker.burst, worker.max_burst_jobs = True, 0
        await self.drain()
        if ending := [worker.main_task for worker in self._workers if worker.main_task]:
            await asyncio.wait(ending, timeout=AGAIN_SECONDS)
        await stop(self._consuming)
        if self._messages:
            await asyncio.wait(self._messages, timeout=AGAIN_SECONDS)
            await stop(self._messages)
        return None

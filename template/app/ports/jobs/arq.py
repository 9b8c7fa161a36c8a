"""ARQ: Redis tells workers of jobs. The rows stay the truth, so what Redis forgets is told again."""

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from arq.connections import ArqRedis
from arq.constants import expires_extra_ms, job_key_prefix
from arq.jobs import serialize_job
from arq.utils import timestamp_ms, to_unix_ms
from arq.worker import Worker, func
from fastapi import FastAPI
from redis.exceptions import RedisError

from app.kit import clock
from app.kit.logging import get_logger
from app.kit.settings import load
from app.ports.db.database import Database
from app.ports.jobs import brokered
from app.ports.jobs.brokered import AGAIN_SECONDS, TOLD_AGAIN, BrokeredEngine, Closing
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

    async def tell(self, jobs: Sequence[Committed]) -> None:
        """Tell Redis what `ArqRedis.enqueue_job` would, of many jobs in one round trip.

        Each time that a job is due has one name, and what Redis has been told already stays as it is.
        """
        for at in range(0, len(jobs), AT_ONCE):
            now = timestamp_ms()
            async with self.client.pipeline(transaction=True) as pipe:
                for job in jobs[at : at + AT_ONCE]:
                    name = f"{job.id}:{job.run_at.timestamp()}"
                    due = max(to_unix_ms(job.run_at), now)
                    message = serialize_job(FUNCTION, (str(job.id),), {}, None, now, serializer=_write)
                    pipe.set(f"{job_key_prefix}{name}", message, px=due - now + expires_extra_ms, nx=True)
                    pipe.zadd(f"{self.prefix}:{job.queue}", {name: due}, nx=True)
                await pipe.execute()

    async def missed(self) -> Sequence[Any]:
        """Return what is overdue: to tell Redis again of what it knows does nothing."""
        return await self.store.overdue(clock.now() - brokered.OVERDUE, TOLD_AGAIN)

    async def _work(self, queue: Queue, slots: int) -> None:
        away = False

        async def run(ctx: dict[Any, Any], id: str) -> None:
            # ARQ may give up waiting, and must not cancel what the runner sees to; the slot is taken until then.
            with suppress(Closing):
                if task := await self.take(UUID(id), queue):
                    await asyncio.wait([task])

        while True:
            worker = Worker(
                functions=[func(cast("Any", run), name=FUNCTION, keep_result=0, timeout=None, max_tries=1000)],
                queue_name=f"{self.prefix}:{queue}",
                redis_pool=self.client,
                max_jobs=slots,
                poll_delay=POLL_SECONDS,
                job_timeout=self.settings.jobs_lease_seconds,
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

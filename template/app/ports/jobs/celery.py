"""What Celery needs on any broker: it tells workers of jobs. The rows stay the truth, so what it loses is told again.

Celery's workers are threads of this process, one consumer for each queue. Jobs run in the process's own event loop, by
the same runner as with every other engine: a thread of Celery's only waits, and acknowledges when it is done.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from celery import Celery
from celery.concurrency.thread import TaskPool
from celery.exceptions import Reject, WorkerShutdown
from celery.worker import WorkController
from celery.worker.consumer import Consumer
from fastapi import FastAPI
from kombu.asynchronous import set_event_loop
from kombu.connection import Connection
from kombu.entity import Queue as Told

from app.kit import clock
from app.kit.logging import get_logger
from app.ports.db.database import Database
from app.ports.jobs import brokered
from app.ports.jobs.brokered import AGAIN_SECONDS, IN_ADVANCE, OLDEST, BrokeredEngine, Closing, Full
from app.ports.jobs.queue import Committed
from app.ports.jobs.runner import stop
from app.ports.jobs.tasks import Queue

if TYPE_CHECKING:
    from app.ports.jobs.settings import JobSettings

NAME = "jobs.run"
CONNECT_SECONDS = 2.0
# The longest that a broker is waited for.
ANSWER_SECONDS = 5.0
# What is due later is not told of before: this process remembers so far ahead, and beyond that the overdue are found.
AHEAD = timedelta(minutes=2)
# Brokers take a message back that is not acknowledged for long. A job that takes longer goes on without its message.
HOLD_SECONDS = 300.0
STOP_SECONDS = 5.0
log = get_logger(__name__)
# A line for each message and each connection, beside ours.
logging.getLogger("celery").setLevel(logging.ERROR)
_making = threading.Lock()


class QueueConsumer(Consumer):  # type: ignore[misc]
    """Takes messages, tries to connect for as long as it takes, and can be stopped meanwhile."""

    class Blueprint(Consumer.Blueprint):  # type: ignore[misc]
        """Only what takes tasks: not the queues by which a broker would delay some, which nobody asks it to do."""

        default_steps: ClassVar = [
            "celery.worker.consumer.connection:Connection",
            "celery.worker.consumer.tasks:Tasks",
            "celery.worker.consumer.consumer:Evloop",
        ]

    def ensure_connected(self, conn: Connection) -> Connection:
        """Connect."""
        worker: QueueWorker = self.controller
        while not worker.stopping.is_set():
            try:
                conn.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)
            except conn.recoverable_connection_errors as error:
                worker.tell_away(error)
                worker.stopping.wait(AGAIN_SECONDS)
            else:
                worker.away = False
                for other in worker.others:
                    other(conn.default_channel).declare()
                return conn
        raise WorkerShutdown(0)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Put a message aside that cannot be read."""
        log.error("a message that is no job cannot be read", queue=self.controller.queue, reason=type(exc).__name__)
        message.reject_log_error(logging.getLogger(__name__), self.connection_errors)


class Threads(TaskPool):  # type: ignore[misc]
    """Celery's pool of threads; each of them knows which Celery it belongs to."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.executor = ThreadPoolExecutor(self.limit, initializer=self.app.set_current)


class QueueWorker(WorkController):  # type: ignore[misc]
    """One of Celery's workers, for one queue, in a thread."""

    def __init__(
        self, celery: Celery, queue: Queue, slots: int, stopping: threading.Event, others: Sequence[Told]
    ) -> None:
        self.queue, self.stopping, self.others, self.away = queue, stopping, others, False
        # Celery takes a loop that is there already; each of these needs its own.
        with _making:
            set_event_loop(None)
            super().__init__(
                app=celery,
                pool=Threads,
                concurrency=slots,
                consumer_cls=QueueConsumer,
                use_eventloop=True,
                task_events=False,
                without_gossip=True,
                without_heartbeat=True,
                without_mingle=True,
            )
            set_event_loop(None)

    def tell_away(self, error: BaseException) -> None:
        """Say once that there is no broker."""
        if not self.away:
            log.warning("the broker is away; the worker waits", queue=self.queue, reason=type(error).__name__)
        self.away = True

    def stop_soon(self) -> None:
        """Have the worker stop, in its own thread."""
        self.stopping.set()
        self.hub.call_soon(_shut_down)


def _shut_down() -> None:
    raise WorkerShutdown(0)


class CeleryEngine(BrokeredEngine):
    """Lets Celery's workers take what a broker tells of."""

    def __init__(self, app: FastAPI, database: Database, settings: "JobSettings") -> None:
        self.url = self.find_url()
        super().__init__(app, database, settings, there=self.url is not None)
        # Services may share a broker, and what is told to the wrong one is told again only later.
        name = f"{app.title}:{database.engine.url.database}"
        slug = re.sub(r"[^a-z0-9]+", "-", app.title.lower()).strip("-")[:40]
        self.prefix = f"jobs.{slug}-{sha256(name.encode()).hexdigest()[:8]}"
        self._workers: dict[Queue, QueueWorker] = {}
        self._stopping = threading.Event()
        self._connection: Connection | None = None
        self._consuming: list[asyncio.Task[None]] = []

    @staticmethod
    def find_url() -> str | None:
        """Return where the broker is, as kombu wants to be told."""
        raise NotImplementedError

    @classmethod
    def missing(cls) -> str | None:
        """Tell that there is no broker."""
        return None if cls.find_url() else cls.VARIABLE

    def options(self) -> dict[str, Any]:
        """Return what kombu is to know of the connections."""
        raise NotImplementedError

    def declared(self, queue: Queue) -> Told:
        """Return the queue of the broker that stands for one of ours."""
        raise NotImplementedError

    def tls(self) -> dict[str, Any] | bool:
        """Return what kombu is to know of the certificates of servers."""
        return False

    def others(self) -> Sequence[Told]:
        """Return the queues of the broker that stand for none of ours."""
        return ()

    def celery(self, *queues: Queue, **options: Any) -> Celery:
        """Return Celery, with some of the queues."""
        celery = Celery(self.prefix, set_as_current=False)
        celery.conf.update(
            broker_url=self.url,
            broker_transport_options=self.options(),
            broker_use_ssl=self.tls(),
            broker_connection_timeout=CONNECT_SECONDS,
            broker_heartbeat=30,
            accept_content=["json"],
            task_serializer="json",
            task_ignore_result=True,
            task_queues=[self.declared(queue) for queue in queues],
            task_default_queue=self.declared(queues[0]).name,
            task_create_missing_queues=False,
            task_acks_late=True,
            # What is no job goes where the broker keeps dead letters, if it keeps any.
            task_acks_on_failure_or_timeout=False,
            task_reject_on_worker_lost=True,
            worker_enable_remote_control=False,
            worker_enable_prefetch_count_reduction=False,
            **options,
        )
        return celery

    def connect(self) -> None:
        """Make one connection, which one thread uses."""
        self._loop = asyncio.get_running_loop()
        self._teller = ThreadPoolExecutor(1, thread_name_prefix="teller")
        self._celery = self.celery(*Queue)

    def work(self) -> None:
        """Have a worker for each queue, in a thread."""
        self._consuming = [asyncio.create_task(self._work(queue, slots)) for queue, slots in self.runner.slots.items()]

    async def tell(self, messages: Sequence[Sequence[Committed]]) -> None:
        """Tell the broker, in the thread that has the connection."""
        await self._in_thread(partial(self.publish, messages))

    def hand_over(self, jobs: Sequence[Committed]) -> None:
        """Tell the broker of jobs, in the background; of those that are delayed once they are due."""
        if self.instead:
            return self.instead.hand_over(jobs)
        now = clock.now()
        for job in jobs:
            if now < job.run_at < now + AHEAD:
                self._loop.call_later((job.run_at - now).total_seconds(), self.hand_over, [job])
        return super().hand_over([job for job in jobs if job.run_at <= now])

    async def _in_thread(self, work: Any) -> Any:
        """Do something with the connection; with a new one, when it turns out to be broken."""
        try:
            async with asyncio.timeout(3 * ANSWER_SECONDS):
                return await self._loop.run_in_executor(self._teller, self._connected, work)
        except TimeoutError:
            self._disconnect()  # A broker that has fallen silent.
            raise

    def _connected(self, work: Any) -> Any:
        for last in (False, True):
            fresh = self._connection is None
            connection = self._connection or self._celery.connection_for_write()
            try:
                self._connection = connection
                return work(connection)
            except Exception:
                self._disconnect()
                if fresh or last:
                    raise
        return None

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection:
            connection.collect(socket_timeout=0.1)

    def publish(self, messages: Sequence[Sequence[Committed]], connection: Connection) -> None:
        """Send messages."""
        producer = self._celery.amqp.Producer(connection, auto_declare=False)
        for jobs in messages:
            self._celery.send_task(
                NAME,
                args=[str(job.id) for job in jobs],
                task_id=str(jobs[0].id),
                queue=self.declared(Queue(jobs[0].queue)).name,
                producer=producer,
                retry=False,
                timeout=ANSWER_SECONDS,
            )

    def waiting(self, connection: Connection) -> Mapping[Queue, int]:
        """Tell how many messages wait in each queue."""
        channel = connection.default_channel
        return {queue: self.declared(queue)(channel).queue_declare()[1] for queue in Queue}

    async def missed(self) -> Sequence[Any]:
        """Return what is overdue, as far as more is due than messages wait: a broker takes whatever it is told."""
        late = clock.now() - brokered.OVERDUE
        if not await self.store.overdue(late, 1):
            return []
        return await self.store.lost(await self._in_thread(self.waiting), late, OLDEST)

    async def _work(self, queue: Queue, slots: int) -> None:
        """Have a worker for a queue, and another one when it ends."""
        while not self._stopping.is_set():
            ended = self._loop.create_future()
            threading.Thread(
                target=self._consume, args=(queue, slots, ended), name=f"celery-{queue}", daemon=True
            ).start()
            await asyncio.wait([ended])
            if not self._stopping.is_set():
                await asyncio.sleep(AGAIN_SECONDS)

    def _consume(self, queue: Queue, slots: int, ended: "asyncio.Future[None]") -> None:
        try:
            celery = self.celery(queue, worker_prefetch_multiplier=IN_ADVANCE[queue])

            @celery.task(name=NAME, lazy=False, shared=False)  # type: ignore[untyped-decorator]
            def run(first: str, *others: str) -> None:
                ids = [UUID(id) for id in (first, *others)]
                asyncio.run_coroutine_threadsafe(self._run(ids, queue), self._loop).result()

            worker = self._workers[queue] = QueueWorker(celery, queue, slots, self._stopping, self.others())
            if not self._stopping.is_set():
                worker.start()
        finally:
            with suppress(RuntimeError):  # The loop is closed.
                self._loop.call_soon_threadsafe(ended.cancel)

    async def _run(self, ids: Sequence[UUID], queue: Queue) -> None:
        with suppress(TimeoutError):  # They are told of again, or go on without their message.
            async with asyncio.timeout(HOLD_SECONDS):
                try:
                    runs = await self.take(ids, queue)
                except Closing:
                    raise Reject("the worker stops", requeue=True) from None
                except Full:
                    self.hand_over([Committed(id, queue, clock.now()) for id in ids])
                    return
                if runs:
                    await asyncio.wait(runs)

    async def close(self) -> None:
        """Take no more jobs; those that run have some seconds."""
        if self.instead:
            return await self.instead.close()
        self._stopping.set()
        for worker in self._workers.values():
            worker.stop_soon()
        await self.drain()
        if self._consuming:
            await asyncio.wait(self._consuming, timeout=STOP_SECONDS)
            await stop(self._consuming)
        self._disconnect()
        self._teller.shutdown(wait=False)
        return None

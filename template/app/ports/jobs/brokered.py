"""What every engine with a broker does: it tells of jobs after their commit, and claims what it is told of.

The rows stay the truth. What the broker loses, or was never told of, a worker finds in the database and tells again.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from fastapi import FastAPI

from app.kit import clock
from app.kit.logging import get_logger
from app.ports.db.database import Database
from app.ports.jobs.engine import EmbeddedEngine, keep_house
from app.ports.jobs.queue import Committed
from app.ports.jobs.runner import AWAY, Runner, lasting, stop, undisturbed
from app.ports.jobs.schedule import Schedule
from app.ports.jobs.store import JobStore, Outcome
from app.ports.jobs.tasks import Queue

if TYPE_CHECKING:
    from app.ports.jobs.settings import JobSettings

AGAIN_SECONDS = 1.0
# A job that is due for so long was perhaps never told of. Telling of it twice does nothing.
OVERDUE = timedelta(seconds=2)
TOLD_AGAIN = 500
log = get_logger(__name__)


class Closing(Exception):
    """This process takes no more jobs; another one is to be told."""


@dataclass(eq=False, slots=True)
class Asked:
    """A job that the broker tells of; a slot is taken for it, until it has ended or turns out to be somebody else's."""

    slot: asyncio.Semaphore
    answer: "asyncio.Future[asyncio.Task[None] | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, task: "asyncio.Task[None] | None") -> None:
        """Give the slot back when the job has ended, also when nobody waits for the answer any more."""
        if task is None:
            self.slot.release()
        else:
            task.add_done_callback(lambda _: self.slot.release())
        if not self.answer.done():
            self.answer.set_result(task)


class BrokeredEngine:
    """Tells a broker of jobs once they are committed, and where it works runs what the broker tells of.

    Without a broker, which only development gets away with, the embedded engine takes over.
    """

    VARIABLE: ClassVar[str]

    def __init__(self, app: FastAPI, database: Database, settings: "JobSettings", *, there: bool) -> None:
        self.settings = settings
        self.store = JobStore(database, timedelta(seconds=settings.jobs_lease_seconds))
        self.schedule = Schedule(database)
        self.runner = Runner(app, self.store, settings, on_room=lambda: None, on_again=self._again)
        self.instead = None if there else EmbeddedEngine(app, database, settings)
        self._told: list[Committed] = []
        self._tell = asyncio.Event()
        self._asked: dict[UUID, Asked] = {}
        self._ask = asyncio.Event()
        self._slots: dict[Queue, asyncio.Semaphore] = {}
        self._background: list[asyncio.Task[None]] = []
        self._closing = False

    async def tell(self, jobs: Sequence[Committed]) -> None:
        """Tell the broker of jobs."""
        raise NotImplementedError

    async def missed(self) -> Sequence[Any]:
        """Return the id, queue and time of overdue jobs that the broker seems not to know."""
        raise NotImplementedError

    async def open(self, *, works: bool) -> None:
        """Begin to tell of jobs, and where this process works to run them."""
        if self.instead:
            log.warning("there is no broker; jobs run in this process", empty=self.VARIABLE)
            return await self.instead.open(works=works)
        self.connect()
        self._background = [asyncio.create_task(lasting(self._push))]
        if works:
            self.runner.open()
            self._slots = {queue: asyncio.Semaphore(slots) for queue, slots in self.runner.slots.items()}
            self._background += [
                asyncio.create_task(lasting(self._claim)),
                asyncio.create_task(lasting(self._tell_again)),
                asyncio.create_task(lasting(lambda: keep_house(self.store, self.schedule, self.settings, self._back))),
            ]
            self.work()
        return None

    def connect(self) -> None:
        """Make what tells the broker; it need not be there yet."""
        raise NotImplementedError

    def work(self) -> None:
        """Begin to take what the broker tells."""
        raise NotImplementedError

    def hand_over(self, jobs: Sequence[Committed]) -> None:
        """Tell of jobs, in the background."""
        if self.instead:
            return self.instead.hand_over(jobs)
        self._told += jobs
        return self._tell.set()

    def _again(self, outcome: Outcome) -> None:
        self.hand_over([Committed(outcome.job.id, outcome.job.task.queue, outcome.run_at or clock.now())])

    def _back(self, rows: Sequence[Any]) -> None:
        self.hand_over([Committed(row.id, row.queue, row.run_at) for row in rows])

    async def _push(self) -> None:
        away = False
        while True:
            await self._tell.wait()
            self._tell.clear()
            jobs, self._told = self._told, []
            try:
                if jobs:
                    await self.tell(jobs)
                away = False
            except Exception as error:
                # A worker finds them in the database later on.
                if not away:
                    log.warning("the broker is away; jobs wait until it is back", reason=type(error).__name__)
                away = True

    async def _tell_again(self) -> None:
        """Tell of jobs that are overdue: their process died before it could, or the broker has lost them."""
        away = False
        while True:
            try:
                self._back(await self.missed())
                away = False
            except Exception as error:
                if not away:
                    log.warning("overdue jobs cannot be looked for", reason=type(error).__name__)
                away = True
            await asyncio.sleep(OVERDUE.total_seconds())

    async def take(self, id: UUID, queue: Queue) -> "asyncio.Task[None] | None":
        """Run a job that the broker tells of, if its row says so too, as soon as there is a slot. Returns its run.

        Raises Closing when it will not.
        """
        slot = self._slots[queue]
        await slot.acquire()
        if self._closing:
            slot.release()
            raise Closing
        if id in self._asked:
            slot.release()  # It was told of twice.
            return None
        asked = self._asked[id] = Asked(slot)
        self._ask.set()
        return await asyncio.shield(asked.answer)

    async def _claim(self) -> None:
        """Claim jobs that are asked for, all that there are in one transaction."""
        away = False
        while True:
            await self._ask.wait()
            self._ask.clear()
            asked, self._asked = self._asked, {}
            try:
                await undisturbed(self._start(asked))
                away = False
            except AWAY as error:
                if not away:
                    log.warning("jobs cannot be claimed", reason=type(error).__name__)
                away = True
                # Those are told of again when the database is back.
                await asyncio.sleep(AGAIN_SECONDS)
            finally:
                for one in asked.values():
                    one.settle(None)

    async def _start(self, asked: dict[UUID, Asked]) -> None:
        jobs = await self.store.claim_these(list(asked))
        for job, task in zip(jobs, self.runner.start(jobs), strict=True):
            asked.pop(job.id).settle(task)

    async def drain(self) -> None:
        """Claim nothing more, and let what runs have some seconds."""
        self._closing = True
        await stop(self._background)
        for one in self._asked.values():
            one.settle(None)
        self._asked = {}
        await self.runner.close()

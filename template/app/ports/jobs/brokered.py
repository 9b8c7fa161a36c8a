"""What every engine with a broker does: it tells of jobs after their commit, and claims what it is told of.

The rows stay the truth. What the broker loses, or was never told of, a worker finds in the database and tells again.
One message tells of several jobs where many are committed at the same time: a broker takes longer over one than a task.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
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
# How many of the oldest are looked at then, and the longest until one of them is told of once more.
OLDEST = 2000
LONGEST_SECONDS = 30.0
# The most jobs in one message. What takes long has one of its own: in one with others it could wait for a slot in one
# process while another has one that is free.
TOGETHER: dict[str, int] = {Queue.DEFAULT: 20, Queue.HEAVY: 1, Queue.LLM: 1}
# Messages that a worker takes for each slot: what takes long waits where another worker can take it.
IN_ADVANCE = {Queue.DEFAULT: 2, Queue.HEAVY: 1, Queue.LLM: 1}
# For so long jobs wait for a slot in one process, before they go back to the broker.
PATIENCE_SECONDS = 2.0
# Who has told of some waits so long for more: the first of many is told of at once.
GATHER_SECONDS = 0.02
log = get_logger(__name__)


def together(jobs: Iterable[Committed]) -> Iterator[list[Committed]]:
    """Divide jobs among messages. What is delayed has one of its own."""
    now = clock.now()
    by_queue: dict[str, list[Committed]] = {}
    for job in jobs:
        if job.run_at > now:
            yield [job]
        else:
            by_queue.setdefault(job.queue, []).append(job)
    for queue, due in by_queue.items():
        most = TOGETHER.get(queue, 1)
        yield from (due[at : at + most] for at in range(0, len(due), most))


class Closing(Exception):
    """This process takes no more jobs; another one is to be told."""


class Full(Exception):
    """No job of a message has found a slot in this process; another one may have some."""


@dataclass(eq=False, slots=True)
class Asked:
    """A job that the broker tells of, with a slot that is taken for it."""

    slots: asyncio.Semaphore
    answer: "asyncio.Future[asyncio.Task[None] | None]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def settle(self, task: "asyncio.Task[None] | None") -> None:
        """Say by which task it runs, or give the slot back, also when nobody waits for the answer any more."""
        if task is None:
            self.slots.release()
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
        self.runner = Runner(app, self.store, settings, on_room=self._free, on_again=self._again)
        self.instead = None if there else EmbeddedEngine(app, database, settings)
        self._told: list[Committed] = []
        self._tell = asyncio.Event()
        self._asked: dict[UUID, Asked] = {}
        self._ask = asyncio.Event()
        self._slots: dict[Queue, asyncio.Semaphore] = {}
        self._turns: dict[Queue, asyncio.Lock] = {}
        # When overdue jobs may be told of again, in seconds of the monotonic clock, and after which pause.
        self._reminded: dict[UUID, tuple[float, float]] = {}
        self._background: list[asyncio.Task[None]] = []
        self._closing = False

    async def tell(self, messages: Sequence[Sequence[Committed]]) -> None:
        """Send messages to the broker, each of which tells of some jobs of one queue."""
        raise NotImplementedError

    async def missed(self) -> Sequence[Any]:
        """Return the id, queue and time of overdue jobs that the broker seems not to know."""
        raise NotImplementedError

    async def open(self, *, works: bool) -> None:
        """Begin to tell of jobs, and where this process works to run them."""
        if self.instead:
            where = "here" if works else "where `app worker` runs"
            log.warning("there is no broker; the database alone brings jobs", empty=self.VARIABLE, they_run=where)
            return await self.instead.open(works=works)
        self.connect()
        self._background = [asyncio.create_task(lasting(self._push))]
        if works:
            self.runner.open()
            self._slots = {queue: asyncio.Semaphore(slots) for queue, slots in self.runner.slots.items()}
            self._turns = {queue: asyncio.Lock() for queue in self._slots}
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

    def _free(self, queue: Queue) -> None:
        self._slots[queue].release()

    def _again(self, outcome: Outcome) -> None:
        self.hand_over([Committed(outcome.job.id, outcome.job.queue, outcome.run_at or clock.now())])

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
                    await self.tell(list(together(jobs)))
                away = False
            except Exception as error:
                # A worker finds them in the database later on.
                if not away:
                    log.warning("the broker is away; jobs wait until it is back", reason=type(error).__name__)
                away = True
            await asyncio.sleep(GATHER_SECONDS)

    async def _tell_again(self) -> None:
        """Tell of jobs that are overdue: their process died before it could, or the broker has lost them."""
        away = False
        while True:
            try:
                if jobs := self._due_again(await self.missed()):
                    await self.tell(list(together(jobs)))
                away = False
            except Exception as error:
                if not away:
                    log.warning("overdue jobs cannot be told of", reason=type(error).__name__)
                # A broker that comes back may have forgotten all.
                away, self._reminded = True, {}
            await asyncio.sleep(OVERDUE.total_seconds())

    def _due_again(self, rows: Sequence[Any]) -> list[Committed]:
        """Return what is to be told of again now: what waits for its turn all the same, less and less often."""
        now, before = time.monotonic(), self._reminded
        found, self._reminded = [], {}
        for row in rows:
            at, pause = before.get(row.id, (now, OVERDUE.total_seconds()))
            if now >= at:
                found.append(Committed(row.id, row.queue, row.run_at))
                at, pause = now + pause, min(2 * pause, LONGEST_SECONDS)
            self._reminded[row.id] = at, pause
        return found

    async def take(self, ids: Sequence[UUID], queue: Queue) -> "list[asyncio.Task[None]]":
        """Run the jobs of a message, if their rows say so too, as soon as there are slots. Returns their runs.

        Some of them that wait for long go back to the broker: another process may have a slot.
        Raises Full when all of them do, and Closing when this one takes no more.
        """
        runs: list[asyncio.Task[None]] = []
        left = list(ids)
        while left:
            free = await self._room(queue, len(left))
            if self._closing:
                for _ in range(free):
                    self._slots[queue].release()
                raise Closing
            if not free and len(left) == len(ids):
                raise Full
            if not free:
                self.hand_over([Committed(id, queue, clock.now()) for id in left])
                break
            runs += await self._take(left[:free], self._slots[queue])
            left = left[free:]
        return runs

    async def _room(self, queue: Queue, most: int) -> int:
        """Take slots, all that are free when it is the turn of this message. Returns how many; none after a while."""
        slots, taken = self._slots[queue], 1
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._turns[queue]:
                await slots.acquire()
        except TimeoutError:
            return 0
        while taken < most and not slots.locked():
            await slots.acquire()
            taken += 1
        return taken

    async def _take(self, ids: Sequence[UUID], slots: asyncio.Semaphore) -> "list[asyncio.Task[None]]":
        """Run jobs for which slots are taken."""
        mine = []
        for id in ids:
            if id in self._asked:
                slots.release()  # It was told of twice.
            else:
                mine.append(Asked(slots))
                self._asked[id] = mine[-1]
        if not mine:
            return []
        self._ask.set()
        # Who gives up waiting for these does not take them away from others.
        await asyncio.wait([one.answer for one in mine])
        return [run for one in mine if (run := one.answer.result())]

    async def _claim(self) -> None:
        """Claim jobs that are asked for, all that there are in one transaction."""
        away = False
        while True:
            await self._ask.wait()
            # Slots that have become free at the same time are asked for one after the other.
            await asyncio.sleep(0)
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

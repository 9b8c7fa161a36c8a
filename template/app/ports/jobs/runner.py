"""Runs jobs that have been claimed: in bounded numbers, under a lease that is renewed, and each to its outcome."""

import asyncio
import random
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from uuid import UUID

from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError
from sqlmodel.ext.asyncio.session import AsyncSession
from structlog.contextvars import bind_contextvars

from app.kit import clock
from app.kit.errors import AppError
from app.kit.logging import get_logger
from app.ports.db.module import may_pass
from app.ports.jobs.models import State
from app.ports.jobs.store import Claimed, JobStore, Outcome
from app.ports.jobs.tasks import GiveUp, Queue, Retry, Running, Superseded, Task

if TYPE_CHECKING:
    from app.ports.jobs.settings import JobSettings

FAILED = "The task failed."
LONGEST_PAUSE = timedelta(hours=1)
AGAIN_SECONDS = 1.0
# The longest between two signs of life, and so between two reports of progress.
RENEW_SECONDS = 5.0
# What a database says that is away, busy or out of connections.
AWAY = (DBAPIError, AppError, OSError, TimeoutError)
Found = TypeVar("Found")
CameTo = Literal["succeeded", "failed", "dead", "stopped", "lost"]
# Told of each attempt in this process: its task, what it came to, and how many seconds it took.
Observer = Callable[[Task[Any], CameTo, float], None]
_random = random.SystemRandom()
log = get_logger(__name__)


async def lasting(work: Callable[[], Awaitable[None]]) -> None:
    """Do what is to go on for as long as the process runs, also after what nobody had thought of."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("a part of the engine of jobs has failed, and begins anew")
            await asyncio.sleep(AGAIN_SECONDS)


async def undisturbed(work: Coroutine[Any, Any, Found]) -> Found:
    """Let a transaction come to its end before a cancellation takes effect: cut off, it may keep SQLite's lock."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise


async def stop(tasks: "Iterable[asyncio.Task[None]]") -> None:
    """End tasks of ours; again and again, because some libraries swallow a cancellation that comes at a bad time."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=0.5)


@dataclass(eq=False, slots=True)
class Run:
    """A job that runs in this process; it has a slot until its task has ended, or the thread of its task."""

    job: Claimed
    running: Running
    task: "asyncio.Task[None]"
    reported: tuple[float | None, str | None] = (None, None)
    has_slot: bool = True


@dataclass(eq=False, slots=True)
class Ending:
    """An outcome on its way to the database."""

    outcome: Outcome
    written: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


def _came_to(outcome: Outcome | None, *, ended: bool) -> CameTo:
    """Say what an attempt came to. One that failed is tried again; what has ended by itself leaves no outcome."""
    if outcome is None:
        return "succeeded" if ended else "lost"
    if outcome.state is State.QUEUED:
        return "failed" if outcome.attempts is None else "stopped"
    return "succeeded" if outcome.state is State.SUCCEEDED else "dead"


def _passes(error: DBAPIError) -> bool:
    """Tell whether an outcome can be written later: also where the server has become a standby (SQLSTATE 25006)."""
    return may_pass(error) or getattr(error.orig, "sqlstate", None) == "25006"


class Runner:
    """Runs claimed jobs. `on_room` is told of slots that become free, `on_again` of jobs that are queued again."""

    def __init__(
        self,
        app: FastAPI,
        store: JobStore,
        settings: "JobSettings",
        *,
        on_room: Callable[[Queue], None],
        on_again: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self.app, self.store, self.settings = app, store, settings
        self.slots = settings.slots
        self._on_room, self._on_again = on_room, on_again
        self._observers: Sequence[Observer] = getattr(app.state, "job_observers", ())
        # By job and claim: one that was lost may be here a second time, before the first has noticed.
        self._runs: dict[tuple[UUID, UUID], Run] = {}
        self._used: Counter[Queue] = Counter()
        self._endings: list[Ending] = []
        self._ended = asyncio.Event()
        self._stopping = False
        self._background: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Begin to renew leases and to write outcomes."""
        self._background = [asyncio.create_task(lasting(work)) for work in (self._renew, self._write)]

    def room(self) -> dict[Queue, int]:
        """Tell how many jobs of each queue there is room for."""
        return {queue: free for queue, slots in self.slots.items() if (free := slots - self._used[queue]) > 0}

    def start(self, jobs: Sequence[Claimed]) -> "list[asyncio.Task[None]]":
        """Run jobs in the background."""
        started = []
        for job in jobs:
            running = Running(
                id=job.id,
                attempt=job.attempt,
                owner_id=job.owner_id,
                app=self.app,
                end=self._end_in(job),
                write=job.task.write_result,
            )
            task = asyncio.create_task(self._run(job, running))
            self._runs[job.id, job.claim] = Run(job, running, task)
            self._used[job.queue] += 1
            started.append(task)
        return started

    def _end_in(self, job: Claimed) -> Callable[[AsyncSession, str], Any]:
        async def end(session: AsyncSession, result: str) -> bool:
            return await self.store.end_in(session, Outcome(job=job, state=State.SUCCEEDED, result=result))

        return end

    async def _run(self, job: Claimed, running: Running) -> None:
        bind_contextvars(job=str(job.id), task=job.task.name, attempt=job.attempt)
        begin = time.perf_counter()
        try:
            outcome = await self._attempt(job, running)
            self._tell(job, _came_to(outcome, ended=running.ended), time.perf_counter() - begin)
            # From here on there is nothing to lose, and nothing to give back.
            running.ended = True
            thread = running.thread if running.thread and not running.thread.done() and not self._stopping else None
            if thread is None:
                # The next one need not wait until this one's outcome is written.
                self._free(job)
            if outcome is not None:
                await self._end(outcome)
                if outcome.state is State.QUEUED:
                    self._on_again(outcome)
            if thread and not thread.done() and not self._stopping:
                running.lost = True
                log.warning("a task is past its timeout and goes on in its thread; its slot stays taken until then")
                await asyncio.wait([thread])
        finally:
            self._free(job)
            del self._runs[job.id, job.claim]

    def _tell(self, job: Claimed, came_to: CameTo, seconds: float) -> None:
        log.debug("job ran", seconds=round(seconds, 3))
        for observe in self._observers:
            try:
                observe(job.task, came_to, seconds)
            except Exception:
                log.exception("an observer of jobs has failed")

    def _free(self, job: Claimed) -> None:
        run = self._runs[job.id, job.claim]
        if run.has_slot:
            run.has_slot = False
            self._used[job.queue] -= 1
            self._on_room(job.queue)

    async def _attempt(self, job: Claimed, running: Running) -> Outcome | None:
        """Run the task once, and say what has become of it; nothing, where that is written or somebody else's."""
        try:
            async with asyncio.timeout(job.task.timeout.total_seconds()) as limit:
                result = await job.task.run(running, job.arguments)
        except asyncio.CancelledError as error:
            if running.ended or running.lost:
                return None
            if not self._stopping:
                if (current := asyncio.current_task()) and current.cancelling():
                    raise
                return self._failed(job, error, timed_out=False)
            return Outcome(job=job, state=State.QUEUED, attempts=job.attempt - 1, error="The process stopped.")
        except Superseded:
            log.warning("somebody else has this job by now")
            return None
        except (Exception, SystemExit) as error:
            if running.ended:
                log.exception("a task failed after its job had ended")
                return None
            return self._failed(job, error, timed_out=limit.expired())
        if running.ended:
            return None
        return Outcome(job=job, state=State.SUCCEEDED, result=result, note=running.note)

    def _failed(self, job: Claimed, error: BaseException, *, timed_out: bool) -> Outcome:
        shown = f"It took longer than {job.task.timeout}." if timed_out else FAILED
        if isinstance(error, AppError):
            shown = error.detail
        elif isinstance(error, GiveUp | Retry):
            shown = str(error)
        told = "".join(traceback.format_exception(error))
        if isinstance(error, GiveUp) or job.attempt >= job.most_attempts:
            log.error("job is dead", error=f"{type(error).__name__}: {error}", exc_info=error)
            return Outcome(job=job, state=State.DEAD, error=shown, traceback=told)
        pause = error.after if isinstance(error, Retry) else None
        if pause is None:
            pause = min(job.task.backoff * 2 ** min(job.attempt - 1, 16), LONGEST_PAUSE) * _random.uniform(0.5, 1.0)
        log.warning("job failed", error=f"{type(error).__name__}: {error}", again_in=round(pause.total_seconds(), 1))
        return Outcome(job=job, state=State.QUEUED, error=shown, traceback=told, run_at=clock.now() + pause)

    async def _end(self, outcome: Outcome) -> None:
        ending = Ending(outcome)
        self._endings.append(ending)
        self._ended.set()
        # A process that stops writes what has ended all the same.
        await asyncio.shield(ending.written)

    async def _write(self) -> None:
        """Write outcomes, all that there are in one transaction; while the database is away, they wait."""
        while True:
            await self._ended.wait()
            self._ended.clear()
            endings, self._endings = self._endings, []
            if not await self._written(endings):
                # One of them cannot be stored, and must not keep the others.
                for ending in endings:
                    if not await self._written([ending]):
                        log.error("the outcome of a job cannot be stored", job=str(ending.outcome.job.id))
            for ending in endings:
                if not ending.written.done():
                    ending.written.set_result(None)

    async def _written(self, endings: Sequence[Ending]) -> bool:
        while True:
            try:
                await undisturbed(self.store.end([ending.outcome for ending in endings]))
            except Exception as error:
                if not isinstance(error, AWAY) or (isinstance(error, DBAPIError) and not _passes(error)):
                    return False
                log.warning("what jobs have come to cannot be written yet", reason=type(error).__name__)
                await asyncio.sleep(AGAIN_SECONDS)
            else:
                return True

    async def _renew(self) -> None:
        """Renew leases while jobs run, write what they report, and stop those that somebody else has by now."""
        while True:
            await asyncio.sleep(min(self.settings.jobs_lease_seconds / 4, RENEW_SECONDS))
            runs = list(self._runs.values())
            if not runs:
                continue
            try:
                held = await undisturbed(self.store.renew([run.job.claim for run in runs]))
                news = [run for run in runs if run.reported != (run.running.progress, run.running.note)]
                for run in news:
                    run.reported = (run.running.progress, run.running.note)
                await undisturbed(self.store.report((run.job, *run.reported) for run in news))
            except AWAY as error:
                log.warning("leases of jobs cannot be renewed", reason=type(error).__name__)
                continue
            for run in runs:
                mine = (run.job.id, run.job.claim)
                if mine not in held and mine in self._runs and not run.running.ended:
                    run.running.lost = True
                    run.task.cancel()

    async def close(self) -> None:
        """Let what runs come to its end for a while; the rest goes back to the queue."""
        running = [run.task for run in self._runs.values()]
        if running:
            _, late = await asyncio.wait(running, timeout=self.settings.jobs_drain_seconds)
            self._stopping = True
            for run in list(self._runs.values()):
                # What has ended is being written, unless it waits for a thread.
                if not run.running.ended or run.running.lost:
                    run.task.cancel()
            if late:
                # The database may be away, and then leases say how it goes on.
                await asyncio.wait(late, timeout=5)
        await stop(self._background)

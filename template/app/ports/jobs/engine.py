"""Engines: what brings the rows of jobs to a runner. The embedded one looks for them in the database itself."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import FastAPI

from app.kit import clock
from app.kit.logging import get_logger
from app.ports.db.database import Database
from app.ports.jobs.queue import Committed
from app.ports.jobs.runner import AWAY, Runner, lasting, stop, undisturbed
from app.ports.jobs.schedule import Schedule
from app.ports.jobs.store import JobStore

if TYPE_CHECKING:
    from app.ports.jobs.settings import JobSettings

# How often a process looks after what lost workers held and what is old; at its start as well.
SWEEP_SECONDS = 15.0
log = get_logger(__name__)


class Engine(Protocol):
    """Hands committed jobs over, and in a process that works runs them."""

    def hand_over(self, jobs: Sequence[Committed]) -> None:
        """Take jobs that have just been committed here. Returns at once and never raises."""

    def __init__(self, app: FastAPI, database: Database, settings: "JobSettings") -> None: ...

    @staticmethod
    def missing() -> str | None:
        """Tell what this engine needs and has not got."""

    async def open(self, *, works: bool) -> None:
        """Begin; with `works` also to run jobs."""

    async def close(self) -> None:
        """Stop. What runs has some seconds, and then goes back to the queue."""


async def keep_house(
    store: JobStore,
    schedule: Schedule,
    settings: "JobSettings",
    back: Callable[[Sequence[Any]], None] = lambda _: None,
) -> None:
    """Put back what lost workers held, forget what is old, and enqueue what comes again, for as long as it runs.

    `back` is told the id, queue and time of the jobs that were put back.
    """
    keep, keep_dead = timedelta(days=settings.jobs_keep_days), timedelta(days=settings.jobs_keep_dead_days)
    next_sweep = clock.now()
    while True:
        try:
            if clock.now() >= next_sweep:
                next_sweep = clock.now() + timedelta(seconds=min(SWEEP_SECONDS, settings.jobs_lease_seconds / 2))
                again, dead = await undisturbed(store.sweep(keep, keep_dead))
                if again:
                    log.warning("jobs of lost workers are queued again", jobs=len(again))
                    back(again)
                if dead:
                    log.error("jobs are dead: their workers were lost", jobs=dead)
            soonest = await undisturbed(schedule.tick(clock.now()))
        except AWAY as error:
            log.warning("jobs cannot be looked after", reason=type(error).__name__)
            soonest = None
        until = min(next_sweep, soonest) if soonest else next_sweep
        await asyncio.sleep(max((until - clock.now()).total_seconds(), 0.05))


class EmbeddedEngine:
    """Runs jobs in this process, and finds them in the database: there is nothing else to install or to lose."""

    def __init__(self, app: FastAPI, database: Database, settings: "JobSettings") -> None:
        self.settings = settings
        self.store = JobStore(database, timedelta(seconds=settings.jobs_lease_seconds))
        self.schedule = Schedule(database)
        self._wake = asyncio.Event()
        self.runner = Runner(app, self.store, settings, on_room=lambda _: self._wake.set())
        self._background: list[asyncio.Task[None]] = []

    @staticmethod
    def missing() -> str | None:
        """Need nothing."""
        return None

    def hand_over(self, jobs: Sequence[Committed]) -> None:
        """Look for jobs now."""
        self._wake.set()

    async def open(self, *, works: bool) -> None:
        """Begin to look for jobs, where this process runs some."""
        if works:
            self.runner.open()
            self._background = [
                asyncio.create_task(lasting(self._dispatch)),
                asyncio.create_task(lasting(lambda: keep_house(self.store, self.schedule, self.settings))),
            ]

    async def _dispatch(self) -> None:
        away = False
        while True:
            self._wake.clear()
            pause = self.settings.jobs_poll_seconds
            try:
                pause = min(pause, await undisturbed(self._take()))
                away = False
            except AWAY as error:
                if not away:
                    log.warning("jobs cannot be claimed", reason=type(error).__name__)
                away = True
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _take(self) -> float:
        """Take what is due and has room, and return how many seconds there are until more is due."""
        room = self.runner.room()
        due = await self.store.due() if room else {}
        now = clock.now()
        begun = False
        for queue, moment in due.items():
            if moment <= now and queue in room:
                # At once: those of one queue are not lost when the database goes before the next one's.
                begun |= bool(self.runner.start(await self.store.claim(queue, room[queue])))
        if begun:
            return 0.0
        later = [(moment - now).total_seconds() for queue, moment in due.items() if moment > now and queue in room]
        return min(later, default=self.settings.jobs_poll_seconds)

    async def close(self) -> None:
        """Take no more jobs; those that run have some seconds."""
        await stop(self._background)
        await self.runner.close()

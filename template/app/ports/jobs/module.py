"""Jobs, as a part of the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from fastapi import FastAPI

from app.kit import clock
from app.kit.logging import get_logger
from app.kit.module import HealthCheck, Module
from app.kit.settings import CoreSettings, SettingsError, load
from app.ports.jobs.commands import commands
from app.ports.jobs.models import Job, JobSchedule
from app.ports.jobs.queue import ignore, listen
from app.ports.jobs.settings import JobSettings, make_engine
from app.ports.jobs.store import JobStore

LATE = timedelta(minutes=5)
MOST_NAMED = 5
log = get_logger(__name__)


class JobsLate(Exception):
    """Nobody seems to run the jobs that are due."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the engine. It runs jobs in workers, and in processes that serve unless a setting says otherwise.

    Raises SettingsError when another module would only open, or already close, while jobs run that may need it.
    """
    opened = [module.name for module in app.state.modules if module.lifespan is not None]
    if later := opened[opened.index(jobs.name) + 1 :]:
        raise SettingsError(f"MODULES, in app/installed.py: put `jobs` last; jobs may need {', '.join(later)} open.")
    settings, database = load(JobSettings), app.state.database
    # The worker and `app doctor` say themselves whether they do; in tests nothing runs by itself.
    works = getattr(app.state, "works", settings.jobs_in_web and load(CoreSettings).environment != "test")
    engine = make_engine(app, database, settings)
    await engine.open(works=works)
    if works:
        at_once = {queue.value: most for queue, most in settings.slots.items()}
        log.info("jobs run here", engine=settings.jobs_engine, **at_once)
    listen(database, engine.hand_over)
    try:
        yield
    finally:
        ignore(database)
        await engine.close()


async def check(app: FastAPI) -> str:
    """Count the jobs. Raises JobsLate when the oldest has been due for long."""
    store = JobStore(app.state.database, timedelta())
    counts = await store.counts()
    told = f"{counts.due} due, {counts.running} running, {counts.dead} dead"
    if strange := await store.strange():
        named = ", ".join(f"{task}: {number}" for task, number in list(strange.items())[:MOST_NAMED])
        told += f"; others wait for a version with their tasks ({named}): deploy it, or see `app jobs drop --task`"
    if counts.oldest and counts.oldest < clock.now() - LATE:
        raise JobsLate(f"{told}; the oldest waits since {counts.oldest:%Y-%m-%d %H:%M} UTC")
    return f"{told}; see `app jobs list --state dead`" if counts.dead else told


jobs = Module(
    name="jobs",
    tables=[Job, JobSchedule],
    settings=[JobSettings],
    lifespan=lifespan,
    health_checks=[
        HealthCheck("jobs", check, advice="Start `app worker`, or set JOBS_IN_WEB=true.", critical=False),
    ],
    commands=commands,
)

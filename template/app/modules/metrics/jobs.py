"""What is measured of jobs, as a part of the service."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from prometheus_client import Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from sqlalchemy import bindparam, func, select

from app.kit import clock
from app.kit.module import Module
from app.modules.metrics.service import Metrics
from app.ports.db.database import Database
from app.ports.jobs.models import Job, State
from app.ports.jobs.runner import CameTo
from app.ports.jobs.tasks import TASKS, Queue, Task

BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)
_jobs = Job.__table__  # type: ignore[attr-defined]
_COUNTS = (
    select(_jobs.c.queue, _jobs.c.task, _jobs.c.state, func.count().label("jobs"))
    # Of those that succeeded there are many, and they are counted where they run.
    .where(_jobs.c.state.in_([State.QUEUED, State.RUNNING, State.DEAD]))
    .group_by(_jobs.c.queue, _jobs.c.task, _jobs.c.state)
)
_OLDEST = (
    select(_jobs.c.queue, func.min(_jobs.c.run_at, type_=_jobs.c.run_at.type).label("oldest"))
    # What no version here can run waits for nobody, and is counted above.
    .where(_jobs.c.state == State.QUEUED, _jobs.c.run_at <= bindparam("now"))
    .where(_jobs.c.task.in_(bindparam("known", expanding=True)))
    .group_by(_jobs.c.queue)
)


async def read_jobs(database: Database) -> Sequence[Metric]:
    """Count the jobs in the database. Every process tells the same: take the largest, not the sum."""
    labels = ["queue", "task", "state"]
    jobs = GaugeMetricFamily("jobs", "Jobs in the database, the same from every process.", labels=labels)
    for row in await database.fetch(_COUNTS):
        jobs.add_metric([row.queue, row.task, row.state], row.jobs)
    waits = GaugeMetricFamily(
        "jobs_wait_seconds", "How long the job has waited that is due for longest.", labels=["queue"]
    )
    now = clock.now()
    oldest = {row.queue: row.oldest for row in await database.fetch(_OLDEST, {"now": now, "known": list(TASKS)})}
    # A queue that is gone from the code may still have jobs, and nobody who takes them.
    for queue in sorted({*(queue.value for queue in Queue), *oldest}):
        waits.add_metric([queue], (now - oldest.get(queue, now)).total_seconds())
    return [jobs, waits]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Count jobs, and measure those that run in this process."""
    metrics: Metrics = app.state.metrics
    metrics.read("jobs", lambda: read_jobs(app.state.database))
    durations = Histogram(
        "job_attempt_duration_seconds",
        "Duration of attempts in this process. What failed is tried again, what stopped or was lost goes on elsewhere.",
        ["task", "outcome"],
        buckets=BUCKETS,
        registry=metrics.registry,
    )

    def observe(task: Task[Any], came_to: CameTo, seconds: float) -> None:
        durations.labels(task.name, came_to).observe(seconds)

    app.state.job_observers = [*getattr(app.state, "job_observers", ()), observe]
    yield


metrics_jobs = Module(name="metrics_jobs", lifespan=lifespan)

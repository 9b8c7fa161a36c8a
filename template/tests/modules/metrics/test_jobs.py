from datetime import timedelta
from typing import Any

from fastapi import FastAPI
from httpx2 import AsyncClient

from app.kit import clock
from app.modules.metrics.jobs import lifespan
from app.modules.metrics.service import Metrics
from app.ports.db.database import Database
from app.ports.jobs.engine import EmbeddedEngine
from app.ports.jobs.models import Job, State
from app.ports.jobs.settings import JobSettings
from tests.modules.metrics.conftest import METRICS, Value
from tests.ports.jobs import work
from tests.ports.jobs.conftest import jobs, service
from tests.ports.jobs.contract import become, put

__all__ = ["jobs", "service"]


async def test_jobs_are_counted_and_how_long_they_wait(scraper: AsyncClient, database: Database, value: Value) -> None:
    now = clock.now()
    rows = [
        ("test.add", State.QUEUED, "heavy", now - timedelta(minutes=10)),
        ("test.add", State.QUEUED, "heavy", now - timedelta(minutes=5)),
        ("test.add", State.QUEUED, "default", now + timedelta(days=1)),
        ("shop.removed", State.QUEUED, "llm", now - timedelta(days=1)),
        ("test.add", State.QUEUED, "gone", now - timedelta(minutes=20)),
        ("test.add", State.DEAD, "default", now),
        ("test.fail", State.RUNNING, "default", now),
        ("test.fail", State.SUCCEEDED, "default", now),
    ]
    async with database.session() as session:
        for task, state, queue, run_at in rows:
            values: dict[str, Any] = {"arguments": '{"name": "lovelace"}', "most_attempts": 3, "run_at": run_at}
            session.add(Job(task=task, state=state, queue=queue, **values))
    text = (await scraper.get(METRICS)).text
    assert "lovelace" not in text
    found = {(t, q, s): value("jobs", task=t, queue=q, state=s) for t, s, q, _ in rows}
    assert found == {
        ("test.add", "heavy", "queued"): 2,
        ("test.add", "default", "queued"): 1,
        ("shop.removed", "llm", "queued"): 1,
        ("test.add", "gone", "queued"): 1,
        ("test.add", "default", "dead"): 1,
        ("test.fail", "default", "running"): 1,
        ("test.fail", "default", "succeeded"): 0,
    }
    assert value("jobs_wait_seconds", queue="default") == value("jobs_wait_seconds", queue="llm") == 0
    assert 600 <= value("jobs_wait_seconds", queue="heavy") < 660
    assert 1200 <= value("jobs_wait_seconds", queue="gone") < 1260


async def test_attempts_are_measured_by_what_they_came_to(service: FastAPI, jobs: Database) -> None:
    service.state.metrics = metrics = Metrics(service)
    async with lifespan(service):
        engine = EmbeddedEngine(service, jobs, JobSettings(jobs_poll_seconds=0.05, jobs_drain_seconds=0))
        await engine.open(works=True)
        try:
            await become(jobs, await put(jobs, work.add(1)), State.SUCCEEDED)
            await become(jobs, await put(jobs, work.fail()), State.DEAD)
        finally:
            await engine.close()

    def count(task: str, outcome: str) -> float | None:
        labels = {"task": task, "outcome": outcome}
        return metrics.registry.get_sample_value("job_attempt_duration_seconds_count", labels)

    assert count("test.add", "succeeded") == 1
    assert (count("test.fail", "failed"), count("test.fail", "dead")) == (2, 1)

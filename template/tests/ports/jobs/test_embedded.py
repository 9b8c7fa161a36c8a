"""The embedded engine: jobs are found in the database itself."""

from collections.abc import Sequence
from typing import Any

import pytest

from app.ports.db.database import Database
from app.ports.jobs.engine import EmbeddedEngine
from app.ports.jobs.models import State
from app.ports.jobs.store import JobStore
from app.ports.jobs.tasks import Queue
from tests.ports.jobs import work
from tests.ports.jobs.contract import EngineContract, Make, Working, become, put


class TestEmbedded(EngineContract):
    @pytest.fixture
    def make(self) -> Make:
        return EmbeddedEngine

    @pytest.fixture
    def environment(self) -> dict[str, str]:
        return {"JOBS_ENGINE": "embedded"}

    async def test_a_database_that_goes_between_two_claims_takes_no_job_along(
        self, jobs: Database, working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ids = [await put(jobs, call) for call in (work.add(1), work.block())]
        claim, failures = JobStore.claim, [1]

        async def fail_once(store: JobStore, queue: Queue, most: int) -> Sequence[Any]:
            if queue is Queue.HEAVY and failures:
                raise ConnectionError(failures.pop())
            return await claim(store, queue, most)

        monkeypatch.setattr(JobStore, "claim", fail_once)
        work.go_on.set()
        async with working():
            for id in ids:
                assert (await become(jobs, id, State.SUCCEEDED)).attempts == 1
        assert not failures

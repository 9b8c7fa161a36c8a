"""ARQ: Redis tells workers of jobs."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis
from sqlmodel import select
from structlog.testing import capture_logs

from app.ports.db.database import Database
from app.ports.jobs import brokered
from app.ports.jobs.arq import ArqEngine
from app.ports.jobs.engine import Engine
from app.ports.jobs.models import Job, State
from app.ports.jobs.settings import JobSettings
from tests.ports.jobs import work
from tests.ports.jobs.brokers import BrokerContract
from tests.ports.jobs.contract import Make, Working, become, put, saw, until

# Nobody falls silent here; a machine may be slow.
TIMEOUT_SECONDS = 10


@pytest.fixture
def redis_url() -> str:
    url = os.environ.get("TEST_REDIS_URL")
    if not url:
        pytest.skip("TEST_REDIS_URL names no Redis server")
    return url


class TestArq(BrokerContract):
    name, variable, port = "arq", "REDIS_URL", 6379

    @pytest.fixture
    async def broker(self, redis_url: str, service: FastAPI) -> AsyncIterator[str]:
        self.clients: list[Redis] = []
        self.point(service, redis_url, None)
        yield redis_url
        for client in self.clients:
            await client.aclose()

    def point(self, service: FastAPI, url: str | None, monkeypatch: pytest.MonkeyPatch | None) -> None:
        if monkeypatch:
            super().point(service, url, monkeypatch)
        service.state.redis = Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS) if url else None
        if url:
            self.clients.append(service.state.redis)

    @pytest.fixture
    def make(self, broker: str, monkeypatch: pytest.MonkeyPatch) -> Make:
        monkeypatch.setattr(brokered, "OVERDUE", timedelta(seconds=0.2))
        return ArqEngine

    @pytest.fixture
    def environment(self, broker: str) -> dict[str, str]:
        return {"JOBS_ENGINE": "arq", "REDIS_URL": broker}

    async def empty(self, engine: Engine, broker: str) -> None:
        assert isinstance(engine, ArqEngine)
        ids = {str(row[0]) for row in await engine.store.database.fetch(select(Job.id))}
        async with Redis.from_url(broker) as redis:
            keys = [*await redis.keys("arq:job:*"), *await redis.keys("arq:in-progress:*")]
            told = [key for key in keys if key.decode().split(":")[2] in ids]
            await redis.delete(*[f"{engine.prefix}:{queue}" for queue in engine.runner.slots], *told)

    async def test_messages_do_not_multiply_while_all_slots_are_taken(
        self,
        jobs: Database,
        working: Working,
        broker: str,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        monkeypatch.setattr(brokered, "PATIENCE_SECONDS", 0.1)
        async with working(jobs_heavy_at_once=1, jobs_lease_seconds=1) as engine:
            ids = [await put(jobs, work.block()) for _ in range(6)]
            await saw("task")
            await asyncio.sleep(2.5)
            assert await self.waiting(engine, broker) <= len(ids)
            work.go_on.set()
            for id in ids:
                assert (await become(jobs, id, State.SUCCEEDED)).attempts == 1
        # What takes longer than a lease has not failed for that.
        assert not [record for record in caplog.records if record.name.startswith("arq")]

    async def waiting(self, engine: Engine, broker: str) -> int:
        assert isinstance(engine, ArqEngine)
        async with Redis.from_url(broker) as redis:
            return sum([int(await redis.zcard(f"{engine.prefix}:{queue}")) for queue in engine.runner.slots])


async def test_jobs_wait_while_redis_is_away(jobs: Database, service: FastAPI, redis_url: str) -> None:
    away = Redis.from_url("redis://127.0.0.1:1/0", socket_timeout=TIMEOUT_SECONDS)
    service.state.redis = away
    engine = ArqEngine(service, jobs, JobSettings())
    with capture_logs() as logs:
        await engine.open(works=True)
        id = await put(jobs, work.add(1))

        async def warned() -> bool:
            return len(logs) >= 3

        await until(warned)
        # It comes back.
        there = Redis.from_url(redis_url, socket_timeout=TIMEOUT_SECONDS)
        engine.client.connection_pool = there.connection_pool
        await become(jobs, id, State.SUCCEEDED)
    await engine.close()
    await there.aclose()
    await away.aclose()
    # Once for each queue, not for each try.
    assert sum(entry["event"].startswith("redis is away; the worker") for entry in logs) == 3

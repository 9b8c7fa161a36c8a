"""What Celery has to do on any broker."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from app.installed import TITLE
from app.kit.settings import forget
from app.ports.db.database import Database
from app.ports.jobs import brokered
from app.ports.jobs.adapters import ENGINES
from app.ports.jobs.celery import NAME, CeleryEngine
from app.ports.jobs.engine import Engine
from app.ports.jobs.models import State
from app.ports.jobs.queue import listen
from app.ports.jobs.settings import JobSettings
from app.ports.jobs.tasks import Queue
from tests.ports.jobs import work
from tests.ports.jobs.brokers import BrokerContract, way_to
from tests.ports.jobs.contract import Make, Working, become, put, until


class CeleryContract(BrokerContract):
    """A class says as well how many dead letters its broker keeps."""

    @pytest.fixture
    def broker(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        url = os.environ.get(f"TEST_{self.variable}")
        if not url:
            pytest.skip(f"TEST_{self.variable} names no server")
        monkeypatch.setenv(self.variable, url)
        forget()
        yield url
        monkeypatch.undo()
        forget()

    @pytest.fixture
    def make(self, broker: str, monkeypatch: pytest.MonkeyPatch) -> Make:
        monkeypatch.setattr(brokered, "OVERDUE", timedelta(seconds=0.2))
        return ENGINES[self.name]

    @pytest.fixture
    def environment(self, broker: str) -> dict[str, str]:
        return {"JOBS_ENGINE": self.name, self.variable: broker}

    @pytest.fixture(autouse=True)
    async def swept(self, jobs: Database, broker: str) -> AsyncIterator[None]:
        """Leave no queue behind, for brokers keep them: neither of this process nor of workers."""
        engines = [ENGINES[self.name](FastAPI(title=title), jobs, JobSettings()) for title in ("jobs of tests", TITLE)]
        yield
        for engine in engines:
            await self.empty(engine, broker, delete=True)

    async def empty(self, engine: Engine, broker: str, *, delete: bool = False) -> None:
        def purge(celery: Any, queues: list[Any]) -> None:
            with celery.connection_for_write(broker) as connection:
                for queue in queues:
                    bound = queue(connection.default_channel)
                    bound.declare()
                    bound.delete() if delete else bound.purge()

        assert isinstance(engine, CeleryEngine)
        queues = [*map(engine.declared, Queue), *engine.others()]
        await asyncio.to_thread(purge, engine.celery(*Queue), queues)

    async def waiting(self, engine: Engine, broker: str) -> int:
        def ask(engine: CeleryEngine) -> int:
            with engine.celery(*Queue).connection_for_write(broker) as connection:
                return sum(engine.waiting(connection).values())

        assert isinstance(engine, CeleryEngine)
        return await asyncio.to_thread(ask, engine)

    async def dead_letters(self, engine: CeleryEngine) -> int:
        raise NotImplementedError

    async def test_what_is_no_job_is_put_aside(self, jobs: Database, working: Working, broker: str) -> None:
        def poison(engine: CeleryEngine) -> None:
            celery = engine.celery(*Queue)
            queue = engine.declared(Queue.DEFAULT)
            with celery.connection_for_write() as connection:
                producer = celery.amqp.Producer(connection, auto_declare=False)
                celery.send_task("no.such.task", args=[str(uuid4())], producer=producer, queue=queue.name)
                celery.send_task(NAME, args=["no id"], producer=producer, queue=queue.name)
                celery.send_task(NAME, args=[], producer=producer, queue=queue.name)
                raw = {"exchange": "", "routing_key": queue.name}
                producer.publish("{", content_type="application/json", content_encoding="utf-8", **raw)
                producer.publish({"task": NAME, "args": [str(uuid4())]}, serializer="pickle", **raw)
                # These are taken for what was done long ago.
                celery.send_task(NAME, args=[str(uuid4())], producer=producer, queue=queue.name)

        async with working() as engine:
            assert isinstance(engine, CeleryEngine)
            await asyncio.to_thread(poison, engine)
            await become(jobs, await put(jobs, work.add(1)), State.SUCCEEDED)

            async def none_waits() -> bool:
                return await self.waiting(engine, broker) == 0

            await until(none_waits)
            assert await self.dead_letters(engine) == self.kept
        assert work.seen == ["1+1"]

    kept: int

    async def test_what_waits_is_not_told_of_again(self, jobs: Database, working: Working, broker: str) -> None:
        async with working(jobs_heavy_at_once=1) as engine:
            first = await put(jobs, work.block())

            async def has_begun() -> bool:
                return "task" in work.seen

            await until(has_begun)
            others = [await put(jobs, work.block()) for _ in range(5)]
            await asyncio.sleep(1.5)
            assert await self.waiting(engine, broker) <= len(others)
            work.go_on.set()
            for id in (first, *others):
                await become(jobs, id, State.SUCCEEDED)

    async def test_jobs_wait_while_the_broker_is_away(
        self, jobs: Database, service: FastAPI, broker: str, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with way_to(broker, self.port) as way:
            await way.cut()
            self.point(service, way.url, monkeypatch)
            engine = make(service, jobs, JobSettings())
            with capture_logs() as logs:
                await engine.open(works=True)
                listen(jobs, engine.hand_over)
                id = await put(jobs, work.add(1))
                await asyncio.sleep(2.5)
                await way.open()
                await become(jobs, id, State.SUCCEEDED)
            await engine.close()
            # Once for each queue, not for each try.
            assert sum(entry["event"].startswith("the broker is away; the worker") for entry in logs) == len(Queue)
        forget()

"""What every engine with a broker has to do, and a way to take its broker away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from app.kit import clock
from app.kit.settings import SettingsError, forget, load
from app.ports.db.database import Database
from app.ports.jobs import brokered
from app.ports.jobs.brokered import TOGETHER, BrokeredEngine
from app.ports.jobs.engine import EmbeddedEngine, Engine
from app.ports.jobs.models import State
from app.ports.jobs.queue import Committed, enqueue, ignore, listen
from app.ports.jobs.settings import JobSettings, make_engine
from app.ports.jobs.tasks import Queue
from tests.ports.jobs import work
from tests.ports.jobs.contract import EngineContract, Make, Working, become, count, put, read, saw, until


class Way:
    """A way to a server, which can be cut off and opened again."""

    def __init__(self, url: str, usual_port: int) -> None:
        self._parts = urlsplit(url)
        self._to = (self._parts.hostname, self._parts.port or usual_port)
        self._port = 0
        self._passing: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        address = self._parts.netloc.rpartition("@")[0]
        return self._parts._replace(netloc=f"{address}{'@' * bool(address)}127.0.0.1:{self._port}").geturl()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        self._server.close()
        for passing in self._passing:
            passing.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._server.is_serving():
            return writer.transport.abort()  # It came in time, and is told of late.
        passing = asyncio.create_task(self._pass_on(reader, writer))
        self._passing.add(passing)
        passing.add_done_callback(self._passing.discard)
        # Also when it was cut off before it began.
        return passing.add_done_callback(lambda _: writer.transport.abort())

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await source.read(65_536):
                    target.write(data)
                    await target.drain()
            target.transport.abort()

        there = None
        try:
            there_reader, there = await asyncio.open_connection(*self._to)
            await asyncio.gather(copy(reader, there), copy(there_reader, writer))
        finally:
            writer.transport.abort()
            if there is not None:
                there.transport.abort()


@asynccontextmanager
async def way_to(url: str, usual_port: int) -> AsyncIterator[Way]:
    way = Way(url, usual_port)
    await way.open()
    yield way
    await way.cut()


class BrokerContract(EngineContract):
    """A class says as well what its engine is called, where its broker is, and how it is emptied."""

    name: str
    variable: str
    port: int

    @pytest.fixture
    def broker(self) -> str:
        raise NotImplementedError

    def point(self, service: FastAPI, url: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Have engines that are made from here on use a broker."""
        monkeypatch.setenv(self.variable, url or "")
        forget()

    async def empty(self, engine: Engine, broker: str) -> None:
        """Take all messages of an engine away, without the engine."""
        raise NotImplementedError

    async def waiting(self, engine: Engine, broker: str) -> int:
        """Count the messages of an engine that wait."""
        raise NotImplementedError

    async def test_a_broker_that_restarts_loses_no_job(
        self, jobs: Database, service: FastAPI, broker: str, working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It goes away while there is much to do, and comes back without a memory."""
        done = "SELECT count(*) FROM jobs WHERE state = 'succeeded'"
        total = 0

        async def put_some(number: int) -> None:
            nonlocal total
            for _ in range(number):
                await put(jobs, work.effect())
            total += number

        async def are_done(number: Callable[[], int]) -> bool:
            return await count(jobs, done) >= number()

        async with way_to(broker, self.port) as way:
            self.point(service, way.url, monkeypatch)
            async with working() as engine:
                await put_some(60)
                await until(lambda: are_done(lambda: 20))
                await way.cut()
                await self.empty(engine, broker)
                await put_some(20)
                await way.open()
                await put_some(20)
                await until(lambda: are_done(lambda: total))
        assert await count(jobs, "SELECT count(*) FROM job_effects") == total
        assert await count(jobs, "SELECT count(DISTINCT job) FROM job_effects") == total

    async def test_what_the_broker_forgets_is_told_again(
        self, jobs: Database, service: FastAPI, broker: str, make: Make, working: Working
    ) -> None:
        serving = make(service, jobs, JobSettings())
        await serving.open(works=False)
        # What was told twice in another test may wait still.
        await self.empty(serving, broker)
        listen(jobs, serving.hand_over)
        id = await put(jobs, work.add(1))

        async def told() -> bool:
            return await self.waiting(serving, broker) == 1

        await until(told)
        ignore(jobs)
        await serving.close()
        await self.empty(serving, broker)
        async with working():
            await become(jobs, id, State.SUCCEEDED)

    async def test_what_is_committed_together_is_told_together(
        self, jobs: Database, service: FastAPI, broker: str, make: Make, working: Working
    ) -> None:
        serving = make(service, jobs, JobSettings())
        await serving.open(works=False)
        await self.empty(serving, broker)
        listen(jobs, serving.hand_over)
        async with jobs.session() as session:
            for number in range(TOGETHER[Queue.DEFAULT] + 1):
                await enqueue(session, work.add(number))
            # These may take long.
            for _ in range(2):
                await enqueue(session, work.block())

        async def told() -> bool:
            return await self.waiting(serving, broker) == 4

        await until(told)
        ignore(jobs)
        await serving.close()
        work.go_on.set()
        async with working():

            async def are_done() -> bool:
                return await count(jobs, "SELECT count(*) FROM jobs WHERE state <> 'succeeded'") == 0

            await until(are_done)
        assert len(work.seen) == TOGETHER[Queue.DEFAULT] + 3

    async def test_what_was_told_together_does_not_wait_for_one_process(
        self, jobs: Database, working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(brokered, "PATIENCE_SECONDS", 0.2)
        async with working(jobs_default_at_once=1):
            async with jobs.session() as session:
                await enqueue(session, work.stay())
                ids = [await enqueue(session, work.add(number)) for number in range(3)]
            await saw("begun 1")
            # All that waits is in its hands by now.
            await asyncio.sleep(1)
            async with working(hears=False, jobs_default_at_once=1):
                for id in ids:
                    await become(jobs, id, State.SUCCEEDED)
                assert "stopped 1" not in work.seen

    async def test_what_waits_is_told_of_less_and_less_often(
        self, jobs: Database, service: FastAPI, make: Make, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = make(service, jobs, JobSettings())
        assert isinstance(engine, BrokeredEngine)
        monkeypatch.setattr(brokered, "OVERDUE", timedelta(seconds=2))
        waits, comes = (Committed(uuid4(), Queue.DEFAULT, clock.now()) for _ in range(2))
        told: dict[int, list[Committed]] = {}
        for second in range(0, 130, 2):
            with monkeypatch.context() as patch:
                patch.setattr("app.ports.jobs.brokered.time.monotonic", lambda second=second: 1000.0 + second)
                told[second] = engine._due_again([waits, comes] if second == 50 else [waits])
        assert [second for second, jobs in told.items() if waits in jobs] == [0, 2, 6, 14, 30, 60, 90, 120]
        assert told[50] == [comes]

    async def test_what_is_told_twice_runs_once(self, jobs: Database, working: Working) -> None:
        async with working(jobs_default_at_once=2) as engine:
            id = await put(jobs, work.add(1))
            told = Committed(id, Queue.DEFAULT, (await read(jobs, id)).run_at)
            engine.hand_over([told, told])
            await become(jobs, id, State.SUCCEEDED)
            for _ in range(2):
                engine.hand_over([told, told])
                await asyncio.sleep(0.2)
            await become(jobs, await put(jobs, work.add(2)), State.SUCCEEDED)
            assert work.seen == ["1+1", "2+1"]
            # Nor has it cost a slot.
            for _ in range(2):
                await put(jobs, work.stay())

            async def both_run() -> bool:
                return work.seen.count("begun 1") == 2

            await until(both_run)

    async def test_without_an_address_jobs_run_here_and_one_warning_says_so(
        self, jobs: Database, service: FastAPI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.point(service, None, monkeypatch)
        engine = make_engine(service, jobs, JobSettings())
        with capture_logs() as logs:
            await engine.open(works=True)
        assert isinstance(getattr(engine, "instead", None), EmbeddedEngine)
        assert [entry["log_level"] for entry in logs] == ["warning"]
        await become(jobs, await put(jobs, work.add(1)), State.SUCCEEDED)
        await engine.close()

    async def test_production_wants_a_broker_or_another_engine(
        self, service: FastAPI, broker: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ENVIRONMENT", "production")
        monkeypatch.setenv("SECRET_KEY", "a secret of these tests alone, and of no service")
        self.point(service, None, monkeypatch)
        with pytest.raises(SettingsError, match=f"{self.name} needs {self.variable}; or set JOBS_ENGINE=embedded"):
            load(JobSettings)
        monkeypatch.setenv("JOBS_ENGINE", "embedded")
        forget()
        assert load(JobSettings).jobs_engine == "embedded"
        monkeypatch.setenv("JOBS_ENGINE", self.name)
        monkeypatch.setenv(self.variable, broker)
        forget()
        assert load(JobSettings).jobs_engine == self.name

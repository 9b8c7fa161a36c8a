"""What every engine has to do. A class of tests for each says how it is made."""

import asyncio
import multiprocessing
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import timedelta
from functools import partial
from multiprocessing.process import BaseProcess
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI
from sqlalchemy import text, update
from sqlmodel import col

from app.kit import clock
from app.ports.db.database import Database
from app.ports.jobs import runner
from app.ports.jobs.engine import Engine
from app.ports.jobs.models import Job, State
from app.ports.jobs.queue import enqueue, ignore, listen
from app.ports.jobs.settings import JobSettings
from app.ports.jobs.store import JobStore
from app.ports.jobs.tasks import Call, Queue
from tests.ports.jobs import work

PATIENCE_SECONDS = 60.0
QUICK = {"jobs_poll_seconds": 0.05, "jobs_drain_seconds": 0.0}
Make = Callable[[FastAPI, Database, JobSettings], Engine]
Working = Callable[..., AbstractAsyncContextManager[Engine]]


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what will come; what does not come ends in a failure, and not in a test that hangs."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def put(jobs: Database, call: Call, **options: Any) -> UUID:
    async with jobs.session() as session:
        return await enqueue(session, call, **options)


async def put_and_fail(jobs: Database, call: Call) -> None:
    async with jobs.session() as session:
        await enqueue(session, call)
        raise ZeroDivisionError


async def read(jobs: Database, id: UUID) -> Job:
    async with jobs.session() as session:
        job = await session.get(Job, id)
    assert job is not None
    return job


async def become(jobs: Database, id: UUID, state: State) -> Job:
    async def has() -> bool:
        return (await read(jobs, id)).state == state

    await until(has)
    return await read(jobs, id)


async def lose(jobs: Database, id: UUID) -> None:
    """Let the lease of a job run out, and let it be seen before its worker renews it."""
    held = (await read(jobs, id)).claim
    mine = (col(Job.id) == id, col(Job.claim) == held)

    async def is_lost() -> bool:
        async with jobs.session() as session:
            await session.exec(update(Job).where(*mine).values(lease_until=clock.now() - timedelta(seconds=1)))
        await JobStore(jobs, timedelta(seconds=60)).sweep(timedelta(1), timedelta(1))
        return (await read(jobs, id)).claim != held

    await until(is_lost)


async def saw(what: str) -> None:
    async def has() -> bool:
        return what in work.seen

    await until(has)


async def count(jobs: Database, statement: str) -> int:
    return int((await jobs.fetch(text(statement)))[0][0])


@contextmanager
def workers(number: int, **settings: str) -> Iterator[list[BaseProcess]]:
    """Run workers in processes of their own: children of one that has imported everything, which takes the longest."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([work.__name__])
    env = os.environ | {"JOBS_POLL_SECONDS": "0.1", "JOBS_LEASE_SECONDS": "2", "LOG_LEVEL": "ERROR"} | settings
    processes = [made.Process(target=work.run_worker, args=(env,), daemon=True) for _ in range(number)]
    try:
        for process in processes:
            process.start()
        yield list(processes)
    finally:
        for process in processes:
            process.kill()
            process.join()


class EngineContract:
    """A class has the fixture `make`, and `environment` for workers in processes of their own."""

    @pytest.fixture
    def working(self, make: Make, service: FastAPI, jobs: Database) -> Working:
        """Run an engine until the block ends."""

        @asynccontextmanager
        async def run(*, hears: bool = True, **settings: Any) -> AsyncIterator[Engine]:
            engine = make(service, jobs, JobSettings(**{**QUICK, **settings}))
            await engine.open(works=True)
            if hears:
                listen(jobs, engine.hand_over)
            try:
                yield engine
            finally:
                ignore(jobs)
                await engine.close()

        return run

    async def test_a_job_runs_and_its_result_is_kept(self, jobs: Database, working: Working) -> None:
        async with working():
            job = await become(jobs, await put(jobs, work.add(2, other=3)), State.SUCCEEDED)
        assert (job.result, job.attempts, job.progress, job.error) == ("5", 1, 1.0, None)
        assert job.finished_at is not None
        # Arguments are kept no longer than they are needed.
        assert job.arguments == "{}"
        assert (job.claim, job.lease_until) == (None, None)

    async def test_what_is_rolled_back_never_runs(self, jobs: Database, working: Working) -> None:
        async with working():
            with pytest.raises(ZeroDivisionError):
                await put_and_fail(jobs, work.add(1))
            async with jobs.session() as session:
                savepoint = await session.begin_nested()
                await enqueue(session, work.add(2))
                await savepoint.rollback()
                last = await enqueue(session, work.add(3))
            await become(jobs, last, State.SUCCEEDED)
            # Whoever took the one that stays would have taken the others before.
            assert work.seen == ["3+1"]
        assert await count(jobs, "SELECT count(*) FROM jobs") == 1

    async def test_what_its_process_did_not_hand_over_runs(self, jobs: Database, working: Working) -> None:
        id = await put(jobs, work.add(1))
        async with working(hears=False):
            await become(jobs, id, State.SUCCEEDED)
            await become(jobs, await put(jobs, work.add(2)), State.SUCCEEDED)

    async def test_a_failure_is_tried_again(self, jobs: Database, working: Working) -> None:
        async with working():
            job = await become(jobs, await put(jobs, work.fail(until=3)), State.SUCCEEDED)
            waited = await become(jobs, await put(jobs, work.wait()), State.SUCCEEDED)
        assert work.seen == ["attempt 1", "attempt 2", "attempt 3"]
        assert (job.result, waited.attempts) == ('"well"', 2)

    async def test_poison_is_dead_in_the_end_and_is_tried_again_by_hand(self, jobs: Database, working: Working) -> None:
        store = JobStore(jobs, timedelta(seconds=60))
        async with working():
            id = await put(jobs, work.fail(), key="poison")
            dead = await become(jobs, id, State.DEAD)
            assert (dead.attempts, dead.error, dead.arguments) == (3, "The task failed.", '{"until":99}')
            assert "ConnectionError" in (dead.traceback or "")
            assert "hunter2" not in (dead.traceback or "")
            # Its key is free again.
            assert await put(jobs, work.add(1), key="poison") != id
            async with jobs.session() as session:
                await session.exec(update(Job).where(col(Job.id) == id).values(arguments='{"until":2}'))
            assert await store.retry(id) == 1
            again = await become(jobs, id, State.SUCCEEDED)
        assert (again.attempts, again.result) == (2, '"well"')
        assert await store.retry(id) == 0

    async def test_giving_up_and_leaving_end_a_job(self, jobs: Database, working: Working) -> None:
        async with working():
            gone = await become(jobs, await put(jobs, work.leave()), State.DEAD)
            assert gone.error == "The task failed."
            given_up = await become(jobs, await put(jobs, work.give_up()), State.DEAD)
        assert (given_up.error, work.seen) == ("The picture is no picture.", ["attempt 1"])

    async def test_what_no_database_can_store_is_no_trouble(self, jobs: Database, working: Working) -> None:
        async with working():
            odd = await become(jobs, await put(jobs, work.odd()), State.DEAD)
            assert "\\0 and \\ud800" in (odd.traceback or "")
            await become(jobs, await put(jobs, work.add(1)), State.SUCCEEDED)

    async def test_what_takes_too_long_is_stopped(self, jobs: Database, working: Working) -> None:
        async with working():
            job = await become(jobs, await put(jobs, work.hang()), State.DEAD)
        assert (job.attempts, job.error) == (2, "It took longer than 0:00:00.200000.")
        assert work.seen == ["attempt 1", "attempt 2"]

    async def test_sync_tasks_do_not_block_the_others(self, jobs: Database, working: Working) -> None:
        async with working():
            blocked = await put(jobs, work.block())
            await saw("task")  # A thread of its own.
            await become(jobs, await put(jobs, work.add(1)), State.SUCCEEDED)
            assert (await read(jobs, blocked)).state == State.RUNNING
            work.go_on.set()
            assert (await become(jobs, blocked, State.SUCCEEDED)).result == '"went on"'

    async def test_a_thread_that_goes_on_keeps_its_slot(
        self, jobs: Database, working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "RENEW_SECONDS", 0.05)
        async with working(jobs_heavy_at_once=1):
            job = await become(jobs, await put(jobs, work.block_long()), State.DEAD)
            assert "longer" in (job.error or "")
            await asyncio.sleep(0.2)  # Leases are renewed meanwhile.
            next_one = await put(jobs, work.block())
            await become(jobs, await put(jobs, work.add(1)), State.SUCCEEDED)
            assert "task" not in work.seen
            work.go_on.set()
            await become(jobs, next_one, State.SUCCEEDED)

    async def test_what_takes_longer_than_a_lease_keeps_its_slot(self, jobs: Database, working: Working) -> None:
        async with working(jobs_heavy_at_once=1, jobs_lease_seconds=1):
            ids = [await put(jobs, work.block()) for _ in range(2)]
            await saw("task")
            # A broker's own patience has an end meanwhile.
            await asyncio.sleep(2.5)
            assert work.seen == ["task"]
            work.go_on.set()
            for id in ids:
                await become(jobs, id, State.SUCCEEDED)
        assert work.seen == ["task", "task"]

    async def test_no_more_run_at_once_than_there_are_slots(self, jobs: Database, working: Working) -> None:
        work.crowds[:] = [0]
        async with working(jobs_default_at_once=3):
            for _ in range(3):
                async with jobs.session() as session:
                    ids = [await enqueue(session, work.crowd()) for _ in range(12)]
                for id in ids:
                    await become(jobs, id, State.SUCCEEDED)
        assert max(work.crowds) == 3

    async def test_a_task_that_has_moved_to_another_queue_leaves_no_slot_taken(
        self, jobs: Database, working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        work.crowds[:] = [0]
        async with jobs.session() as session:
            ids = [await enqueue(session, work.crowd()) for _ in range(12)]
        monkeypatch.setattr(work.crowd, "queue", Queue.HEAVY)
        async with working(jobs_default_at_once=3):
            ids.append(await put(jobs, work.add(1)))
            for id in ids:
                await become(jobs, id, State.SUCCEEDED)
        assert max(work.crowds) == 3

    async def test_there_is_one_job_with_a_key_at_a_time(self, jobs: Database, working: Working) -> None:
        first = await put(jobs, work.add(1), key="sum", delay=timedelta(hours=1))
        assert await put(jobs, work.add(2), key="sum") == first
        # What another task calls so is another matter.
        assert await put(jobs, work.wait(), key="sum", delay=timedelta(hours=1)) != first
        ids = await asyncio.gather(*(put(jobs, work.add(3), key="another") for _ in range(8)))
        assert len(set(ids)) == 1
        async with working():
            due = (await read(jobs, ids[0])).run_at
            assert (await become(jobs, ids[0], State.SUCCEEDED)).run_at == due
            assert await put(jobs, work.add(4), key="another") != ids[0]
            assert (await read(jobs, first)).state == State.QUEUED

    async def test_who_is_later_with_a_key_gets_the_first_job(self, jobs: Database, working: Working) -> None:
        async with jobs.session() as session:
            first = await enqueue(session, work.add(1), key="sum")
            # On a server it finds no row yet, and then waits for this transaction.
            second = asyncio.create_task(put(jobs, work.add(2), key="sum"))
            await asyncio.sleep(0.3)
        assert await second == first
        async with working():
            await become(jobs, first, State.SUCCEEDED)

    async def test_what_is_delayed_runs_later(self, jobs: Database, working: Working) -> None:
        async with working():
            later = await put(jobs, work.add(1), delay=timedelta(seconds=0.5))
            await become(jobs, await put(jobs, work.add(2)), State.SUCCEEDED)
            await become(jobs, later, State.SUCCEEDED)
        assert work.seen == ["2+1", "1+1"]

    async def test_an_end_and_an_effect_come_together(self, jobs: Database, working: Working) -> None:
        async with working():
            job = await become(jobs, await put(jobs, work.once()), State.SUCCEEDED)
            await become(jobs, await put(jobs, work.add(1)), State.SUCCEEDED)
        assert (job.result, job.attempts) == ('"done"', 1)
        assert await count(jobs, "SELECT count(*) FROM job_effects") == 1

    async def test_a_late_worker_ends_nothing(
        self, jobs: Database, working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The lease of the first worker has run out, without it noticing; then it goes on."""
        monkeypatch.setattr(runner, "RENEW_SECONDS", 600)
        async with working(jobs_lease_seconds=3600):
            id = await put(jobs, work.late())
            await saw("begun 1")
            await lose(jobs, id)
            await become(jobs, id, State.SUCCEEDED)
            work.go_on.set()
            await saw("superseded 1")
        assert (await read(jobs, id)).attempts == 2
        assert [row[0] for row in await jobs.fetch(text("SELECT job FROM job_effects"))] == [f"{id} 2"]

    async def test_a_worker_that_has_lost_a_job_stops(
        self, jobs: Database, working: Working, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runner, "RENEW_SECONDS", 0.05)
        async with working():
            id = await put(jobs, work.stay())

            async def half_way() -> bool:
                return (await read(jobs, id)).progress == 0.5

            await until(half_way)
            assert (await read(jobs, id)).note == "half way"
            await lose(jobs, id)
            await saw("stopped 1")
            await saw("begun 2")

    async def test_what_a_process_leaves_unfinished_goes_back(self, jobs: Database, working: Working) -> None:
        async with working():
            id = await put(jobs, work.stay())
            await saw("begun 1")
        job = await read(jobs, id)
        assert (job.state, job.attempts, job.claim, job.error) == (State.QUEUED, 0, None, "The process stopped.")
        async with working():
            await saw("begun 1")

    async def test_two_engines_take_each_job_once(self, jobs: Database, working: Working) -> None:
        async with working(hears=False), working(hears=False):
            ids = [await put(jobs, work.add(number, other=0)) for number in range(40)]
            for id in ids:
                await become(jobs, id, State.SUCCEEDED)
        assert sorted(work.seen) == sorted(f"{number}+0" for number in range(40))

    async def test_nothing_is_lost_when_workers_are_killed(self, jobs: Database, environment: dict[str, str]) -> None:
        """Three workers, of which two are killed at a random moment one after the other, and no hand-over at all."""
        total, chance = 200, random.Random(7)
        done = "SELECT count(*) FROM jobs WHERE state = 'succeeded'"

        async def are_done(number: int) -> bool:
            return await count(jobs, done) >= number

        with workers(3, **environment) as (*doomed, last):
            async with jobs.session() as session:
                for number in range(total):
                    await enqueue(session, work.effect() if number % 5 else work.effect_in_thread())
            for one, threshold in zip(doomed, (20, 100), strict=True):
                await until(partial(are_done, threshold))
                await asyncio.sleep(chance.uniform(0, 0.1))
                one.kill()
            await until(partial(are_done, total))
            last.terminate()
            await asyncio.to_thread(last.join, 20)
            assert [one.exitcode for one in doomed] == [-signal.SIGKILL, -signal.SIGKILL]
            assert last.exitcode == 0
        assert await count(jobs, "SELECT count(*) FROM job_effects") == total - total // 5
        assert await count(jobs, "SELECT count(DISTINCT job) FROM job_effects") == total - total // 5

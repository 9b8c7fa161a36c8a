"""What jobs are, whatever brings them to their workers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import update
from sqlalchemy.exc import DBAPIError
from typer.testing import CliRunner

from app import main
from app.installed import MODULES
from app.kit import clock
from app.kit.module import Module
from app.kit.settings import SettingsError, forget, load
from app.ports.db.database import Database
from app.ports.jobs.commands import commands
from app.ports.jobs.models import Job, JobSchedule, State
from app.ports.jobs.module import JobsLate, check
from app.ports.jobs.runner import CameTo, Runner
from app.ports.jobs.schedule import Schedule, spelled
from app.ports.jobs.settings import JobSettings
from app.ports.jobs.store import Claimed, JobStore, Outcome
from app.ports.jobs.tasks import TASKS, Call, GiveUp, Queue, Running, Task, WrongArguments, run_here, task
from tests.ports.jobs import work
from tests.ports.jobs.contract import become, count, put, read, saw, until, workers

LEASE = timedelta(seconds=60)
BERLIN = "Europe/Berlin"


async def test_a_module_that_would_open_behind_jobs_is_named(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise AssertionError
        yield

    late = [Module(name="late", lifespan=lifespan), Module(name="bare")]
    monkeypatch.setattr(main, "MODULES", (*MODULES, *late))
    forget()
    with pytest.raises(SettingsError, match=r"^MODULES, .*put `jobs` last; jobs may need late open\.$"):
        async with main.lifespan(main.create_app()):
            raise AssertionError


def test_arguments_are_checked_when_a_task_is_called() -> None:
    assert work.add("2", other=3).arguments == '{"one":2,"other":3}'  # type: ignore[arg-type]
    refused: list[Callable[[], Call]] = [
        lambda: work.add(1, 2, 3),  # type: ignore[call-arg]
        lambda: work.add(1, another=2),  # type: ignore[call-arg]
        lambda: work.add("hunter2"),  # type: ignore[arg-type]
    ]
    for call in refused:
        with pytest.raises(WrongArguments, match=r"^test.add: ") as caught:
            call()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("given", [float("nan"), float("inf"), SecretStr("hunter2"), "\ud800", (1, 2), [clock.now()]])
def test_arguments_that_a_worker_would_read_otherwise_are_refused(given: object) -> None:
    @task(name="test.any")
    async def any_of(job: Running, what: Any, secret: SecretStr | None = None, number: float = 0) -> None: ...

    try:
        kept: dict[str, Any] = {"what": [1, "a", None, {"b": [0.5]}], "number": 1.5}
        assert json.loads(any_of(**kept).arguments) == {**kept, "secret": None}
        name = {float: "number", SecretStr: "secret"}.get(type(given), "what")
        wrong: dict[str, Any] = {"what": 1} | {name: given}
        with pytest.raises(WrongArguments, match=r"^test.any: ") as caught:
            any_of(**wrong)
        assert "hunter2" not in str(caught.value)
    finally:
        del TASKS["test.any"]


async def test_a_task_runs_here_and_now_for_a_test(service: FastAPI, jobs: Database) -> None:
    assert await run_here(service, work.add(2, other=3)) == 5
    with pytest.raises(GiveUp, match="no picture"):
        await run_here(service, work.give_up())
    assert await run_here(service, work.effect()) is None
    assert await count(jobs, "SELECT count(*) FROM job_effects") == 1
    assert await count(jobs, "SELECT count(*) FROM jobs") == 0


def test_arguments_that_belong_elsewhere_are_refused() -> None:
    @task(name="test.large")
    async def large(job: Running, text: str) -> None: ...

    try:
        with pytest.raises(WrongArguments, match="more than 64 KiB; store them"):
            large("x" * 70_000)
    finally:
        del TASKS["test.large"]


def test_a_task_that_cannot_work_is_refused_where_it_is_made() -> None:
    async def untyped(job: Running, what: int) -> None: ...

    del untyped.__annotations__["what"]

    async def many(job: Running, *what: int) -> None: ...

    async def needy(job: Running, what: int) -> None: ...

    async def good(job: Running) -> None: ...

    refused: list[tuple[Callable[[], object], str]] = [
        (lambda: task()(untyped), "what has no type"),
        (lambda: task()(many), "takes no \\*args"),
        (lambda: task(cron="0 3 * * *")(needy), "nobody gives a cron what"),
        (lambda: task(cron="every day")(good), "'every day' is no cron expression"),
        (lambda: task(cron="0 0 30 2 *")(good), "is no cron expression"),
        (lambda: task(cron="0 3 * * *", zone="Berlin")(good), "'Berlin' is no time zone; one looks like"),
        (lambda: task(attempts=0)(good), "attempts counts the first one"),
        (lambda: task(name="test.add")(good), "there is such a task already"),
    ]
    for make, sentence in refused:
        with pytest.raises(TypeError, match=sentence):
            make()


def test_a_cron_keeps_to_the_clocks_of_its_zone() -> None:
    async def nightly(job: Running) -> None: ...

    made = task(name="test.nightly", cron="30 2 * * *", zone=BERLIN)(nightly)
    del TASKS["test.nightly"]
    # In summer, in winter, and in the night without half past two, which is made up for.
    for now, due in (
        (datetime(2026, 7, 1, 12, tzinfo=UTC), datetime(2026, 7, 2, 0, 30, tzinfo=UTC)),
        (datetime(2026, 1, 1, 12, tzinfo=UTC), datetime(2026, 1, 2, 1, 30, tzinfo=UTC)),
        (datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 3, 29, 1, 0, tzinfo=UTC)),
        (datetime(2026, 10, 24, 12, tzinfo=UTC), datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), datetime(2026, 10, 26, 1, 30, tzinfo=UTC)),
    ):
        assert made.next_after(now) == due


async def test_a_cron_comes_once_however_many_processes_there_are(jobs: Database) -> None:
    schedules = [Schedule(jobs) for _ in range(4)]
    made = "SELECT count(*) FROM jobs WHERE task = 'test.tick'"
    for year, expected in ((2026, 0), (2027, 1), (2027, 1), (2028, 2), (2040, 3), (2040, 3)):
        now = datetime(year, 5, 1, tzinfo=UTC)
        soonest = await asyncio.gather(*(schedule.tick(now) for schedule in schedules))
        assert set(soonest) == {datetime(year + 1, 1, 1, tzinfo=UTC)}
        # What was missed in between is made up for once.
        assert await count(jobs, made) == expected
    assert await count(jobs, "SELECT count(*) FROM job_schedules") == 1


async def test_a_cron_that_was_changed_begins_anew(jobs: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await Schedule(jobs).tick(datetime(2026, 5, 1, tzinfo=UTC))
    monkeypatch.setattr(work.tick, "cron", "0 0 1 6 *")
    later = datetime(2027, 5, 1, tzinfo=UTC)
    assert await Schedule(jobs).tick(later) == datetime(2027, 6, 1, tzinfo=UTC)
    assert await count(jobs, "SELECT count(*) FROM jobs") == 0


async def test_a_cron_of_two_versions_comes_when_either_of_them_has_it(
    jobs: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, now = Schedule(jobs), datetime(2026, 5, 1, 11, 58, tzinfo=UTC)
    came: list[str] = []
    for number in range(620):
        monkeypatch.setattr(work.tick, "cron", ("0 12 * * *", "0 13 * * *")[number % 2])
        now += timedelta(seconds=7.3)
        await schedule.tick(now)
        if await count(jobs, "SELECT count(*) FROM jobs") > len(came):
            came.append(f"{now:%H:%M}")
    assert came == ["12:00", "13:00"]


async def test_two_workers_let_a_cron_come_once_a_tick(jobs: Database) -> None:
    due = "SELECT count(*) FROM job_schedules WHERE next_at < '2020-01-01'"
    async with jobs.session() as session:
        session.add(JobSchedule(task="test.tick", cron=spelled(work.tick), next_at=datetime(2019, 1, 1, tzinfo=UTC)))
    with workers(2, JOBS_ENGINE="embedded"):
        for tick in (1, 2, 3):

            async def done(tick: int = tick) -> bool:
                return await count(jobs, "SELECT count(*) FROM jobs WHERE state = 'succeeded'") >= tick

            await until(done)
            assert await count(jobs, due) == 0
            async with jobs.session() as session:
                await session.exec(update(JobSchedule).values(next_at=datetime(2019, 1, tick + 1, tzinfo=UTC)))
        await until(lambda: done(4))
    assert await count(jobs, "SELECT count(*) FROM jobs") == 4


def outcome(job: Claimed, state: State) -> Outcome:
    return Outcome(job=job, state=state, result="1")


async def test_only_who_holds_a_job_ends_it(jobs: Database) -> None:
    store = JobStore(jobs, LEASE)
    id = await put(jobs, work.add(1))
    [first] = await store.claim(Queue.DEFAULT, 5)
    assert await store.claim(Queue.DEFAULT, 5) == []
    assert await store.claim_these([id]) == []
    assert await store.renew([first.claim]) == {(id, first.claim)}
    async with jobs.session() as session:
        await session.exec(update(Job).values(lease_until=clock.now() - LEASE))
    await store.sweep(LEASE, LEASE)
    [second] = await store.claim_these([id])
    assert await store.renew([first.claim]) == set()
    await store.end([outcome(first, State.SUCCEEDED), outcome(first, State.DEAD)])
    assert (await read(jobs, id)).state == State.RUNNING
    async with jobs.session() as session:
        assert not await store.end_in(session, outcome(first, State.SUCCEEDED))
        assert await store.end_in(session, outcome(second, State.SUCCEEDED))
        assert not await store.end_in(session, outcome(second, State.SUCCEEDED))


async def test_what_kills_its_workers_is_dead_in_the_end(jobs: Database) -> None:
    store = JobStore(jobs, -LEASE)
    id = await put(jobs, work.fail())
    for attempt in (1, 2, 3):
        [claimed] = await store.claim_these([id])
        assert claimed.attempt == attempt
        back, dead = await store.sweep(LEASE, LEASE)
        assert (len(back), dead) == ((1, []) if attempt < 3 else (0, [f"test.fail {id}"]))
    job = await read(jobs, id)
    assert (job.state, job.error) == (State.DEAD, "The worker was lost.")


async def test_what_a_newer_version_has_enqueued_is_left_to_it(jobs: Database) -> None:
    store = JobStore(jobs, LEASE)
    id = await put(jobs, work.add(1))
    async with jobs.session() as session:
        await session.exec(update(Job).values(task="test.of_tomorrow"))
    assert await store.due() == {}
    assert await store.claim(Queue.DEFAULT, 5) == []
    assert await store.claim_these([id]) == []


async def test_what_is_old_is_forgotten(jobs: Database) -> None:
    store = JobStore(jobs, LEASE)
    ids = [await put(jobs, work.add(1)) for _ in range(3)]
    claimed = await store.claim(Queue.DEFAULT, 3)
    await store.end([outcome(one, state) for one, state in zip(claimed, (State.SUCCEEDED, State.DEAD, State.QUEUED))])  # noqa: B905
    await store.sweep(timedelta(days=7), timedelta(days=90))
    assert await count(jobs, "SELECT count(*) FROM jobs") == 3
    await store.sweep(-LEASE, timedelta(days=90))
    assert await count(jobs, "SELECT count(*) FROM jobs") == 2
    await store.sweep(-LEASE, -LEASE)
    assert await count(jobs, "SELECT count(*) FROM jobs WHERE state = 'queued'") == 1
    assert len(ids) == 3


async def test_pauses_grow_and_differ(service: FastAPI, jobs: Database) -> None:
    runner = Runner(service, JobStore(jobs, LEASE), JobSettings(), on_room=lambda _: None)

    def pause(attempt: int) -> float:
        job = Claimed(uuid4(), work.fail, Queue.DEFAULT, "{}", None, attempt, 99, uuid4())
        failed = runner._failed(job, OSError(), timed_out=False)
        assert failed.run_at
        return (failed.run_at - clock.now()).total_seconds()

    backoff, work.fail.backoff = work.fail.backoff, timedelta(seconds=10)
    try:
        for attempt, least, most in ((1, 5, 10), (2, 10, 20), (4, 40, 80), (60, 1800, 3600)):
            found = [pause(attempt) for _ in range(20)]
            assert least - 1 < min(found) < max(found) <= most
            assert len(set(found)) > 10
    finally:
        work.fail.backoff = backoff


async def test_an_outcome_that_cannot_be_stored_keeps_no_other(
    service: FastAPI, jobs: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [await put(jobs, work.add(number)) for number in (1, 2)]
    store = JobStore(jobs, LEASE)
    write, poisoned = Outcome.parameters, ids[0]

    def parameters(self: Outcome) -> dict[str, object]:
        return write(self) | ({"new_result": object()} if self.job.id == poisoned else {})

    monkeypatch.setattr(Outcome, "parameters", parameters)
    runner = Runner(service, store, JobSettings(), on_room=lambda _: None)
    runner.open()
    runner.start(await store.claim(Queue.DEFAULT, 2))

    async def ended() -> bool:
        return not runner._runs

    await until(ended)
    await runner.close()
    # The lease of the first one runs out.
    assert [(await read(jobs, id)).state for id in ids] == [State.RUNNING, State.SUCCEEDED]


async def test_an_outcome_waits_for_a_server_that_takes_it(
    service: FastAPI, jobs: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnStandby(Exception):
        sqlstate = "25006"

    id, store, refusals = await put(jobs, work.add(1)), JobStore(jobs, LEASE), [1, 2]
    write = store.end

    async def end(outcomes: Sequence[Outcome]) -> None:
        if refusals:
            raise DBAPIError("UPDATE", {}, OnStandby(refusals.pop()))
        await write(outcomes)

    monkeypatch.setattr(store, "end", end)
    monkeypatch.setattr("app.ports.jobs.runner.AGAIN_SECONDS", 0.01)
    runner = Runner(service, store, JobSettings(), on_room=lambda _: None)
    runner.open()
    runner.start(await store.claim(Queue.DEFAULT, 1))
    assert (await become(jobs, id, State.SUCCEEDED)).result == "2"
    assert not refusals
    await runner.close()


async def test_observers_hear_what_attempts_come_to_and_harm_none(service: FastAPI, jobs: Database) -> None:
    heard: list[tuple[str, str]] = []

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    def note(task: Task[Any], came_to: CameTo, seconds: float) -> None:
        assert 0 <= seconds < 60
        heard.append((task.name, came_to))

    service.state.job_observers = [fail, note]
    store = JobStore(jobs, LEASE)
    runner = Runner(service, store, JobSettings(jobs_drain_seconds=0), on_room=lambda _: None)
    runner.open()

    async def start(call: Call) -> "list[asyncio.Task[None]]":
        return runner.start(await store.claim_these([await put(jobs, call)]))

    for call in (work.add(1), work.once(), work.give_up(), work.wait()):
        await asyncio.gather(*await start(call))
    await start(work.stay())
    await saw("begun 1")
    await runner.close()
    assert heard == [
        ("test.add", "succeeded"),
        # It has ended by itself, whatever came after that.
        ("test.once", "succeeded"),
        ("test.give_up", "dead"),
        ("test.wait", "failed"),
        ("test.stay", "stopped"),
    ]


async def test_health_tells_of_jobs_that_nobody_runs(service: FastAPI, jobs: Database) -> None:
    assert await check(service) == "0 due, 0 running, 0 dead"
    await put(jobs, work.add(1), delay=timedelta(hours=1))
    assert await check(service) == "0 due, 0 running, 0 dead"
    async with jobs.session() as session:
        dead = Job(task="work.add", queue="default", arguments="{}", most_attempts=1, state=State.DEAD)
        session.add(dead)
    assert await check(service) == "0 due, 0 running, 1 dead; see `app jobs list --state dead`"
    async with jobs.session() as session:
        await session.delete(await session.get_one(Job, dead.id))
    await put(jobs, work.add(1), at=clock.now() - timedelta(minutes=9))
    with pytest.raises(JobsLate, match="1 due, 0 running, 0 dead; the oldest waits since 2"):
        await check(service)


async def test_jobs_whose_task_is_gone_are_told_apart_from_late_ones_and_can_be_removed(
    service: FastAPI, jobs: Database
) -> None:
    long_ago = clock.now() - timedelta(hours=1)
    values: dict[str, Any] = {"queue": "default", "arguments": "{}", "most_attempts": 1, "run_at": long_ago}
    async with jobs.session() as session:
        session.add_all([Job(task="shop.removed", **values) for _ in range(2)])
        running = Job(task="shop.removed", state=State.RUNNING, **values)
        session.add(running)
    told = await check(service)
    assert told.startswith("0 due, 1 running, 0 dead; others wait for a version with their tasks (shop.removed: 2): ")
    late = await put(jobs, work.add(1), at=long_ago)
    with pytest.raises(JobsLate, match=r"1 due.*shop\.removed: 2.*the oldest waits"):
        await check(service)
    await JobStore(jobs, LEASE).drop(late)
    store = JobStore(jobs, LEASE)
    assert await store.overdue(clock.now(), 9) == []
    known = await put(jobs, work.add(1))

    async def drop(*arguments: str, answer: str = "") -> tuple[int, str]:
        done = await asyncio.to_thread(CliRunner().invoke, commands, ["drop", *arguments], answer)
        return done.exit_code, done.output

    assert (
        (await drop())[1]
        == (await drop(str(known), "--task", "test.add"))[1]
        == ("Name a job, or a task with --task.\n")
    )
    assert (await drop("--task", "shop.removed", answer="n\n"))[0] == 1
    assert await count(jobs, "SELECT count(*) FROM jobs") == 4
    status, output = await drop("--task", "shop.removed", answer="y\n")
    assert (status, output.endswith("2 removed.\n")) == (0, True)
    for id in (running.id, UUID(int=1)):
        how = "This job is running." if id == running.id else "There is no such job."
        assert await drop(str(id), "--yes") == (1, f"{how}\n")
    assert (await drop("--task", "shop.removed", "--yes"))[1] == "There is no such job that is queued or dead.\n"
    assert await drop(str(known), "--yes") == (0, "1 removed.\n")
    assert await check(service) == "0 due, 1 running, 0 dead"


async def test_a_time_without_a_zone_is_refused(jobs: Database) -> None:
    with pytest.raises(ValueError, match="`at` which a job runs needs its time zone"):
        await put(jobs, work.add(1), at=datetime(2030, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("key", ["x" * 201, "\0", "\ud800"])
async def test_a_key_that_cannot_be_stored_is_refused(jobs: Database, key: str) -> None:
    with pytest.raises(ValueError, match="200 characters"):
        await put(jobs, work.add(1), key=key)


def test_an_engine_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_ENGINE", "cron")
    forget()
    with pytest.raises(SettingsError, match="JOBS_ENGINE: is none of embedded"):
        load(JobSettings)
    monkeypatch.undo()
    forget()


async def test_commands_list_show_and_retry(jobs: Database) -> None:
    store = JobStore(jobs, LEASE)
    id = await put(jobs, work.add(4711_0815_4711))
    [claimed] = await store.claim(Queue.DEFAULT, 1)
    failed = Outcome(job=claimed, state=State.DEAD, error="The task failed.", traceback="Traceback: of the task")
    await store.end([failed])

    async def run(*arguments: str) -> tuple[int, str]:
        done = await asyncio.to_thread(CliRunner().invoke, commands, arguments)
        return done.exit_code, done.output

    status, output = await run("list", "--state", "dead")
    assert (status, str(id) in output, "test.add" in output) == (0, True, True)
    assert str(id) not in (await run("list", "--state", "running"))[1]
    status, output = await run("show", str(id))
    assert (status, "Traceback: of the task" in output, "471108154711" in output) == (0, True, False)
    assert (await run("show", str(UUID(int=1)))) == (1, "There is no such job.\n")
    assert (await run("retry"))[1] == "Name a job, or say --all.\n"
    assert (await run("retry", str(id))) == (0, "1 queued again.\n")
    assert (await run("retry", str(id))) == (1, "This job is queued.\n")
    assert (await run("retry", str(UUID(int=1)))) == (1, "There is no such job.\n")
    assert (await run("retry", "--all")) == (0, "0 queued again.\n")

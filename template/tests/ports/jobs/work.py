"""Tasks for the tests, and a worker that knows them."""

import asyncio
import os
import sys
import threading
import time
from datetime import timedelta

from sqlalchemy import text

from app.cli import main
from app.installed import MODULES
from app.ports.jobs.tasks import TASKS, GiveUp, Queue, Retry, Running, Superseded, task

AT_ONCE = timedelta(0)
EFFECT = text("INSERT INTO job_effects (job) VALUES (:job)")
# What tasks of this process have seen.
seen: list[str] = []
# How many of one task ran at once, one after the other.
crowds = [0]
go_on = threading.Event()
# Their tasks are known from here on.
assert MODULES


@task(name="test.add", backoff=AT_ONCE)
async def add(job: Running, one: int, other: int = 1) -> int:
    seen.append(f"{one}+{other}")
    return one + other


@task(name="test.crowd", backoff=AT_ONCE)
async def crowd(job: Running) -> None:
    crowds.append(crowds[-1] + 1)
    await asyncio.sleep(0.01)
    crowds.append(crowds[-1] - 1)


@task(name="test.fail", attempts=3, backoff=AT_ONCE)
async def fail(job: Running, until: int = 99) -> str:
    seen.append(f"attempt {job.attempt}")
    if job.attempt < until:
        raise ConnectionError("password=hunter2 is refused")
    return "well"


@task(name="test.give_up", backoff=AT_ONCE)
async def give_up(job: Running) -> None:
    seen.append(f"attempt {job.attempt}")
    raise GiveUp("The picture is no picture.")


@task(name="test.odd", attempts=1)
async def odd(job: Running) -> None:
    job.report(7, "no\0te \ud800" * 100)
    raise ValueError("\0 and \ud800")


@task(name="test.wait", backoff=AT_ONCE)
async def wait(job: Running) -> None:
    if job.attempt == 1:
        raise Retry("The provider asks for patience.", after=timedelta(seconds=0.1))


@task(name="test.leave", attempts=1)
async def leave(job: Running) -> None:
    sys.exit(3)


@task(name="test.hang", attempts=2, backoff=AT_ONCE, timeout=timedelta(seconds=0.2))
async def hang(job: Running) -> None:
    seen.append(f"attempt {job.attempt}")
    await asyncio.sleep(60)


@task(name="test.stay", timeout=timedelta(minutes=1))
async def stay(job: Running) -> None:
    seen.append(f"begun {job.attempt}")
    job.report(0.5, "half way")
    try:
        await asyncio.sleep(60)
    finally:
        seen.append(f"stopped {job.attempt}")


@task(name="test.block", queue=Queue.HEAVY)
def block(job: Running) -> str:
    job.report(0.25)
    seen.append(threading.current_thread().name)
    assert go_on.wait(20)
    return "went on"


@task(name="test.block_long", queue=Queue.HEAVY, attempts=1, timeout=timedelta(seconds=0.1))
def block_long(job: Running) -> None:
    assert go_on.wait(20)


@task(name="test.once", attempts=3, backoff=AT_ONCE)
async def once(job: Running) -> str:
    async with job.ending("done") as session:
        await (await session.connection()).execute(EFFECT, {"job": str(job.id)})
    if job.attempt == 1:
        raise RuntimeError("after the end")
    return "a second time"


@task(name="test.late", attempts=3, backoff=AT_ONCE)
async def late(job: Running) -> None:
    seen.append(f"begun {job.attempt}")
    while job.attempt == 1 and not go_on.is_set():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    try:
        async with job.ending() as session:
            await (await session.connection()).execute(EFFECT, {"job": f"{job.id} {job.attempt}"})
    except Superseded:
        seen.append(f"superseded {job.attempt}")
        raise


@task(name="test.effect", attempts=100, backoff=AT_ONCE)
async def effect(job: Running) -> None:
    await asyncio.sleep(0.02)
    async with job.ending() as session:
        await (await session.connection()).execute(EFFECT, {"job": str(job.id)})


@task(name="test.effect_in_thread", attempts=100, backoff=AT_ONCE, queue=Queue.LLM)
def effect_in_thread(job: Running) -> None:
    time.sleep(0.02)


@task(name="test.tick", cron="0 0 1 1 *")
async def tick(job: Running) -> None:
    seen.append("tick")


def others() -> list[str]:
    """List the tasks that the service itself has at set times, which have no part in these tests."""
    return [name for name, one in TASKS.items() if one.cron and not name.startswith("test.")]


def run_worker(env: dict[str, str]) -> None:
    """Do what `app worker` does, in a process of its own."""
    os.environ.clear()
    os.environ.update(env)
    for name in others():
        del TASKS[name]
    sys.argv = ["app", "worker"]
    main()

"""What runs inside a service: `python service.py worker`, and `python service.py web JOBS SEED`, which kills itself.

A web process enqueues what is left of the jobs, some in each transaction. At a random commit it ends itself by SIGKILL
before the engine hears of what was committed; so it does when its parent has said so, and the next one goes on.
"""

import asyncio
import os
import random
import signal
import sys
from datetime import timedelta

sys.path.insert(0, ".")
from app.cli import main as cli  # type: ignore[import-not-found, unused-ignore]
from app.main import create_app, lifespan  # type: ignore[import-not-found, unused-ignore]
from app.ports.jobs import queue as jobs_queue  # type: ignore[import-not-found, unused-ignore]
from app.ports.jobs.queue import enqueue  # type: ignore[import-not-found, unused-ignore]
from app.ports.jobs.tasks import TASKS, Queue, Running, task  # type: ignore[import-not-found, unused-ignore]
from sqlalchemy import text  # type: ignore[import-not-found, unused-ignore]

EFFECT = text("INSERT INTO chaos_effects (number) VALUES (:number)")
COUNT = text("SELECT count(*) FROM jobs")
AT_ONCE = timedelta(0)
# What the service itself has at set times would be counted as well.
TASKS.clear()


async def _effect(job: Running, number: int) -> None:
    await asyncio.sleep(random.uniform(0, 0.03))  # noqa: S311
    if number % 10 == 3 and job.attempt == 1:
        raise ConnectionError("the first attempt fails")
    async with job.ending() as session:
        await (await session.connection()).execute(EFFECT, {"number": number})


@task(name="chaos.default", attempts=1000, backoff=AT_ONCE)  # type: ignore[untyped-decorator, unused-ignore]
async def default(job: Running, number: int) -> None:
    """Have an effect."""
    await _effect(job, number)


@task(name="chaos.heavy", attempts=1000, backoff=AT_ONCE, queue=Queue.HEAVY)  # type: ignore[untyped-decorator, unused-ignore]
async def heavy(job: Running, number: int) -> None:
    """Have an effect, in another queue."""
    await _effect(job, number)


@task(name="chaos.poison", attempts=3, backoff=AT_ONCE)  # type: ignore[untyped-decorator, unused-ignore]
async def poison(job: Running, number: int) -> None:
    """Fail for good, in a transaction that would have an effect."""
    async with job.ending() as session:
        await (await session.connection()).execute(EFFECT, {"number": number})
        raise ValueError("poison")


def call(number: int) -> object:
    """Return one job of a hundred that is poison, and one of ten that is heavy."""
    chosen = poison if number % 100 == 99 else heavy if number % 10 == 5 else default
    return chosen(number)


async def web(jobs: int, seed: int) -> None:
    """Enqueue what is left."""
    chance = random.Random(seed)  # noqa: S311
    app = create_app()
    app.state.works = False
    commits_left = chance.randint(3, max(4, jobs // 25)) if seed else -1
    async with lifespan(app):
        database = app.state.database
        engine = database.engine.sync_engine
        hand_over = jobs_queue._engines[engine]  # noqa: SLF001

        def hear(committed: object) -> None:
            nonlocal commits_left
            commits_left -= 1
            if commits_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            hand_over(committed)

        jobs_queue.listen(database, hear)
        # Workers delete no row while this runs, so the rows say what has been committed.
        number = (await database.fetch(COUNT))[0][0]
        while number < jobs:
            async with database.session() as session:
                for _ in range(min(chance.randint(1, 10), jobs - number)):
                    await enqueue(session, call(number))
                    number += 1
            await asyncio.sleep(0)


if __name__ == "__main__":
    if sys.argv[1] == "web":
        asyncio.run(web(int(sys.argv[2]), int(sys.argv[3])))
    else:
        sys.argv = ["app", "worker"]
        cli()

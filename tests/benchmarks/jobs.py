"""Say how many milliseconds a job takes to be enqueued, and to be enqueued and run: `python jobs.py`.

`python jobs.py works` says the second alone.
The first is a row, its commit and the hand-over, by sixteen callers at once in a process that runs no jobs. The second
goes through a task that does nothing, in another process that has the slots which are the default; or in the same one,
where nothing but the database brings jobs.
"""

import asyncio
import os
import statistics
import sys
import time
from multiprocessing import get_context
from typing import Any

sys.path.insert(0, ".")
from app.kit.logging import LogSettings, configure_logging  # type: ignore[import-not-found, unused-ignore]
from app.main import create_app, lifespan  # type: ignore[import-not-found, unused-ignore]
from app.ports.jobs.queue import enqueue  # type: ignore[import-not-found, unused-ignore]
from app.ports.jobs.tasks import Running, task  # type: ignore[import-not-found, unused-ignore]
from sqlalchemy import text  # type: ignore[import-not-found, unused-ignore]

CALLERS = 16
LEFT = text("SELECT count(*) FROM jobs WHERE state <> 'succeeded'")
# How many have run, in whichever process; the database is asked only at the end.
ran: Any = None


@task(name="bench.nothing")  # type: ignore[untyped-decorator, unused-ignore]
async def nothing(job: Running, number: int) -> None:  # noqa: ARG001
    """Do nothing but tell that it has run."""
    ran.value += 1


def service(*, works: bool) -> Any:
    """Make the service."""
    app = create_app()
    configure_logging(LogSettings(log_level="ERROR"), production=False)
    app.state.works = works
    return app


def work(counter: Any, ready: Any) -> None:
    """Run jobs until the process is ended."""
    global ran  # noqa: PLW0603
    ran = counter

    async def main() -> None:
        async with lifespan(service(works=True)):
            ready.set()
            await asyncio.Event().wait()

    asyncio.run(main())


async def measure(times: int, *, works: bool, waits: bool) -> float:
    """Return the milliseconds of one job, the median of some rounds."""
    app = service(works=works)
    rounds = []
    async with lifespan(app):
        database = app.state.database
        for _ in range(5 if waits else 7):
            numbers = iter(range(times))
            ran.value = 0

            async def put(numbers: Any = numbers) -> None:
                for number in numbers:
                    async with database.session() as session:
                        await enqueue(session, nothing(number))

            start = time.perf_counter()
            await asyncio.gather(*(put() for _ in range(CALLERS)))
            while waits and (ran.value < times or (await database.fetch(LEFT))[0][0]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            rounds.append((time.perf_counter() - start) / times)
            async with database.engine.begin() as connection:
                # Rows that were changed and deleted stay where they were, and slow the next round down, until a vacuum.
                postgresql = database.engine.dialect.name == "postgresql"
                await connection.execute(text("TRUNCATE jobs" if postgresql else "DELETE FROM jobs"))
    return statistics.median(rounds) * 1000


def main() -> None:
    """Measure both, or only the second."""
    global ran
    apart = os.environ.get("JOBS_ENGINE", "embedded") != "embedded"
    context = get_context("spawn")
    ran, ready = context.Value("i", 0), context.Event()
    found = []
    if "works" not in sys.argv:
        found.append(asyncio.run(measure(400, works=False, waits=False)))
    worker = context.Process(target=work, args=(ran, ready), daemon=True)
    if apart:
        worker.start()
        assert ready.wait(60), "the worker does not come up"
    found.append(asyncio.run(measure(2000, works=not apart, waits=True)))
    if apart:
        worker.terminate()
        worker.join()
    print(*found)


if __name__ == "__main__":
    main()

"""Say how many milliseconds a job takes to be enqueued, and to be enqueued and run: `python jobs.py`.

`python jobs.py works` says the second alone.
The first is a row, its commit and the hand-over, by sixteen callers at once in a process that runs no jobs; the second
goes through a task that does nothing, with both in one process.
"""

import asyncio
import os
import statistics
import sys
import time

sys.path.insert(0, ".")
from app.kit.logging import LogSettings, configure_logging  # type: ignore[import-not-found, unused-ignore]
from app.main import create_app, lifespan  # type: ignore[import-not-found, unused-ignore]
from app.ports.jobs.queue import enqueue  # type: ignore[import-not-found, unused-ignore]
from app.ports.jobs.tasks import Running, task  # type: ignore[import-not-found, unused-ignore]
from sqlalchemy import text  # type: ignore[import-not-found, unused-ignore]

CALLERS = 16
ran: list[int] = []
LEFT = text("SELECT count(*) FROM jobs WHERE state <> 'succeeded'")


@task(name="bench.nothing")  # type: ignore[untyped-decorator, unused-ignore]
async def nothing(job: Running, number: int) -> None:  # noqa: ARG001
    """Do nothing but tell that it has run, so that the database is asked only at the end."""
    ran.append(number)


async def measure(*, works: bool) -> float:
    """Return the milliseconds of one job, the median of some rounds."""
    app = create_app()
    configure_logging(LogSettings(log_level="ERROR"), production=False)
    app.state.works = works
    rounds = []
    async with lifespan(app):
        database = app.state.database
        times = int(os.environ.get("TIMES", "600")) if works else 400
        for _ in range(3 if works else 7):
            numbers = iter(range(times))

            async def put(database: object = database, numbers: object = numbers) -> None:
                for number in numbers:  # type: ignore[attr-defined]
                    async with database.session() as session:  # type: ignore[attr-defined]
                        await enqueue(session, nothing(number))

            start = time.perf_counter()
            await asyncio.gather(*(put() for _ in range(CALLERS)))
            while works and (len(ran) < times or (await database.fetch(LEFT))[0][0]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            ran.clear()
            rounds.append((time.perf_counter() - start) / times)
            async with database.engine.begin() as connection:
                await connection.execute(text("DELETE FROM jobs"))
    return statistics.median(rounds) * 1000


async def main() -> None:
    """Measure both, or only the second."""
    print(*[await measure(works=works) for works in (False, True) if works or "works" not in sys.argv])


asyncio.run(main())

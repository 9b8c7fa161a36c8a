"""Say how many milliseconds a job takes with ARQ or Celery alone: `python bare.py arq URL 600`, or celery.

As in jobs.py callers send and eight slots run a task that does nothing, all in one process; but there is no row, so
nothing is committed, nobody can ask for the job, and what the broker loses is lost. Redis keeps results, RabbitMQ none.
"""

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Callable
from uuid import uuid4

CALLERS, SLOTS, ROUNDS = 16, 8, 5
_, ENGINE, URL, TIMES = sys.argv
NAME = f"bench-{uuid4().hex}"


async def arq() -> float:
    """Measure ARQ, which runs in the loop that it is told of jobs in."""
    from arq.connections import ArqRedis  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415
    from arq.worker import Worker, func  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415
    from redis.asyncio import Redis  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

    done: list[int] = []

    async def nothing(_: object, number: int) -> None:
        done.append(number)

    client = Redis.from_url(URL)
    pool = ArqRedis(client.connection_pool)
    worker = Worker(
        functions=[func(nothing, name="nothing", keep_result=60)],  # type: ignore[arg-type, unused-ignore]
        queue_name=NAME,
        redis_pool=pool,
        max_jobs=SLOTS,
        poll_delay=0.05,
        handle_signals=False,
        log_results=False,
    )
    working = asyncio.create_task(worker.async_run())
    rounds = []
    for _ in range(ROUNDS):
        done.clear()
        numbers = iter(range(int(TIMES)))

        async def put(numbers: object = numbers) -> None:
            for number in numbers:  # type: ignore[attr-defined]
                await pool.enqueue_job("nothing", number, _queue_name=NAME)

        start = time.perf_counter()
        await asyncio.gather(*(put() for _ in range(CALLERS)))
        while len(done) < int(TIMES):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        rounds.append((time.perf_counter() - start) / int(TIMES))
    working.cancel()
    await asyncio.wait([working])
    await client.aclose()
    return statistics.median(rounds) * 1000


def celery() -> float:
    """Measure Celery, with threads as its pool."""
    from celery import Celery  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415
    from celery.worker import WorkController  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

    redis = URL.startswith("redis")
    app = Celery(NAME, broker=URL, backend=URL if redis else None)
    app.conf.update(
        broker_transport_options={} if redis else {"confirm_publish": True},
        result_expires=60,
        task_ignore_result=not redis,
        task_default_queue=NAME,
        task_acks_late=True,
        worker_prefetch_multiplier=4,
        worker_enable_remote_control=False,
    )
    ended = threading.Semaphore(0)

    @app.task(name="nothing")  # type: ignore[untyped-decorator, unused-ignore]
    def nothing(number: int) -> None:  # noqa: ARG001
        ended.release()

    worker = WorkController(app=app, pool="threads", concurrency=SLOTS, without_gossip=True, without_mingle=True)
    threading.Thread(target=worker.start, daemon=True).start()
    rounds = []
    with app.connection_for_write() as connection:
        producer = app.amqp.Producer(connection)
        # One connection, as ours has: a broker confirms one message after the other.
        send: Callable[[int], object] = lambda number: nothing.apply_async((number,), producer=producer)  # noqa: E731
        send(0)
        ended.acquire()
        for _ in range(ROUNDS):
            start = time.perf_counter()
            for number in range(int(TIMES)):
                send(number)
            for _ in range(int(TIMES)):
                ended.acquire()
            rounds.append((time.perf_counter() - start) / int(TIMES))
        app.amqp.queues[NAME](connection.default_channel).delete()
    return statistics.median(rounds) * 1000


print(asyncio.run(arq()) if ENGINE == "arq" else celery(), flush=True)

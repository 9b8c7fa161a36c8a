"""Say how many milliseconds a job takes with ARQ or Celery alone: `python bare.py arq URL 600`, or celery.

As in jobs.py sixteen callers send in one process, and eight slots of another run a task that does nothing; but there
is no row, so nothing is committed, nobody can ask for the job, and what the broker loses is lost. Redis keeps results,
RabbitMQ none.
"""

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any
from uuid import uuid4

CALLERS, SLOTS, ROUNDS = 16, 8, 5


def arq_pool(url: str) -> Any:
    """Return ARQ's way to Redis."""
    from arq.connections import ArqRedis  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415
    from redis.asyncio import Redis  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

    return ArqRedis(Redis.from_url(url).connection_pool)


def work_for_arq(url: str, name: str, done: Any, ready: Any) -> None:
    """Run ARQ's worker."""
    from arq.worker import Worker, func  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

    async def nothing(_: object, number: int) -> None:  # noqa: ARG001
        done.value += 1

    async def main() -> None:
        worker = Worker(
            functions=[func(nothing, name="nothing", keep_result=60)],  # type: ignore[arg-type, unused-ignore]
            queue_name=name,
            redis_pool=arq_pool(url),
            max_jobs=SLOTS,
            poll_delay=0.05,
            handle_signals=False,
            log_results=False,
        )
        ready.set()
        await worker.async_run()

    asyncio.run(main())


async def send_with_arq(url: str, name: str, times: int, done: Any) -> list[float]:
    """Return how long rounds take."""
    pool = arq_pool(url)
    rounds = []
    for _ in range(ROUNDS):
        done.value = 0
        numbers = iter(range(times))

        async def put(numbers: Any = numbers) -> None:
            for number in numbers:
                await pool.enqueue_job("nothing", number, _queue_name=name)

        start = time.perf_counter()
        await asyncio.gather(*(put() for _ in range(CALLERS)))
        while done.value < times:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        rounds.append((time.perf_counter() - start) / times)
    return rounds


def celery_app(url: str, name: str) -> Any:
    """Return Celery."""
    from celery import Celery  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

    redis = url.startswith("redis")
    app = Celery(name, broker=url, backend=url if redis else None)
    app.conf.update(
        broker_transport_options={} if redis else {"confirm_publish": True},
        result_expires=60,
        task_ignore_result=not redis,
        task_default_queue=name,
        task_acks_late=True,
        worker_prefetch_multiplier=4,
        worker_enable_remote_control=False,
    )
    return app


def work_for_celery(url: str, name: str, done: Any, ready: Any) -> None:
    """Run Celery's worker, with threads as its pool."""
    from celery.worker import WorkController  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

    app = celery_app(url, name)
    lock = threading.Lock()

    @app.task(name="nothing")  # type: ignore[untyped-decorator, unused-ignore]
    def nothing(number: int) -> None:  # noqa: ARG001
        with lock:
            done.value += 1

    worker = WorkController(app=app, pool="threads", concurrency=SLOTS, without_gossip=True, without_mingle=True)
    ready.set()
    worker.start()


def send_with_celery(url: str, name: str, times: int, done: Any) -> list[float]:
    """Return how long rounds take."""
    app = celery_app(url, name)
    rounds = []
    with app.connection_for_write() as connection:
        producer = app.amqp.Producer(connection)
        # One connection, as ours has: a broker confirms one message after the other.
        send: Callable[[int], object] = lambda number: app.send_task("nothing", (number,), producer=producer)  # noqa: E731
        send(0)
        while not done.value:
            time.sleep(0.01)
        for _ in range(ROUNDS):
            done.value = 0
            start = time.perf_counter()
            for number in range(times):
                send(number)
            while done.value < times:
                time.sleep(0.005)
            rounds.append((time.perf_counter() - start) / times)
        app.amqp.queues[name](connection.default_channel).delete()
    return rounds


def main() -> None:
    """Measure one of them."""
    _, engine, url, times = sys.argv
    name = f"bench-{uuid4().hex}"
    context = get_context("spawn")
    done, ready = context.Value("i", 0), context.Event()
    work = work_for_arq if engine == "arq" else work_for_celery
    worker = context.Process(target=work, args=(url, name, done, ready), daemon=True)
    worker.start()
    assert ready.wait(60), "the worker does not come up"
    if engine == "arq":
        rounds = asyncio.run(send_with_arq(url, name, int(times), done))
    else:
        rounds = send_with_celery(url, name, int(times), done)
    worker.kill()
    worker.join()
    print(statistics.median(rounds) * 1000, flush=True)


if __name__ == "__main__":
    main()

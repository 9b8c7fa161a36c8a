"""What is measured of the storage, as a part of the service."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ParamSpec, TypeVar

from fastapi import FastAPI

from app.kit.module import Module
from app.kit.settings import load
from app.modules.metrics.durations import Durations
from app.ports.storage.local import LocalStorage
from app.ports.storage.settings import StorageSettings

OPERATIONS = ("upload", "download_url", "stat", "write", "delete", "tidy")
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
P = ParamSpec("P")
Opened = TypeVar("Opened")


def timed_opening(
    durations: Durations, call: Callable[P, AbstractAsyncContextManager[Opened]]
) -> Callable[P, AbstractAsyncContextManager[Opened]]:
    """Have it measured how long an object takes to open. How long it is read is up to the reader."""

    @asynccontextmanager
    async def measured(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Opened]:
        started, opened = time.perf_counter(), False
        try:
            async with call(*args, **kwargs) as found:
                opened = True
                durations.note("open", started, None)
                yield found
        except BaseException as error:
            if not opened:
                durations.note("open", started, error)
            raise

    return measured


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Measure the storage."""
    storage = app.state.storage
    durations = Durations(app.state.metrics, "storage", ("provider", load(StorageSettings).storage_provider), BUCKETS)
    durations.measure(storage, OPERATIONS)
    if isinstance(storage, LocalStorage):
        # Others are uploaded to directly. This one is as long under way as its client.
        durations.measure(storage, ["take"])
    storage.open = timed_opening(durations, storage.open)
    yield


metrics_storage = Module(name="metrics_storage", lifespan=lifespan)

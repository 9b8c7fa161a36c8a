"""What is measured of the storage, as a part of the service."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import ParamSpec, TypeVar

from fastapi import FastAPI
from prometheus_client import Histogram

from app.kit.module import Module
from app.kit.settings import load
from app.modules.metrics.service import Metrics
from app.ports.storage.settings import StorageSettings

OPERATIONS = ("upload", "download_url", "stat", "write", "delete")
BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
P = ParamSpec("P")
Result = TypeVar("Result")
Opened = TypeVar("Opened")


class Durations:
    """How long operations of a storage take, and which of them fail."""

    def __init__(self, metrics: Metrics, provider: str) -> None:
        self._provider = provider
        self._durations = Histogram(
            "storage_operation_duration_seconds",
            "Duration of operations of the storage; error_type is empty for those that succeed.",
            ["provider", "operation", "error_type"],
            buckets=BUCKETS,
            registry=metrics.registry,
        )

    def _note(self, operation: str, started: float, error: BaseException | None) -> None:
        measured = self._durations.labels(self._provider, operation, type(error).__name__ if error else "")
        measured.observe(time.perf_counter() - started)

    def timed(self, operation: str, call: Callable[P, Awaitable[Result]]) -> Callable[P, Awaitable[Result]]:
        """Have an operation measured."""

        async def measured(*args: P.args, **kwargs: P.kwargs) -> Result:
            started, failure = time.perf_counter(), None
            try:
                return await call(*args, **kwargs)
            except BaseException as error:
                failure = error
                raise
            finally:
                self._note(operation, started, failure)

        return measured

    def timed_opening(
        self, operation: str, call: Callable[P, AbstractAsyncContextManager[Opened]]
    ) -> Callable[P, AbstractAsyncContextManager[Opened]]:
        """Have it measured how long an object takes to open. How long it is read is up to the reader."""

        @asynccontextmanager
        async def measured(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Opened]:
            started, opened = time.perf_counter(), False
            try:
                async with call(*args, **kwargs) as found:
                    opened = True
                    self._note(operation, started, None)
                    yield found
            except BaseException as error:
                if not opened:
                    self._note(operation, started, error)
                raise

        return measured


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Measure the storage, which stays what it is: some routes ask which one it is."""
    storage = app.state.storage
    durations = Durations(app.state.metrics, load(StorageSettings).storage_provider)
    for operation in OPERATIONS:
        setattr(storage, operation, durations.timed(operation, getattr(storage, operation)))
    storage.open = durations.timed_opening("open", storage.open)
    yield


metrics_storage = Module(name="metrics_storage", lifespan=lifespan)

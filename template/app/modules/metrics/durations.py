"""How long the operations of a port take, and which of them fail."""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import ParamSpec, TypeVar

from prometheus_client import Histogram

from app.modules.metrics.service import Metrics

P = ParamSpec("P")
Result = TypeVar("Result")


class Durations:
    """The durations of a port's operations. `engine` is what a label calls its adapter, and the adapter's name."""

    def __init__(self, metrics: Metrics, port: str, engine: tuple[str, str], buckets: Iterable[float]) -> None:
        label, self._engine = engine
        self._durations = Histogram(
            f"{port}_operation_duration_seconds",
            f"Duration of operations of the {port}; error_type is empty for those that succeed.",
            [label, "operation", "error_type"],
            buckets=tuple(buckets),
            registry=metrics.registry,
        )

    def note(self, operation: str, started: float, error: BaseException | None) -> None:
        """Note an operation that has begun at a time of `perf_counter` and ends now."""
        measured = self._durations.labels(self._engine, operation, type(error).__name__ if error else "")
        measured.observe(time.perf_counter() - started)

    def measure(self, adapter: object, operations: Iterable[str]) -> None:
        """Have operations of an adapter measured, which stays what it is: some ask which one it is."""
        for operation in operations:
            setattr(adapter, operation, self._timed(operation, getattr(adapter, operation)))

    def _timed(self, operation: str, call: Callable[P, Awaitable[Result]]) -> Callable[P, Awaitable[Result]]:
        async def measured(*args: P.args, **kwargs: P.kwargs) -> Result:
            started, failure = time.perf_counter(), None
            try:
                return await call(*args, **kwargs)
            except BaseException as error:
                failure = error
                raise
            finally:
                self.note(operation, started, failure)

        return measured

"""What is measured: by this process while it happens, and read from elsewhere when somebody asks."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from prometheus_client import (
    CollectorRegistry,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.kit.logging import get_logger
from app.kit.settings import load
from app.modules.metrics.settings import MetricsSettings

# For all readings together, so that a scrape ends before Prometheus gives it up after ten.
READ_SECONDS = 4.0
# What OpenTelemetry's conventions advise for the duration of requests.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# When a series began is told by Prometheus itself; a second series for each would say it again.
disable_created_metrics()  # type: ignore[no-untyped-call]
Read = Callable[[], Awaitable[Sequence[Metric]]]
log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Reading(Collector):
    """What was read, or None where that failed."""

    name: str
    seconds: float
    found: Sequence[Metric] | None

    def collect(self) -> Iterable[Metric]:
        """Give what was read."""
        return self.found or ()


class _Readings(Collector):
    """The newest readings, as the registry asks for them."""

    def __init__(self) -> None:
        self.newest: Sequence[Reading] = ()

    def collect(self) -> Iterable[Metric]:
        """Give what was read, and which readings have failed."""
        success = GaugeMetricFamily("metrics_reading_success", "Whether it could be read.", labels=["reading"])
        for reading in self.newest:
            success.add_metric([reading.name], float(reading.found is not None))
            yield from reading.collect()
        yield success


class Metrics:
    """The metrics of an application. Modules add theirs when they open: to `registry`, or as readings."""

    def __init__(self, app: FastAPI) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = Histogram(
            "http_server_request_duration_seconds",
            "Duration of HTTP requests, from their first byte to the end of the answer.",
            ["http_request_method", "http_route", "http_response_status_code"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.active = Gauge(
            "http_server_active_requests", "HTTP requests that are answered now.", registry=self.registry
        )
        Gauge("service_info", "The version that runs.", ["version"], registry=self.registry).labels(app.version).set(1)
        self._readings = _Readings()
        self.registry.register(self._readings)
        self._reads: dict[str, Read] = {}
        self._lock = asyncio.Lock()
        self._read_at: float | None = None

    def read(self, name: str, read: Read) -> None:
        """Have something read when metrics are asked for, such as counts in the database."""
        self._reads[name] = read

    async def readings(self) -> Sequence[Reading]:
        """Read what is to be read, unless it was a moment ago. One that fails keeps no other."""
        async with self._lock:
            kept = load(MetricsSettings).metrics_seconds
            if self._read_at is None or time.monotonic() - self._read_at >= kept:
                deadline = asyncio.get_running_loop().time() + READ_SECONDS
                # One after the other: they share a connection, and nobody is in a hurry. Those that wait for nothing
                # are read after the deadline as well.
                self._readings.newest = [await self._reading(*read, deadline) for read in self._reads.items()]
                self._read_at = time.monotonic()
            return self._readings.newest

    async def _reading(self, name: str, read: Read, deadline: float) -> Reading:
        started = time.perf_counter()

        def reading(found: Sequence[Metric] | None) -> Reading:
            return Reading(name, time.perf_counter() - started, found)

        try:
            async with asyncio.timeout_at(deadline):
                found = reading(list(await read()))
            # What cannot be written would take all the others along.
            generate_latest(found)
        except Exception as error:
            log.warning("metrics could not be read", reading=name, error=type(error).__name__, reason=str(error))
            return reading(None)
        return found

    async def write(self, accept: str) -> tuple[bytes, str]:
        """Write all metrics in the format that is asked for. Returns it with its media type."""
        await self.readings()
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type


async def check(app: FastAPI) -> str | None:
    """Tell who may read the metrics, where that is anyone."""
    return None if load(MetricsSettings).metrics_token else "anyone may read them: METRICS_TOKEN is empty"


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Begin to measure. Modules that open later add what is theirs."""
    app.state.metrics = metrics = Metrics(app)

    async def read_pool() -> Sequence[Metric]:
        active, most = app.state.database.connections()
        labels = ["db_client_connection_state"]
        used = GaugeMetricFamily("db_client_connection_count", "Connections to the database.", labels=labels)
        used.add_metric(["used"], active)
        return [used, GaugeMetricFamily("db_client_connection_max", "How many there may be at once.", most)]

    metrics.read("database", read_pool)
    yield

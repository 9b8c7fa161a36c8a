"""The metrics of workers, which serve nothing else, as a part of the service."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import Field

from app.kit.errors import ERROR_HANDLERS
from app.kit.http import RequestContextMiddleware
from app.kit.logging import get_logger
from app.kit.module import Module, Tier
from app.kit.settings import CoreSettings, ModuleSettings, SettingsError, load
from app.modules.metrics.endpoints import router

log = get_logger(__name__)


class WorkerMetricsSettings(ModuleSettings):
    """Metrics of workers."""

    metrics_worker_port: int | None = Field(
        None, ge=1, le=65535, description="Where a worker serves its metrics, on HOST. Empty: nowhere."
    )


class Server(uvicorn.Server):
    """A server beside something else, which handles the signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the worker."""
        yield


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Serve the metrics of a worker while it runs."""
    port = load(WorkerMetricsSettings).metrics_worker_port
    # The worker command says that it is one; a process that serves has the routes already.
    if port is None or getattr(app.state, "works", None) is not True:
        yield
        return
    settings = load(CoreSettings)
    host = settings.host
    handlers: dict[Any, Any] = ERROR_HANDLERS
    served = FastAPI(
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers=handlers,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    served.include_router(router, prefix=Tier.PUBLIC)
    served.add_middleware(RequestContextMiddleware, production=settings.production, debug=settings.debug)
    served.state = app.state
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingsError(f"METRICS_WORKER_PORT: {host}:{port} cannot be listened on: {error.strerror}.") from None
    server = Server(
        uvicorn.Config(
            served,
            lifespan="off",
            ws="none",
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=settings.graceful_shutdown_seconds,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    log.info("metrics are served here", host=host, port=port)
    try:
        yield
    finally:
        server.should_exit = True
        await serving
        listening.close()


metrics_worker = Module(name="metrics_worker", settings=[WorkerMetricsSettings], lifespan=lifespan)

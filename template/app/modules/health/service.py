"""How the service and what it needs are doing."""

import asyncio
import time
from datetime import datetime
from typing import Literal

from fastapi import FastAPI
from pydantic import BaseModel, Field
from sqlalchemy import text

from app.kit import clock
from app.kit.logging import get_logger
from app.kit.module import HealthCheck
from app.ports.db.database import Database, MigrationStatus

CHECK_TIMEOUT_SECONDS = 2.0
log = get_logger(__name__)
_started = time.monotonic()


class Health(BaseModel):
    """The process answers."""

    status: Literal["healthy"] = "healthy"
    timestamp: datetime
    version: str = Field(examples=["0.1.0"])
    uptime_seconds: float = Field(ge=0)


class Dependency(BaseModel):
    """How one dependency answered."""

    name: str = Field(examples=["database"])
    status: Literal["up", "down"]
    critical: bool
    latency_ms: float = Field(ge=0)
    error: str | None = Field(None, description="The kind of the failure; the details are in the log.")


class Readiness(BaseModel):
    """Whether requests can be served: every critical dependency is up."""

    status: Literal["ready", "not_ready"]
    timestamp: datetime
    checks: list[Dependency]


class ConnectionPool(BaseModel):
    """The connections of this process."""

    active_connections: int = Field(ge=0)
    pool_size: int = Field(ge=0)


class DatabaseHealth(BaseModel):
    """How the database is doing."""

    status: Literal["healthy", "unhealthy"]
    timestamp: datetime
    database_connected: bool
    response_time_ms: float = Field(ge=0)
    connection_pool: ConnectionPool
    migration_status: MigrationStatus
    errors: list[str] | None = None


def health(app: FastAPI) -> Health:
    """Say that the process answers; looks at nothing else."""
    uptime = round(time.monotonic() - _started, 3)
    return Health.model_construct(timestamp=clock.now(), version=app.version, uptime_seconds=uptime, status="healthy")


async def probe(check: HealthCheck, app: FastAPI) -> Dependency:
    """Run one check, and give up on it after CHECK_TIMEOUT_SECONDS."""
    started = time.perf_counter()
    error = None
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check.check(app)
    except Exception as failure:
        error = type(failure).__name__
        log.warning("health check failed", check=check.name, error=error, reason=str(failure))
    latency = round((time.perf_counter() - started) * 1000, 2)
    return Dependency(
        name=check.name, status="down" if error else "up", critical=check.critical, latency_ms=latency, error=error
    )


async def readiness(app: FastAPI) -> Readiness:
    """Run every module's checks at the same time."""
    found = await asyncio.gather(*(probe(check, app) for check in app.state.health_checks))
    ready = all(dependency.status == "up" or not dependency.critical for dependency in found)
    return Readiness(status="ready" if ready else "not_ready", timestamp=clock.now(), checks=list(found))


async def database_health(app: FastAPI) -> DatabaseHealth:
    """Look at the connection, the pool and the migrations."""
    database: Database = app.state.database
    found = await probe(HealthCheck("database", lambda _: database.fetch(text("SELECT 1")), advice=""), app)
    up = found.status == "up"
    migrations: MigrationStatus = await database.migration_status() if up else "unknown"
    active, size = database.connections()
    return DatabaseHealth(
        status="healthy" if up else "unhealthy",
        timestamp=clock.now(),
        database_connected=up,
        response_time_ms=found.latency_ms,
        connection_pool=ConnectionPool(active_connections=active, pool_size=size),
        migration_status=migrations,
        errors=None if up else [f"database: {found.error}"],
    )

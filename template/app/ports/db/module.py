"""The database as a part of the service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError
from sqlalchemy.orm.exc import StaleDataError

from app.kit.errors import problem
from app.kit.logging import get_logger
from app.kit.module import HealthCheck, Module
from app.kit.settings import load
from app.ports.db.database import Database, DatabaseSettings, revisions

# Classes of SQLSTATE (ISO/IEC 9075-2): connection, rollback, resources, locks, operator intervention.
PASSING_SQLSTATES = {"08", "40", "53", "55", "57"}
# Of SQLite: busy, locked, read-only, input or output failed, full, cannot be opened (sqlite.org/rescode.html).
PASSING_SQLITE_CODES = {5, 6, 8, 10, 13, 14}
log = get_logger(__name__)


class MigrationsPending(Exception):
    """The tables are not those of this code."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the pool for as long as the service runs; read the revisions, which takes longer than a check may."""
    app.state.database = Database.open(load(DatabaseSettings))
    try:
        await asyncio.to_thread(revisions)
        yield
    finally:
        await app.state.database.close()


async def check(app: FastAPI) -> None:
    """Ask the database for one value."""
    await app.state.database.fetch(text("SELECT 1"))


async def check_migrations(app: FastAPI) -> None:
    """Raise MigrationsPending when the tables are older than the code. Newer ones are a deployment under way."""
    if await app.state.database.migration_status() == "pending":
        raise MigrationsPending("the database is behind the code")


def may_pass(error: DBAPIError | TimeoutError) -> bool:
    """Tell whether the same request may work later: no connection, no room, a cancelled or a deadlocked statement."""
    if isinstance(error, (TimeoutError, InterfaceError)) or error.connection_invalidated:
        return True
    if type(error.orig).__name__ == "InvalidCachedStatementError":
        return True  # A migration has changed a type under a statement that was prepared before; it is forgotten now.
    if code := getattr(error.orig, "sqlite_errorcode", None):
        return code & 0xFF in PASSING_SQLITE_CODES
    return str(getattr(error.orig, "sqlstate", None) or "")[:2] in PASSING_SQLSTATES


async def answer(request: Request, error: DBAPIError | StaleDataError | TimeoutError) -> Response:
    """Tell a client what a database error means for it: 409, 422, 503 or 500."""
    if isinstance(error, (IntegrityError, StaleDataError)):
        # The first line names the constraint, or the table with a row that is gone; those that follow may hold values.
        log.warning("a change was refused", reason=str(getattr(error, "orig", error)).partition("\n")[0])
        return problem(request.scope, 409, "The change conflicts with what is stored.")
    if isinstance(error, DataError):
        return problem(request.scope, 422, "A value cannot be stored.", code="invalid")
    if not may_pass(error):
        raise error
    log.warning("away or busy", error=type(error).__name__, reason=str(error))
    return problem(request.scope, 503, "What this needs is away or busy. Try again soon.", headers={"Retry-After": "5"})


database = Module(
    name="database",
    settings=(DatabaseSettings,),
    lifespan=lifespan,
    health_checks=(
        HealthCheck("database", check, advice="Check that DATABASE_URL names a database that is there."),
        HealthCheck("migrations", check_migrations, advice="Run `alembic upgrade head`."),
    ),
    error_handlers={DBAPIError: answer, StaleDataError: answer, TimeoutError: answer},
)

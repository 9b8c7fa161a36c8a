"""SQLite, the embedded default: one file, nothing to install. Statements are not timed out here; SQLite cannot."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.kit.settings import SettingsError

if TYPE_CHECKING:
    from app.ports.db.database import DatabaseSettings

PRAGMAS = ("foreign_keys = ON", "busy_timeout = 5000", "journal_mode = WAL", "synchronous = NORMAL")


def open_sqlite(url: URL, settings: "DatabaseSettings") -> tuple[AsyncEngine, Engine]:
    """Open a file in WAL mode, so that readers and the one writer do not wait for each other."""
    file = Path(url.database or "")
    try:
        # For its owner's eyes only; what SQLite puts beside the file gets the file's mode.
        file.parent.mkdir(0o700, parents=True, exist_ok=True)
        if not file.exists():
            file.touch(0o600)
    except OSError as error:
        raise SettingsError(f"DATABASE_URL: {file} cannot be made: {error.strerror}.") from None

    options: dict[str, Any] = {"pool_size": settings.database_pool_size, "max_overflow": 0, "hide_parameters": True}
    options["pool_timeout"] = settings.database_pool_timeout_seconds
    changing = create_async_engine(url.set(drivername="sqlite+aiosqlite"), **options)
    # Not aiosqlite, which goes to its thread four times for a query; and a read has no transaction to end.
    plain = url.set(drivername="sqlite+pysqlite")
    reading = create_engine(plain, isolation_level="AUTOCOMMIT", pool_reset_on_return=None, **options)

    event.listen(changing.sync_engine, "connect", lambda raw, _: set_pragmas(raw, *PRAGMAS))
    event.listen(reading, "connect", lambda raw, _: set_pragmas(raw, *PRAGMAS, "query_only = ON"))

    @event.listens_for(changing.sync_engine, "begin")
    def begin_immediate(connection: Connection) -> None:
        # A deferred transaction that reads first and writes later fails at once when another one has written.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            # One way to the driver's thread and back, where a cursor takes three.
            adapted: Any = connection.connection.dbapi_connection
            try:
                adapted.run_async(lambda driver: driver.execute("BEGIN IMMEDIATE"))
            except connection.dialect.loaded_dbapi.OperationalError as error:
                raise exc.OperationalError("BEGIN IMMEDIATE", None, error) from error

    return changing, reading


def set_pragmas(connection: Any, *pragmas: str) -> None:
    """Set up a new connection."""
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()

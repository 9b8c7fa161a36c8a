"""SQLite, the embedded default: one file, nothing to install. Statements are not timed out here; SQLite cannot."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from app.ports.db.database import DatabaseSettings


def create_sqlite_engine(url: URL, settings: "DatabaseSettings") -> AsyncEngine:
    """Open a file in WAL mode, so that readers and the one writer do not wait for each other."""
    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url.set(drivername="sqlite+aiosqlite"),
        pool_size=settings.database_pool_size,
        max_overflow=0,
        hide_parameters=True,
        pool_timeout=settings.database_pool_timeout_seconds,
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_pragmas(connection: Any, _: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA busy_timeout = 5000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin_immediate(connection: Connection) -> None:
        # A deferred transaction that reads first and writes later fails at once when another one has written.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine

"""SQLite, the embedded default: one file, nothing to install. Statements are not timed out here; SQLite cannot."""

from functools import partialmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiosqlite import Cursor
from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.kit.settings import SettingsError

if TYPE_CHECKING:
    from app.ports.db.database import DatabaseSettings

PRAGMAS = ("foreign_keys = ON", "busy_timeout = 5000", "journal_mode = WAL", "synchronous = NORMAL")


class _Cursor(Cursor):
    """Goes to the driver's thread once for a statement, where aiosqlite's also goes to be made and to be closed."""

    _conn: Any

    async def execute(self, sql: str, parameters: Any = (), *, many: bool = False) -> Cursor:
        driver = self._conn._conn

        def run() -> Any:
            # A deferred transaction that reads first and writes later fails at once when another one has written.
            if driver.isolation_level is not None and not driver.in_transaction and not sql.startswith("PRAGMA"):
                driver.execute("BEGIN IMMEDIATE")
            return (driver.executemany if many else driver.execute)(sql, parameters)

        self._cursor = await self._conn._execute(run)
        return self

    executemany = partialmethod(execute, many=True)

    async def close(self) -> None:
        pass  # It goes with the last reference to it.


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
    changing = create_async_engine(url.set(drivername="sqlite+aiosqlite"), pool_reset_on_return=None, **options)
    # Not aiosqlite, which goes to its thread twice for a query; and a read has no transaction to end.
    plain = url.set(drivername="sqlite+pysqlite")
    reading = create_engine(plain, isolation_level="AUTOCOMMIT", pool_reset_on_return=None, **options)

    @event.listens_for(changing.sync_engine, "connect")
    def connect(connection: Any, _: object) -> None:
        driver = connection.driver_connection
        driver.cursor = lambda: _Cursor(driver, None)  # type: ignore[arg-type]
        set_pragmas(connection, *PRAGMAS)

    @event.listens_for(changing.sync_engine, "reset")
    def reset(connection: Any, _: object, state: Any) -> None:
        # As the pool would, but without the way to the driver's thread when the transaction has ended.
        if state.asyncio_safe and connection.driver_connection.in_transaction:
            connection.rollback()

    event.listen(reading, "connect", lambda raw, _: set_pragmas(raw, *PRAGMAS, "query_only = ON"))
    return changing, reading


def set_pragmas(connection: Any, *pragmas: str) -> None:
    """Set up a new connection."""
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}")

"""PostgreSQL through asyncpg."""

import time
from typing import TYPE_CHECKING, Any

import asyncpg
from pydantic import Field, SecretStr
from sqlalchemy import URL, Engine, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.kit.errors import Unavailable
from app.kit.logging import get_logger
from app.kit.module import Module
from app.kit.resilience import Guard, GuardedCallFailed
from app.kit.settings import ModuleSettings, load

if TYPE_CHECKING:
    from app.ports.db.database import DatabaseSettings

CONNECT_TIMEOUT_SECONDS = 5.0
PING_AFTER_IDLE_SECONDS = 5.0
# Shorter than a request waits for a connection, so that one locked row does not keep all of them.
LOCK_TIMEOUT = "3s"
log = get_logger(__name__)


class PostgresSettings(ModuleSettings):
    """PostgreSQL."""

    postgres_password: SecretStr | None = Field(
        None,
        description="The password, where DATABASE_URL has none.",
        json_schema_extra={"generated": True},
    )
    postgres_statement_timeout_ms: int = Field(10_000, ge=100, description="When the server gives a statement up.")


def open_postgresql(url: URL, settings: "DatabaseSettings") -> tuple[AsyncEngine, Engine]:
    """Open two small pools. A connection that has been idle is pinged first; one in constant use need not be."""
    server = load(PostgresSettings)
    timeout, apart = str(server.postgres_statement_timeout_ms), server.postgres_password
    password = url.password or (apart.get_secret_value() if apart else None)
    # asyncpg reads the URL itself, so everything libpq knows works: sslmode, several hosts, a socket directory.
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    guard = Guard("database", timeout=CONNECT_TIMEOUT_SECONDS, attempts=1, recovery=2)

    def engine(*, read_only: bool) -> AsyncEngine:
        async def connect() -> Any:
            try:
                return await guard.call(
                    asyncpg.connect,
                    dsn,
                    password=password,
                    # The server ends what takes too long. This is for a server that has fallen silent.
                    command_timeout=server.postgres_statement_timeout_ms / 1000 + 2,
                    server_settings={
                        "application_name": "app",
                        "default_transaction_read_only": "on" if read_only else "off",
                        "statement_timeout": timeout,
                        "lock_timeout": LOCK_TIMEOUT,
                        "idle_in_transaction_session_timeout": timeout,
                    },
                )
            except GuardedCallFailed as error:
                if error.news:
                    log.warning("the database cannot be reached", reason=str(error))
                raise Unavailable("The database is away. Try again shortly.") from error

        # A read is no transaction, so there is none to roll back when its connection returns to the pool.
        options: Any = {"isolation_level": "AUTOCOMMIT", "pool_reset_on_return": None} if read_only else {}
        engine = create_async_engine(
            url.set(drivername="postgresql+asyncpg"),
            async_creator=connect,
            pool_size=settings.database_pool_size,
            max_overflow=0,
            hide_parameters=True,
            pool_timeout=settings.database_pool_timeout_seconds,
            pool_use_lifo=True,
            **options,
        )
        event.listen(engine.sync_engine, "checkin", note_time)
        event.listen(engine.sync_engine, "checkout", ping_if_idle)
        return engine

    return engine(read_only=False), engine(read_only=True).sync_engine


def note_time(_: object, record: Any) -> None:
    """Remember when a connection was last of use."""
    record.info["idle_since"] = time.monotonic()


def ping_if_idle(connection: Any, record: Any, _: object) -> None:
    """Ask for a new connection in place of one that has gone away while it was idle."""
    if time.monotonic() - record.info.get("idle_since", time.monotonic()) < PING_AFTER_IDLE_SECONDS:
        return
    try:
        connection.ping()
    except Exception as error:
        raise DisconnectionError("the connection has gone away while it was idle") from error


postgresql = Module(name="postgresql", settings=(PostgresSettings,))

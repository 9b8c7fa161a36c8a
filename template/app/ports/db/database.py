"""The database port: sessions that the edge commits, and reads that need no transaction."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from fastapi import Depends
from pydantic import Field, field_validator
from sqlalchemy import Engine, Executable, Row, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker
from sqlalchemy.pool import QueuePool
from sqlalchemy.util import greenlet_spawn
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit.errors import Unavailable
from app.kit.settings import ModuleSettings, SecretURL
from app.ports.db.adapters import ADAPTERS

MigrationStatus = Literal["up_to_date", "pending", "unknown"]
Made = TypeVar("Made")
MIGRATIONS = Path(__file__).parents[3] / "migrations"


class DatabaseSettings(ModuleSettings):
    """The database."""

    database_url: SecretURL = Field(
        SecretURL("sqlite:///./data/app.db"), description=f"Where the data is. Schemes: {', '.join(ADAPTERS)}."
    )
    database_pool_size: int = Field(4, ge=1, le=100, description="The most connections for changes; as many for reads.")
    database_pool_timeout_seconds: float = Field(5, gt=0, description="How long a request waits for a connection.")

    @field_validator("database_url")
    @classmethod
    def can_be_opened(cls, value: SecretURL) -> SecretURL:
        """Refuse a URL that no adapter can open, and a database that only one connection could see."""
        known = ", ".join(f"{scheme}://" for scheme in ADAPTERS)
        try:
            url = make_url(value.get_secret_value())
            scheme = url.get_backend_name()
        except (ArgumentError, ValueError):
            raise ValueError(f"is not a database URL; it starts with one of {known}") from None
        if scheme not in ADAPTERS:
            raise ValueError(f"this service has no adapter for {scheme}; it has {known}")
        if scheme == "sqlite" and (not url.database or ":memory:" in url.database or "memory" in url.query.values()):
            raise ValueError("a database in memory has one connection; name a file, such as sqlite:///./data/app.db")
        return value


class Turns(asyncio.Semaphore):
    """Lets in as many callers as there are connections, in the order of coming. A pool would let some wait for long."""

    def __init__(self, settings: DatabaseSettings) -> None:
        super().__init__(settings.database_pool_size)
        self.patience = settings.database_pool_timeout_seconds

    async def __aenter__(self) -> None:
        """Wait for a turn. Raises Unavailable when it does not come in time."""
        try:
            async with asyncio.timeout(self.patience) if self.locked() else nullcontext():
                await self.acquire()
        except TimeoutError:
            raise Unavailable("The database is busy. Try again shortly.") from None


class Database:
    """A pool of connections for sessions, and one in autocommit mode that can only read.

    Bound to one connection, in tests, all happens in that connection's transaction.
    """

    def __init__(
        self, engine: AsyncEngine, reads: Engine, settings: DatabaseSettings, bound: AsyncConnection | None = None
    ) -> None:
        self.engine, self.reads, self.settings = engine, reads, settings
        self._bound = bound
        self._changing, self._reading = Turns(settings), Turns(settings)
        self._sessions = async_sessionmaker(
            bind=bound or engine,
            class_=AsyncSession,
            expire_on_commit=False,
            join_transaction_mode="create_savepoint" if bound else "conditional_savepoint",
        )

    @classmethod
    def open(cls, settings: DatabaseSettings) -> Self:
        """Make the pools; a connection is opened when it is first needed."""
        url = make_url(settings.database_url.get_secret_value())
        return cls(*ADAPTERS[url.get_backend_name()](url, settings), settings)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """Open a session that commits at the end of the block, and rolls back when the block raises."""
        async with self._changing, self._sessions() as session:
            yield session
            await session.commit()

    async def fetch(self, statement: Executable, parameters: Mapping[str, Any] | None = None) -> Sequence[Row[Any]]:
        """Run one query in autocommit mode: no BEGIN, no COMMIT, and the connection is back in the pool at once."""
        if self._bound is not None:
            return (await self._bound.execute(statement, parameters)).all()
        async with self._reading:
            run: Any = greenlet_spawn if self.reads.dialect.is_async else asyncio.to_thread
            return await run(self._read, statement, parameters)  # type: ignore[no-any-return]

    def _read(self, statement: Executable, parameters: Mapping[str, Any] | None) -> Sequence[Row[Any]]:
        # One greenlet or thread for all of it: AsyncConnection takes one each to connect, to execute and to close.
        with self.reads.connect() as connection:
            return connection.execute(statement, parameters).all()

    def connections(self) -> tuple[int, int]:
        """How many connections are in use, and how many there may be."""
        pools = [one.pool for one in (self.engine, self.reads) if isinstance(one.pool, QueuePool)]
        return sum(pool.checkedout() for pool in pools), sum(pool.size() for pool in pools)

    async def migration_status(self) -> MigrationStatus:
        """Compare the revision in the database with `migrations/`; unknown is one that a newer version has applied."""
        heads, known = await asyncio.to_thread(revisions)
        try:
            applied = {row[0] for row in await self.fetch(text("SELECT version_num FROM alembic_version"))}
        except (OperationalError, ProgrammingError):
            return "pending"
        return "up_to_date" if applied == heads else "pending" if applied <= known else "unknown"

    async def close(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
        await greenlet_spawn(self.reads.dispose)


@cache
def revisions() -> tuple[frozenset[str], frozenset[str]]:
    """Read the newest revisions in `migrations/`, and all of them; none where the folder was left behind."""
    if not MIGRATIONS.is_dir():
        return frozenset(), frozenset()
    # Alembic is imported here: what only imports the application does without it.
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS))
    return frozenset(scripts.get_heads()), frozenset(script.revision for script in scripts.walk_revisions())


async def _session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    database: Database = connection.app.state.database
    async with database.session() as session:
        yield session


# `scope="function"`: the commit happens before the response is sent, so that a failing commit is never a 200.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]


def with_session(make: Callable[[AsyncSession], Made]) -> Any:
    """Make a dependency from a class that takes the session of the request."""

    # A class as a dependency would be called in a thread of its own, once per request.
    async def provide(session: Session) -> Made:
        return make(session)

    return Depends(provide)


def with_reads(make: Callable[[Database], Made]) -> Any:
    """Make a dependency from a class that only reads, through `Database.fetch`."""

    async def provide(connection: HTTPConnection) -> Made:
        return make(connection.app.state.database)

    return Depends(provide)

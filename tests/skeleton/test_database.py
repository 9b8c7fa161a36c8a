"""Hostile cases for the database, which run inside services."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import aiosqlite
import pytest
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from app.kit.errors import Unavailable
from app.main import create_app, lifespan
from app.modules.users.models import User
from app.modules.users.service import UserService
from app.ports.db.database import Database, DatabaseSettings, revisions
from app.ports.db.module import may_pass
from app.ports.identity.identity import Identity

SOMEBODY = Identity(user_id=UUID(int=7), subject="somebody")


async def test_sqlite_keeps_its_promises(tmp_path: Path) -> None:
    database = Database.open(DatabaseSettings(database_url=f"sqlite:///{tmp_path}/new/folder/app.db"))
    for pragma, value in {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}.items():
        assert [row[0] for row in await database.fetch(text(f"PRAGMA {pragma}"))] == [value]
    with pytest.raises(OperationalError, match="readonly") as caught:
        await database.fetch(text("CREATE TABLE t (id INT)"))
    assert may_pass(caught.value)
    await database.close()


async def test_who_waits_for_the_lock_in_vain_is_told_what_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.ports.db.sqlite.PRAGMAS", ("busy_timeout = 50", "journal_mode = WAL"))
    database = Database.open(DatabaseSettings(database_url=f"sqlite:///{tmp_path}/app.db"))
    async with database.session() as session:
        await session.connection()
    other = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="database is locked") as caught:
        async with database.session() as session:
            await (await session.connection()).execute(text("SELECT 1"))
    assert may_pass(caught.value)
    other.execute("COMMIT")
    # A session has the lock from its first statement on, also one that only reads.
    other.execute("PRAGMA busy_timeout = 0")
    async with database.session() as session:
        await (await session.connection()).execute(text("SELECT 1"))
        with pytest.raises(sqlite3.OperationalError, match="database is locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()
    await database.close()


@asynccontextmanager
async def table(folder: Path) -> AsyncIterator[Database]:
    """Open a database of one connection, with a table of 1,000 numbers."""
    database = Database.open(DatabaseSettings(database_url=f"sqlite:///{folder}/app.db", database_pool_size=1))
    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (id INTEGER PRIMARY KEY)"))
        result = await connection.execute(text("INSERT INTO t VALUES (:id)"), [{"id": it} for it in range(1000)])
        assert result.rowcount == 1000
    yield database
    await database.close()


async def test_a_change_goes_to_the_thread_of_sqlite_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once to begin and to execute it, and once to commit."""
    ways: list[object] = []
    execute = aiosqlite.Connection._execute

    async def counted(driver: aiosqlite.Connection, *call: Any) -> Any:
        ways.append(call)
        return await cast("Any", execute)(driver, *call)

    async with table(tmp_path) as database:
        monkeypatch.setattr(aiosqlite.Connection, "_execute", counted)
        async with database.session() as session:
            inserted = await (await session.connection()).execute(text("INSERT INTO t VALUES (1000)"))
            assert (inserted.rowcount, inserted.lastrowid) == (1, 1000)
        assert len(ways) == 2
        assert (await database.fetch(text("SELECT count(*) FROM t")))[0][0] == 1001


async def test_rows_that_nobody_reads_to_the_end_hold_nothing(tmp_path: Path) -> None:
    async with table(tmp_path) as database, database.engine.connect() as connection:
        rows = await connection.stream(text("SELECT id FROM t ORDER BY id"))
        assert [(await anext(rows))[0] for _ in range(3)] == [0, 1, 2]
        await rows.close()
        deleted = await connection.execute(text("DELETE FROM t WHERE id < 500 RETURNING id"))
        assert len(deleted.all()) == 500
        await connection.execute(text("DROP TABLE t"))
        await connection.rollback()
        assert len((await connection.execute(text("SELECT id FROM t"))).all()) == 1000


async def test_what_changes_how_sqlite_works_stands_outside_of_transactions(tmp_path: Path) -> None:
    """SQLite ignores `foreign_keys` within one, which a migration relies on."""
    async with table(tmp_path) as database, database.engine.connect() as connection:
        await connection.execute(text("PRAGMA foreign_keys = OFF"))
        assert (await connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == 0
        await connection.execute(text("PRAGMA foreign_keys = ON"))


async def test_who_is_left_in_a_transaction_does_not_pass_it_on(tmp_path: Path) -> None:
    async with table(tmp_path) as database:
        async with database.engine.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            await raw.execute("BEGIN")
            await raw.execute("DELETE FROM t")
        async with database.engine.connect() as connection:
            alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await alone.execute(text("BEGIN"))
            await alone.execute(text("DELETE FROM t"))
        async with database.session() as session:
            await (await session.connection()).execute(text("INSERT INTO t VALUES (1000)"))
        assert (await database.fetch(text("SELECT count(*) FROM t")))[0][0] == 1001


async def test_who_gives_up_while_the_file_is_locked_leaves_a_connection_that_works(tmp_path: Path) -> None:
    async with table(tmp_path) as database:
        other = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async def add() -> None:
            async with database.session() as session:
                await (await session.connection()).execute(text("INSERT INTO t VALUES (1000)"))

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await add()
        other.execute("COMMIT")
        other.close()
        await add()
        assert (await database.fetch(text("SELECT count(*) FROM t")))[0][0] == 1001


async def test_nobody_else_reads_the_file(tmp_path: Path) -> None:
    for place in ("new/folder/app.db", "app.db"):
        database = Database.open(DatabaseSettings(database_url=f"sqlite:///{tmp_path}/{place}"))
        async with database.session() as session:
            connection = await session.connection()
            await connection.execute(text("CREATE TABLE t (id INT)"))
            files = list((tmp_path / place).parent.glob("app.db*"))
            assert len(files) >= 2
            assert {file.stat().st_mode & 0o077 for file in files} == {0}
        await database.close()
    assert (tmp_path / "new" / "folder").stat().st_mode & 0o077 == 0


async def test_the_revisions_are_read_before_the_first_request(migrated: object) -> None:
    """To import what reads them takes longer than a health check may."""
    revisions.cache_clear()
    app = create_app()
    async with lifespan(app):
        assert revisions.cache_info().currsize == 1


async def test_without_the_folder_of_migrations_nothing_is_known(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("app.ports.db.database.MIGRATIONS", tmp_path / "left-behind")
    revisions.cache_clear()
    try:
        assert await database.migration_status() == "unknown"
    finally:
        revisions.cache_clear()


async def test_all_get_their_turn_or_a_sentence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    database = Database.open(DatabaseSettings(database_url=url, database_pool_size=1))
    rows = await asyncio.gather(*(database.fetch(text("SELECT 1")) for _ in range(50)))
    assert len(rows) == 50
    await database.close()
    hurried = DatabaseSettings(database_url=url, database_pool_size=1, database_pool_timeout_seconds=0.05)
    database = Database.open(hurried)
    async with database.session():
        with pytest.raises(Unavailable, match="busy"):
            async with database.session():
                raise AssertionError
    await database.close()


async def test_requests_that_race_for_a_user_make_one_row(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with database.session() as session:
        users = UserService(session)
        winner = await users.current(SOMEBODY)
        session.expunge(winner)
        found = [None]

        async def not_yet_there(*_: object) -> User | None:
            return found.pop() if found else winner

        monkeypatch.setattr(users.users, "find", not_yet_there)
        assert await users.current(SOMEBODY) is winner


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite"])
def test_a_url_that_no_adapter_can_open_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"sqlite://"):
        DatabaseSettings(database_url=url)

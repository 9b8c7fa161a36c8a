import asyncio
from collections.abc import AsyncIterator

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.kit.errors import Unavailable
from app.kit.settings import forget
from app.ports.db import postgresql
from app.ports.db.database import Database, DatabaseSettings
from app.ports.db.module import may_pass


@pytest.fixture
async def server(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setenv("POSTGRES_STATEMENT_TIMEOUT_MS", "100")
    forget()
    database = Database.open(DatabaseSettings(database_url=postgresql_url))
    yield database
    await database.close()
    forget()


async def test_a_statement_that_takes_too_long_is_given_up(server: Database) -> None:
    with pytest.raises(DBAPIError) as caught:
        await server.fetch(text("SELECT pg_sleep(5)"))
    assert may_pass(caught.value)


async def test_reads_cannot_change_anything(server: Database) -> None:
    with pytest.raises(DBAPIError, match="read-only transaction"):
        await server.fetch(text("CREATE TABLE t (id INT)"))


async def test_a_type_that_changes_under_a_prepared_statement_is_worth_another_try(server: Database) -> None:
    async with server.engine.begin() as other:
        await other.execute(text("CREATE TABLE shapes (side SMALLINT)"))
    read = text("SELECT side FROM shapes")
    await server.fetch(read)
    async with server.engine.begin() as other:
        await other.execute(text("ALTER TABLE shapes ALTER side TYPE TEXT"))
    with pytest.raises(DBAPIError) as caught:
        await server.fetch(read)
    assert may_pass(caught.value)
    await server.fetch(read)
    async with server.engine.begin() as other:
        await other.execute(text("DROP TABLE shapes"))


async def test_connections_that_were_cut_are_replaced(server: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "PING_AFTER_IDLE_SECONDS", 0.0)
    await server.fetch(text("SELECT 1"))
    async with server.engine.connect() as other:
        cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        await other.execute(text(f"{cut} AND datname = current_database()"))
    await asyncio.gather(*(server.fetch(text("SELECT 1")) for _ in range(4)))


async def test_a_connection_cut_in_use_is_worth_another_try(server: Database) -> None:
    async with server.engine.connect() as victim:
        pid = (await victim.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await server.fetch(text(f"SELECT pg_terminate_backend({pid})"))
        with pytest.raises(DBAPIError) as caught:
            await victim.execute(text("SELECT 1"))
    assert may_pass(caught.value)


async def test_a_server_that_is_away_is_unavailable_and_soon_not_even_tried() -> None:
    away = Database.open(DatabaseSettings(database_url="postgres://nobody@127.0.0.1:1/none"))
    for _ in range(6):
        with pytest.raises(Unavailable) as caught:
            await away.fetch(text("SELECT 1"))
    assert "trying again shortly" in str(caught.value.__cause__)
    await away.close()


def test_migrating_what_is_away_ends_in_a_sentence(migrated: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://nobody@127.0.0.1:1/none")
    forget()
    with pytest.raises(SystemExit, match="names a database that is there"):
        command.upgrade(migrated, "head")
    forget()

import asyncio
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from pydantic import ValidationError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlmodel import SQLModel, select

from app.installed import MODULES
from app.kit.errors import Unavailable
from app.modules.users.models import User
from app.modules.users.service import UserService
from app.ports.db.database import Database, DatabaseSettings, Session
from app.ports.db.module import may_pass
from app.ports.identity.anonymous import ANONYMOUS


async def test_the_edge_commits_once_and_rolls_back_on_errors(app: FastAPI, database: Database) -> None:
    probe = FastAPI()
    probe.state.database = database

    @probe.post("/users/{name}")
    async def add(name: str, session: Session) -> None:
        session.add(User(subject=name))
        await session.flush()
        if name == "bad":
            raise RuntimeError

    async with AsyncClient(transport=ASGITransport(probe), base_url="http://test") as client:
        assert (await client.post("/users/good")).status_code == 200
        with pytest.raises(RuntimeError):
            await client.post("/users/bad")
    async with database.session() as session:
        assert (await session.exec(select(User.subject))).all() == ["good"]


async def test_every_table_belongs_to_a_module() -> None:
    declared = {table.__tablename__ for module in MODULES for table in module.tables}
    assert declared == set(SQLModel.metadata.tables)


def test_migrations_go_down_and_up_and_match_the_models(migrated: Config) -> None:
    command.downgrade(migrated, "base")
    command.upgrade(migrated, "head")
    command.check(migrated)


async def test_requests_that_race_for_a_user_make_one_row(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    async with database.session() as session:
        users = UserService(session)
        winner = await users.current(ANONYMOUS)
        session.expunge(winner)
        found = [None]

        async def not_yet_there(*_: object) -> User | None:
            return found.pop() if found else winner

        monkeypatch.setattr(users.users, "find", not_yet_there)
        assert await users.current(ANONYMOUS) is winner


async def test_database_errors_become_problems(app: FastAPI, client: AsyncClient) -> None:
    class Driver(Exception):
        sqlstate = "57014"

    errors = {
        409: IntegrityError("INSERT", None, Driver()),
        503: DBAPIError("SELECT", None, Driver("canceled")),
        500: DBAPIError("SELECT", None, Exception("no such table")),
    }

    @app.get("/fail/{status}")
    async def fail(status: int) -> None:
        raise errors[status]

    for status in errors:
        assert (await client.get(f"/fail/{status}")).status_code == status


async def test_sqlite_keeps_its_promises(tmp_path: Path) -> None:
    database = Database.open(DatabaseSettings(database_url=f"sqlite:///{tmp_path}/new/folder/app.db"))
    for pragma, value in {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": 5000}.items():
        assert [row[0] for row in await database.fetch(text(f"PRAGMA {pragma}"))] == [value]
    with pytest.raises(OperationalError, match="readonly") as caught:
        await database.fetch(text("CREATE TABLE t (id INT)"))
    assert may_pass(caught.value)
    await database.close()


async def test_all_get_their_turn_or_a_sentence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    settings = DatabaseSettings(database_url=url, database_pool_size=1, database_pool_timeout_seconds=0.05)
    database = Database.open(settings)
    rows = await asyncio.gather(*(database.fetch(text("SELECT 1")) for _ in range(50)))
    assert len(rows) == 50
    async with database.session():
        with pytest.raises(Unavailable, match="busy"):
            async with database.session():
                raise AssertionError
    await database.close()


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense", "sqlite"])
def test_a_url_that_no_adapter_can_open_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match=r"sqlite://"):
        DatabaseSettings(database_url=url)

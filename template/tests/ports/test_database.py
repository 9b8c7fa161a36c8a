import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlmodel import SQLModel, select

from app.installed import MODULES
from app.modules.users.models import User
from app.ports.db.database import Database, Session


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
    assert {table.__tablename__ for module in MODULES for table in module.tables} == set(SQLModel.metadata.tables)


def test_migrations_go_down_and_up_and_match_the_models(migrated: Config) -> None:
    command.downgrade(migrated, "base")
    command.upgrade(migrated, "head")
    command.check(migrated)


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

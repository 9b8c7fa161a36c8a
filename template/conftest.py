"""Every test runs in a transaction that is rolled back, on a database of its own process: never on yours."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from app.kit.settings import describe, forget
from app.main import create_app, lifespan, settings_classes
from app.ports.db.database import Database


def pytest_configure() -> None:
    """Let nothing of the developer's own settings into the tests: neither the environment nor `.env`."""
    for settings in settings_classes():
        settings.model_config["env_file"] = None
        for setting in describe(settings):
            os.environ.pop(setting.name, None)
            os.environ.pop(f"{setting.name}_FILE", None)
    os.environ |= {"ENVIRONMENT": "test", "LOG_LEVEL": "WARNING", "RATE_LIMIT_ENABLED": "false"}


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/test.db"


@pytest.fixture(scope="session")
def migrated(database_url: str) -> Iterator[Config]:
    alembic = Config(toml_file=Path(__file__).parent / "pyproject.toml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_url)
        forget()
        command.upgrade(alembic, "head")
        yield alembic
    forget()


@pytest.fixture(scope="session")
async def app(migrated: Config) -> AsyncIterator[FastAPI]:
    application = create_app()
    async with lifespan(application):
        yield application


@pytest.fixture
async def database(app: FastAPI) -> AsyncIterator[Database]:
    pool: Database = app.state.database
    async with pool.engine.connect() as connection:
        transaction = await connection.begin()
        app.state.database = Database(pool.engine, pool.reads, pool.settings, connection)
        yield app.state.database
        app.state.database = pool
        await transaction.rollback()


@pytest.fixture
async def client(app: FastAPI, database: Database) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client

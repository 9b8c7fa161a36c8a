"""Every test runs on a database of its own process, in a transaction that is rolled back. Nothing of yours is touched."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient

from app.kit.settings import env_names, forget
from app.main import create_app, lifespan, settings_classes
from app.ports.db.database import Database

ROOT = Path(__file__).parent


def pytest_configure() -> None:
    """Let nothing of the developer's own settings into the tests: neither the environment nor `.env`."""
    for settings in settings_classes():
        settings.model_config["env_file"] = None
        for name in env_names(settings):
            os.environ.pop(name, None)
            os.environ.pop(f"{name}_FILE", None)
    os.environ |= {"ENVIRONMENT": "test", "LOG_LEVEL": "WARNING", "RATE_LIMIT_ENABLED": "false"}


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('database')}/test.db"


@pytest.fixture(scope="session")
def alembic_config() -> Config:
    return Config(toml_file=ROOT / "pyproject.toml")


@pytest.fixture(scope="session")
def migrated(database_url: str, alembic_config: Config) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", database_url)
        forget()
        command.upgrade(alembic_config, "head")
        yield
    forget()


@pytest.fixture(scope="session")
async def app(migrated: None) -> AsyncIterator[FastAPI]:
    application = create_app()
    async with lifespan(application):
        yield application


@pytest.fixture
async def database(app: FastAPI) -> AsyncIterator[Database]:
    """The service's database, bound to one transaction that is rolled back after the test."""
    pool: Database = app.state.database
    async with pool.engine.connect() as connection:
        transaction = await connection.begin()
        app.state.database = Database(pool.engine, connection)
        yield app.state.database
        app.state.database = pool
        await transaction.rollback()


@pytest.fixture
async def client(app: FastAPI, database: Database) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client

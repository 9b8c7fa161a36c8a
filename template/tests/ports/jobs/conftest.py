"""A database of jobs that is empty, and tasks that have seen nothing yet."""

from collections.abc import AsyncIterator, Iterator

import pytest
from alembic.config import Config
from fastapi import FastAPI
from sqlalchemy import text

from app.kit.settings import forget
from app.ports.db.database import Database, DatabaseSettings
from app.ports.jobs.tasks import TASKS
from tests.ports.jobs import work

EMPTY = ("DELETE FROM jobs", "DELETE FROM job_schedules", "DROP TABLE IF EXISTS job_effects")


@pytest.fixture
async def jobs(migrated: Config, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    """Give a pool of connections: claims are about transactions that see each other."""
    for name in work.others():
        monkeypatch.delitem(TASKS, name)
    database = Database.open(DatabaseSettings(database_url=database_url))
    async with database.engine.begin() as connection:
        for statement in (*EMPTY, "CREATE TABLE job_effects (job VARCHAR(80))"):
            await connection.execute(text(statement))
    work.seen.clear()
    work.go_on.clear()
    yield database
    work.go_on.set()
    async with database.engine.begin() as connection:
        for statement in EMPTY:
            await connection.execute(text(statement))
    await database.close()


@pytest.fixture
def service(jobs: Database) -> Iterator[FastAPI]:
    """What tasks take for the application. Settings that its test has changed are read anew by the next one."""
    app = FastAPI(title="jobs of tests")
    app.state.database = jobs
    yield app
    forget()

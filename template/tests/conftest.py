"""With TEST_POSTGRES_URL set, the same tests run on that server, in databases of their own."""

import asyncio
import os
from collections.abc import Iterator
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url


async def execute(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """A new, empty database with a name that is nobody's; it is dropped after the tests."""
    server = os.environ.get("TEST_POSTGRES_URL")
    if not server:
        pytest.skip("TEST_POSTGRES_URL names no PostgreSQL server")
    name = f"test_{uuid4().hex}"
    asyncio.run(execute(server, f"CREATE DATABASE {name}"))
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        asyncio.run(execute(server, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def database_url(request: pytest.FixtureRequest, database_url: str) -> str:
    url: str = request.getfixturevalue("postgresql_url") if os.environ.get("TEST_POSTGRES_URL") else database_url
    return url

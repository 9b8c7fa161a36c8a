import asyncio

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import text

from app.kit.module import HealthCheck
from app.modules.health import service
from app.modules.health.endpoints import make_router
from app.ports.db.database import Database


@pytest.mark.parametrize("prefix", ["", "/api/v1/public"])
async def test_health_answers_at_the_root_and_under_the_public_tier(client: AsyncClient, prefix: str) -> None:
    health = (await client.get(f"{prefix}/health")).json()
    assert set(health) == {"status", "timestamp", "version", "uptime_seconds"}
    assert (await client.get(f"{prefix}/health/live")).json() == {"status": "alive"}
    ready = await client.get(f"{prefix}/health/ready")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    database = await client.get(f"{prefix}/health/db")
    assert (database.status_code, database.json()["database_connected"]) == (200, True)
    assert database.json()["migration_status"] == "up_to_date"
    assert database.json()["connection_pool"]["pool_size"] == 8


@pytest.mark.parametrize(("critical", "status"), [(True, 503), (False, 200)])
async def test_readiness_names_what_hangs_and_does_not_hang_itself(
    monkeypatch: pytest.MonkeyPatch, critical: bool, status: int
) -> None:
    monkeypatch.setattr(service, "CHECK_TIMEOUT_SECONDS", 0.05)
    app = FastAPI()
    app.state.health_checks = [HealthCheck("sloth", lambda _: asyncio.sleep(60), advice="Wake it.", critical=critical)]
    app.include_router(make_router(in_schema=True))
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        ready = await client.get("/health/ready")
    [check] = ready.json()["checks"]
    told = (ready.status_code, check["name"], check["status"], check["error"])
    assert told == (status, "sloth", "down", "TimeoutError")


@pytest.mark.parametrize(("revision", "told", "ready"), [(None, "pending", 503), ("newer", "unknown", 200)])
async def test_older_tables_are_not_ready_and_newer_ones_are(
    client: AsyncClient, database: Database, revision: str | None, told: str, ready: int
) -> None:
    async with database.session() as session:
        connection = await session.connection()
        await connection.execute(text("DELETE FROM alembic_version"))
        if revision:
            await connection.execute(text(f"INSERT INTO alembic_version VALUES ('{revision}')"))
    assert (await client.get("/health/db")).json()["migration_status"] == told
    assert (await client.get("/health/ready")).status_code == ready


async def test_database_health_is_503_with_errors_when_the_database_is_away(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise ConnectionRefusedError("secret-host:5432")

    monkeypatch.setattr(Database, "fetch", refuse)
    answer = await client.get("/health/db")
    assert (answer.status_code, answer.json()["errors"]) == (503, ["database: ConnectionRefusedError"])
    assert "secret-host" not in answer.text

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import text
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit import clock
from app.kit.module import Module
from app.kit.settings import forget
from app.modules.privacy.models import DataExport
from app.modules.privacy.service import PrivacyService
from app.modules.privacy.tasks import export
from app.modules.retention.tasks import clean_up
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.jobs.models import Job
from app.ports.jobs.tasks import GiveUp, run_here

ME = "/api/v1/app/users/me"
EXPORT = f"{ME}/export"
SignIn = Callable[..., AsyncClient]


@pytest.fixture(autouse=True)
def settings() -> Iterator[None]:
    yield
    forget()


async def id_of(client: AsyncClient) -> UUID:
    return UUID((await client.get(ME)).json()["id"])


async def bye(_: AsyncSession) -> str:
    return "bye"


async def test_an_export_holds_what_is_mine_and_opens_nothing(
    app: FastAPI, client: AsyncClient, sign_in: SignIn
) -> None:
    me, other = await id_of(client), sign_in(sub="bob", email="bob@example.com", email_verified=True)
    assert (await client.get(EXPORT)).status_code == 404
    key = await client.post("/api/v1/app/api-keys", json={"name": "Nightly", "scopes": ["read"]})
    assert key.status_code == 201, key.text
    begun = await client.post(EXPORT)
    assert begun.status_code == 202, begun.text
    task = (await client.get(f"/api/v1/app/tasks/{begun.json()['task_id']}")).json()
    assert (task["task"], task["state"]) == ("privacy.export", "queued")
    # There is one at a time.
    assert (await client.post(EXPORT)).json() == begun.json()
    await run_here(app, export(me))
    found = await client.get(EXPORT)
    assert (found.status_code, found.headers["content-disposition"]) == (200, "attachment; filename=export.json")
    assert (found.headers["content-type"], found.headers["cache-control"]) == ("application/json", "no-store")
    document = found.json()
    assert document["user"]["email"] == "ada@example.com"
    assert [it["name"] for it in document["api_keys"]] == ["Nightly"]
    assert {module.name for module in app.state.modules if module.export} <= document.keys()
    for secret in (key.json()["key"], "key_hash", "password_hash", "token_hash", "secret", "credential_id"):
        assert secret not in found.text
    assert (await other.get(EXPORT)).status_code == 404
    await run_here(app, export(await id_of(other)))
    assert "ada@example.com" not in (await other.get(EXPORT)).text


async def test_a_key_neither_takes_data_away_nor_deletes_it(
    app: FastAPI, database: Database, client: AsyncClient
) -> None:
    scopes = ["read", "write"]
    key = (await client.post("/api/v1/app/api-keys", json={"name": "All", "scopes": scopes})).json()["key"]
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as program:
        for method, path in (("POST", EXPORT), ("GET", EXPORT), ("DELETE", ME)):
            answer = await program.request(method, path, headers={"Authorization": f"Bearer {key}"})
            assert (answer.status_code, answer.json()["code"]) == (403, "sign_in_required")
            assert (await program.request(method, path)).status_code == 401
    assert (await client.get(ME)).status_code == 200
    async with database.session() as session:
        assert (await session.exec(select(Job).where(Job.task == "privacy.export"))).all() == []


async def test_an_export_is_there_for_a_while(app: FastAPI, database: Database, client: AsyncClient) -> None:
    me = await id_of(client)
    await run_here(app, export(me))
    await run_here(app, export(me))
    async with database.session() as session:
        [row] = (await session.exec(select(DataExport))).all()
        assert timedelta(hours=71) < row.expires_at - clock.now() < timedelta(hours=73)
        row.expires_at = clock.now()
    assert (await client.get(EXPORT)).status_code == 404
    assert (await run_here(app, clean_up()))["exports"] == 1
    async with database.session() as session:
        assert (await session.exec(select(DataExport))).all() == []


async def test_an_export_is_bounded(app: FastAPI, client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    me = await id_of(client)
    monkeypatch.setenv("PRIVACY_EXPORT_MOST_BYTES", "10000")
    forget()

    async def much(_: AsyncSession, __: UUID) -> str:
        return "x" * 10_000

    modules = app.state.modules
    app.state.modules = (*modules, Module(name="much", export=much))
    try:
        with pytest.raises(GiveUp, match="more than an export may hold"):
            await run_here(app, export(me))
    finally:
        app.state.modules = modules
    assert (await client.get(EXPORT)).status_code == 404
    await run_here(app, export(uuid4()))


async def test_erasing_leaves_no_row_of_a_user(
    app: FastAPI, database: Database, client: AsyncClient, sign_in: SignIn
) -> None:
    me, bob = await id_of(client), await id_of(sign_in(sub="bob", email="bob@example.com", email_verified=True))
    await client.post("/api/v1/app/api-keys", json={"name": "Nightly", "scopes": ["read"]})
    await client.post(EXPORT)
    await run_here(app, export(me))
    assert await PrivacyService(app).erase(me, bye) == "bye"
    async with database.session() as session:
        assert await session.get(User, me) is None
        assert await session.get(User, bob) is not None
        connection = await session.connection()
        for table in SQLModel.metadata.sorted_tables:
            for key in table.foreign_keys:
                if key.column.table.name == "users":
                    rows = await connection.execute(table.select().where(key.parent == me))
                    assert rows.all() == [], table.name


async def test_what_cannot_be_erased_wholly_is_not_erased_at_all(
    app: FastAPI, database: Database, client: AsyncClient
) -> None:
    me = await id_of(client)

    async def fail(session: AsyncSession) -> str:
        await (await session.connection()).execute(text("DELETE FROM data_exports"))
        raise RuntimeError("no")

    await run_here(app, export(me))
    with pytest.raises(RuntimeError, match="no"):
        await PrivacyService(app).erase(me, fail)
    assert json.loads((await client.get(EXPORT)).text)["user"]["id"] == str(me)

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlmodel import select
from typer.testing import CliRunner

from app.kit import clock
from app.kit.settings import forget
from app.main import create_app, lifespan
from app.modules.access.commands import commands
from app.modules.access.service import SELF_CARE
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.identity.bearer import Role
from app.ports.identity.identity import authenticate
from tests.provider import Provider

ME = "/api/v1/app/users/me"
USERS = "/api/v1/admin/users"
SignIn = Callable[..., AsyncClient]


@pytest.fixture
async def admin(sign_in: SignIn, database: Database) -> AsyncClient:
    async with database.session() as session:
        session.add(User(subject="placeholder", email="first@example.com"))
    client = sign_in(sub="root", email="root@example.com", email_verified=True, name="Root")
    await client.get(ME)
    await give(database, "root@example.com", role=Role.ADMIN)
    return client


async def give(database: Database, email: str, **fields: Any) -> User:
    async with database.session() as session:
        user = (await session.exec(select(User).where(User.email == email))).one()
        user.sqlmodel_update(fields)
        session.add(user)
    return user


async def test_without_a_token_nothing_is_told(app: FastAPI, database: Database, verifying: None) -> None:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as nobody:
        answer = await nobody.get(ME)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        bad = await nobody.get(ME, headers={"Authorization": "Bearer x"})
        assert bad.headers["www-authenticate"].startswith('Bearer error="invalid_token", error_description="')


async def test_who_is_deactivated_is_out_at_once(sign_in: SignIn, admin: AsyncClient) -> None:
    user = sign_in(sub="bob", email="bob@example.com")
    id = (await user.get(ME)).json()["id"]
    answer = await admin.post(f"{USERS}/{id}/deactivate")
    assert (answer.status_code, answer.json()["is_active"]) == (200, False)
    for request in (user.get(ME), user.patch(ME, json={"display_name": "x"}), user.get(USERS)):
        refused = await request
        assert (refused.status_code, refused.json()["code"]) == (403, "account_deactivated")
    assert (await admin.post(f"{USERS}/{id}/deactivate")).status_code == 200
    assert (await admin.post(f"{USERS}/{id}/activate")).json()["is_active"] is True
    assert (await sign_in(sub="bob", email="bob@example.com").get(ME)).json()["id"] == id


async def test_who_may_only_read_changes_nothing(sign_in: SignIn, admin: AsyncClient, app: FastAPI) -> None:
    reader = sign_in(sub="bob", email="bob@example.com")
    id = (await reader.get(ME)).json()["id"]
    assert (await admin.patch(f"{USERS}/{id}", json={"role": "readonly"})).json()["role"] == "readonly"
    assert (await reader.get(ME)).json()["role"] == "readonly"
    document = (await reader.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    changing = [
        (method.upper(), path.replace("{id}", id))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if path.startswith(("/api/v1/app/", "/api/v1/admin/"))
        and method != "get"
        # How they sign in is their own affair; those routes are tested with what they belong to.
        and not operation.get("x-self-care")
    ]
    assert len(changing) >= 4
    for method, path in changing:
        answer = await reader.request(method, path, json={"display_name": "x"})
        assert (answer.status_code, answer.json()["code"]) == (403, "read_only"), (method, path)


async def test_who_may_only_read_uses_what_is_marked_as_their_own_affair(
    sign_in: SignIn, admin: AsyncClient, app: FastAPI
) -> None:
    reader = sign_in(sub="bob", email="bob@example.com")
    id = (await reader.get(ME)).json()["id"]
    await admin.patch(f"{USERS}/{id}", json={"role": "readonly"})
    router = APIRouter(prefix="/probe", dependencies=[Depends(authenticate)], include_in_schema=False)

    @router.post("/own", status_code=204, openapi_extra=SELF_CARE)
    @router.post("/other", status_code=204)
    async def change() -> None: ...

    app.include_router(router)
    assert [(await reader.post(f"/probe/{name}")).status_code for name in ("own", "other")] == [204, 403]
    assert (await reader.get(ME)).json()["role"] == "readonly"


async def test_admins_find_users(sign_in: SignIn, admin: AsyncClient) -> None:
    for number in range(3):
        await sign_in(sub=f"user-{number}", email=f"u{number}@example.com", name=f"Number {number}").get(ME)
    page = (await admin.get(USERS, params={"size": 2})).json()
    assert (page["total"], page["pages"], len(page["items"])) == (5, 3, 2)
    assert page["items"][0]["display_name"] == "Number 2"
    [subject] = {item["subject"] for item in page["items"] if item["display_name"] == "Number 2"}

    async def found(**query: str) -> list[str]:
        return [item["email"] for item in (await admin.get(USERS, params=query)).json()["items"]]

    assert await found(q="NUMBER 1") == ["u1@example.com"]
    assert await found(q="U1@EXAMPLE") == ["u1@example.com"]
    assert await found(q=subject) == ["u2@example.com"]
    assert await found(q="%") == []
    assert await found(role="admin") == ["root@example.com"]
    [one] = (await admin.get(USERS, params={"q": "u1@"})).json()["items"]
    await admin.post(f"{USERS}/{one['id']}/deactivate")
    assert await found(is_active="false") == ["u1@example.com"]
    assert await found(is_active="true", role="user", q="number") == ["u2@example.com", "u0@example.com"]
    assert (await admin.get(f"{USERS}/{one['id']}")).json()["is_active"] is False
    changed = await admin.patch(f"{USERS}/{one['id']}", json={"display_name": "One"})
    assert changed.json() == (await admin.get(f"{USERS}/{one['id']}")).json()
    assert changed.json()["display_name"] == "One"
    for bad in ("role=root", "is_active=maybe", "page=0", "q=%00"):
        assert (await admin.get(f"{USERS}?{bad}")).status_code == 422, bad


async def test_users_that_are_not_there(admin: AsyncClient) -> None:
    path = f"{USERS}/00000000-0000-7000-8000-000000000000"
    for request in (
        admin.get(path),
        admin.patch(path, json={}),
        admin.post(f"{path}/activate"),
        admin.post(f"{path}/deactivate"),
    ):
        assert (await request).status_code == 404


async def test_the_last_admin_stays(sign_in: SignIn, admin: AsyncClient) -> None:
    me = (await admin.get(ME)).json()["id"]
    for request in (admin.post(f"{USERS}/{me}/deactivate"), admin.patch(f"{USERS}/{me}", json={"role": "user"})):
        answer = await request
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    other = sign_in(sub="bob", email="bob@example.com")
    bob = (await other.get(ME)).json()["id"]
    assert (await admin.patch(f"{USERS}/{bob}", json={"role": "admin"})).status_code == 200
    await admin.post(f"{USERS}/{bob}/deactivate")
    # One who is locked out does not count.
    assert (await admin.post(f"{USERS}/{me}/deactivate")).status_code == 409
    await admin.post(f"{USERS}/{bob}/activate")
    assert (await admin.patch(f"{USERS}/{me}", json={"role": "user"})).json()["role"] == "user"
    assert (await admin.get(USERS)).json()["code"] == "admins_only"
    assert (await sign_in(sub="bob", email="bob@example.com").get(USERS)).status_code == 200


async def test_two_admins_cannot_lock_each_other_out(migrated: object, provider: Provider) -> None:
    app = create_app()
    async with (
        lifespan(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://test") as client,
        provider.verifying(app),
    ):
        tokens = [await provider.sign_in(app, sub=name, email=name) for name in ("one", "two")]
        headers = [{"Authorization": f"Bearer {token}"} for token in tokens]
        ids = [(await client.get(ME, headers=mine)).json()["id"] for mine in headers]
        try:
            for name in ("one", "two"):
                await give(app.state.database, name, role=Role.ADMIN)
            answers = await asyncio.gather(
                *(
                    client.post(f"{USERS}/{victim}/deactivate", headers=mine)
                    for mine, victim in zip(headers, reversed(ids), strict=True)
                )
            )
            assert sorted(answer.status_code for answer in answers)[0] == 200
            assert sorted(answer.status_code for answer in answers)[1] in {403, 409}
        finally:
            async with app.state.database.session() as session:
                for user in (await session.exec(select(User).where(User.email != None))).all():  # noqa: E711
                    await session.delete(user)


def test_somebody_is_made_the_first_admin(migrated: object) -> None:
    async def seed(*users: User) -> None:
        application = create_app()
        async with lifespan(application), application.state.database.session() as session:
            session.add_all(users)

    async def take_away() -> list[str]:
        application = create_app()
        async with lifespan(application), application.state.database.session() as session:
            users = (await session.exec(select(User))).all()
            for user in users:
                await session.delete(user)
            return [user.subject for user in users if user.role == Role.ADMIN]

    def make(who: str) -> tuple[int, str]:
        result = CliRunner().invoke(commands, ["make-admin", who], catch_exceptions=False)
        return result.exit_code, result.output

    made = clock.now() - timedelta(days=1)
    asyncio.run(
        seed(
            User(subject="https://id|ada", email="ada@example.com", email_verified=True, created_at=made),
            User(subject="https://id|eve", email="bob@example.com"),
            User(subject="https://id|bob", email="Bob@example.com", email_verified=True),
        )
    )
    try:
        for nobody in ("eve@example.com", "d", "%", "", "|ada"):
            code, output = make(nobody)
            assert (code, output.startswith(f"There is no such user: {nobody}.")) == (1, True), output
        for who in ("ADA@example.com", "bob@example.com", "bob"):
            code, output = make(who)
            assert (code, "is an admin" in output) == (0, True), output
    finally:
        assert sorted(asyncio.run(take_away())) == ["https://id|ada", "https://id|bob"]
        forget()

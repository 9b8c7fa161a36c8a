import asyncio
import time
from collections.abc import Callable

import time_machine
from fastapi import APIRouter, FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlmodel import col, delete, func, select

from app.main import create_app, lifespan
from app.modules.users.models import User
from app.modules.users.service import CurrentUser
from app.ports.db.database import Database, Session
from tests.provider import Provider

ME = "/api/v1/app/users/me"
USERS = "/api/v1/admin/users"
SignIn = Callable[..., AsyncClient]


async def test_a_user_is_there_from_the_first_request_and_follows_the_token(
    sign_in: SignIn, database: Database, provider: Provider
) -> None:
    first = sign_in(sub="bob", email="bob@example.com", email_verified=True, name="Bob")
    me = (await first.get(ME)).json()
    assert (me["email"], me["email_verified"], me["display_name"]) == ("bob@example.com", provider.VERIFIES, "Bob")
    assert (me["role"], me["is_active"]) == ("user", True)
    await first.patch(ME, json={"display_name": "Robert"})
    later = int(time.time()) + 20
    newer = sign_in(sub="bob", email="new@example.com", email_verified=False, name="Bobby", iat=later)
    with time_machine.travel(later + 1):
        changed = (await newer.get(ME)).json()
        assert (changed["id"], changed["email"], changed["email_verified"]) == (me["id"], "new@example.com", False)
        assert changed["display_name"] == "Robert"
        # An older token is still good, and does not undo what a newer one has said.
        assert (await first.get(ME)).json()["email"] == "new@example.com"
        assert (await sign_in(sub="bob", iat=later + 20).get(ME)).json()["email"] == "new@example.com"
    async with database.session() as session:
        assert (await session.exec(select(func.count()).select_from(User))).one() == 1


async def test_fifty_first_requests_make_one_row(migrated: object, provider: Provider) -> None:
    """Over real connections, each with its own transaction."""
    app = create_app()
    async with lifespan(app):
        app.state.verifier = provider.new_verifier()
        headers = {"Authorization": f"Bearer {provider.token(sub=provider.person('racer'), email='racer@example.com')}"}
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test", headers=headers) as client:
            answers = await asyncio.gather(*(client.get(ME) for _ in range(50)))
            assert {answer.status_code for answer in answers} == {200}
            assert len({answer.json()["id"] for answer in answers}) == 1
        async with app.state.database.session() as session:
            rows = (await session.exec(select(User).where(User.email == "racer@example.com"))).all()
            assert len(rows) == 1
            await session.delete(rows[0])


async def test_roles_of_the_provider_are_the_providers(sign_in: SignIn, provider: Provider, app: FastAPI) -> None:
    app.state.verifier = provider.new_verifier(roles_claim="roles")
    boss = sign_in(sub="boss", roles=["admin"])
    assert (await boss.get(ME)).json()["role"] == "admin"
    assert (await boss.get(USERS)).status_code == 200
    worker = sign_in(sub="worker", roles=["other"])
    id = (await worker.get(ME)).json()["id"]
    answer = await boss.patch(f"{USERS}/{id}", json={"role": "admin"})
    assert (answer.status_code, "provider" in answer.json()["detail"]) == (409, True)
    later = int(time.time()) + 20
    with time_machine.travel(later + 1):
        assert (await sign_in(sub="boss", roles=["readonly"], iat=later).get(ME)).json()["role"] == "readonly"
        assert (await boss.get(USERS)).status_code == 403


async def test_a_token_gives_no_more_than_it_says(sign_in: SignIn, provider: Provider, app: FastAPI) -> None:
    """Who has lost a role may still have a token of before, and change their row with it: the next one looks older."""
    app.state.verifier = provider.new_verifier(roles_claim="roles")
    before, issued = sign_in(sub="boss", roles=["admin"]), int(time.time())
    assert (await before.get(USERS)).status_code == 200
    with time_machine.travel(issued + 20):
        await before.patch(ME, json={"display_name": "Boss"})
        for roles, status in ((["other"], 200), (["readonly"], 403)):
            after = sign_in(sub="boss", roles=roles, iat=issued + 10)
            assert (await after.get(USERS)).json()["code"] == "admins_only"
            changed = await after.patch(ME, json={"display_name": "Boss"})
            assert changed.status_code == status


async def test_who_is_deleted_while_they_change_something_is_told_of_a_conflict(
    sign_in: SignIn, app: FastAPI, database: Database
) -> None:
    router = APIRouter(prefix="/probe", include_in_schema=False)

    @router.post("", status_code=204)
    async def change(me: CurrentUser, session: Session) -> None:
        # As if another request had: this session does not know of it.
        await session.exec(delete(User).where(col(User.id) == me.id), execution_options={"synchronize_session": False})
        me.display_name = "Late"

    app.include_router(router)
    answer = await sign_in(sub="bob").post("/probe")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")

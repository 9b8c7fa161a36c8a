import asyncio
import time
from collections.abc import Callable

import time_machine
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlmodel import func, select

from app.main import create_app, lifespan
from app.modules.users.models import User
from app.ports.db.database import Database
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

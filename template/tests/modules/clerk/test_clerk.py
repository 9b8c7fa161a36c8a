import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlmodel import select

from app.kit.settings import forget
from app.modules.users.models import User
from app.ports.db.database import Database
from tests.provider import Provider
from tests.sender import SECRET, Tell, only_user, signed, telling

ME = "/api/v1/app/users/me"
SignIn = Callable[..., AsyncClient]


def event(kind: str = "user.updated", at: int = 1_790_000_000_000, **more: Any) -> dict[str, Any]:
    """Return an event with the user as Clerk shows them, or with the user changed."""
    data = {
        "id": "user_ada",
        "object": "user",
        "first_name": "Ada",
        "last_name": "Lovelace",
        "primary_email_address_id": "idn_2",
        "email_addresses": [
            {"id": "idn_1", "email_address": "old@example.com", "verification": {"status": "verified"}},
            {"id": "idn_2", "email_address": "ada@example.com", "verification": {"status": "verified"}},
        ],
        "public_metadata": {},
        "private_metadata": {"role": "admin"},
        "unsafe_metadata": {"role": "admin"},
        "created_at": 1_700_000_000_000,
        "updated_at": at,
    }
    return {"data": {**data, **more}, "object": "event", "type": kind, "timestamp": at, "instance_id": "ins_1"}


GONE = {"data": {"deleted": True, "id": "user_ada", "object": "user"}, "object": "event", "type": "user.deleted"}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CLERK_WEBHOOK_SECRET", SECRET)
    forget()
    yield
    forget()


@pytest.fixture
async def tell(app: FastAPI, database: Database, verifying: None) -> AsyncIterator[Tell]:
    async with telling(app, "/api/v1/public/webhooks/clerk", "svix") as tell:
        yield tell


async def test_users_come_change_and_go(tell: Tell, sign_in: SignIn, database: Database) -> None:
    assert (await tell(event("user.created"))).status_code == 204
    found = await only_user(database)
    assert found is not None
    assert (found.email, found.email_verified, found.display_name) == ("ada@example.com", True, "Ada Lovelace")
    assert found.role == "user"
    assert (await sign_in(sub="ada").get(ME)).json()["id"] == str(found.id)
    later = event(at=1_790_000_000_500, primary_email_address_id="idn_1", first_name=None)
    assert (await tell(later)).status_code == 204
    assert (await tell(event(at=1_790_000_000_400))).status_code == 204
    changed = (await sign_in(sub="ada").get(ME)).json()
    assert (changed["email"], changed["display_name"]) == ("old@example.com", "Lovelace")
    assert (await tell(GONE)).status_code == 204
    assert await only_user(database) is None
    assert (await tell(event(at=1_800_000_000_000))).status_code == 204
    assert await only_user(database) is None
    assert (await sign_in(sub="ada").get(ME)).status_code == 403


async def test_an_address_that_is_not_shown_to_be_theirs_is_not_verified(tell: Tell, database: Database) -> None:
    address = {"id": "idn_2", "email_address": "ada@example.com"}
    for number, verification in enumerate(({"status": "unverified"}, None, {"status": None})):
        await tell(event(at=1_790_000_000_000 + number, email_addresses=[{**address, "verification": verification}]))
        found = await only_user(database)
        assert found is not None
        assert (found.email, found.email_verified) == ("ada@example.com", False)
    await tell(event(at=1_790_000_000_100, email_addresses=[], primary_email_address_id=None))
    bare = await only_user(database)
    assert bare is not None
    assert bare.email is None


async def test_roles_come_from_the_public_metadata(
    app: FastAPI, tell: Tell, database: Database, provider: Provider
) -> None:
    app.state.verifier = provider.new_verifier(roles_claim="metadata.role")
    await tell(event(public_metadata={"role": "admin"}))
    found = await only_user(database)
    assert found is not None
    assert found.role == "admin"
    await tell(event(at=1_790_000_000_001))
    changed = await only_user(database)
    assert changed is not None
    assert changed.role == "user"


async def test_who_is_banned_is_locked_out(tell: Tell, sign_in: SignIn) -> None:
    assert (await tell(event(banned=False))).status_code == 204
    assert (await sign_in(sub="ada").get(ME)).status_code == 200
    assert (await tell(event(at=1_790_000_000_001, banned=True))).status_code == 204
    assert (await sign_in(sub="ada").get(ME)).json()["code"] == "account_deactivated"


async def test_an_event_that_comes_again_does_nothing(tell: Tell, database: Database) -> None:
    await tell(event(), "msg_same")
    async with database.session() as session:
        await session.delete((await session.exec(select(User))).one())
    assert (await tell(event(), "msg_same")).status_code == 204
    assert await only_user(database) is None
    await tell(event(), "msg_other")
    assert await only_user(database) is not None


@pytest.mark.parametrize(
    "unknown",
    [
        {"type": "session.created", "data": {"id": "sess_1", "user_id": "user_ada"}},
        {"type": "organization.deleted", "data": {"id": "org_1", "deleted": True}},
        {"type": "user.somethingNew", "data": {}},
        {"type": "", "data": {}},
    ],
)
async def test_events_that_are_no_matter_here_are_accepted(
    tell: Tell, database: Database, unknown: dict[str, Any]
) -> None:
    assert (await tell(unknown)).status_code == 204
    assert await only_user(database) is None


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"[" * 100_000,
        {"type": "user.updated"},
        {"type": "user.updated", "data": {}},
        {"type": "user.deleted", "data": {}},
        {"type": ["user.deleted"], "data": {"id": "user_ada"}},
        event(id="mch_1"),
        event(id="user_ada\n"),
        event(id=1),
        event(at=10**30),
        event(updated_at=None),
        event(email_addresses="ada@example.com"),
    ],
)
async def test_what_is_signed_and_makes_no_sense_is_told(tell: Tell, database: Database, wrong: object) -> None:
    answer = await tell(wrong)
    assert (answer.status_code, answer.json()["code"]) == (400, "no_event")
    assert await only_user(database) is None


async def test_an_event_that_is_not_signed_does_nothing(app: FastAPI, database: Database, verifying: None) -> None:
    body = json.dumps(event()).encode()
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        for headers in ({}, signed(body, key=b"x" * 32, prefix="svix"), signed(body)):
            answer = await client.post("/api/v1/public/webhooks/clerk", content=body, headers=headers)
            assert answer.status_code == 401
    assert await only_user(database) is None

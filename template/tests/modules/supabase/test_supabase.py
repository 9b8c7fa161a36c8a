import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import time_machine
from fastapi import FastAPI
from httpx2 import AsyncClient
from sqlmodel import select
from typer.testing import CliRunner

from app.installed import MODULES
from app.kit.settings import forget
from app.modules.users.models import User
from app.ports.db.database import Database
from tests.provider import Provider
from tests.sender import SECRET, Tell, only_user, telling

ME = "/api/v1/app/users/me"
SignIn = Callable[..., AsyncClient]
ADA = Provider().person("ada")


def event(kind: str = "UPDATE", minute: int = 0, **more: Any) -> dict[str, Any]:
    """Return an event with the user as the trigger shows them, or with the user changed."""
    record = {
        "id": ADA,
        "email": "ada@example.com",
        "email_confirmed_at": "2026-11-01T12:00:00+00:00",
        "raw_app_meta_data": {"provider": "email"},
        "raw_user_meta_data": {"full_name": "Ada", "name": None},
        "is_anonymous": False,
        "deleted_at": None,
        **more,
    }
    return {
        "type": kind,
        "schema": "auth",
        "table": "users",
        "occurred_at": f"2026-11-01T12:{minute:02}:00.123456+00:00",
        "record": None if kind == "DELETE" else record,
        "old_record": None if kind == "INSERT" else record,
    }


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("SUPABASE_WEBHOOK_SECRET", SECRET)
    forget()
    yield
    forget()


@pytest.fixture
async def tell(app: FastAPI, database: Database, verifying: None) -> AsyncIterator[Tell]:
    async with telling(app, "/api/v1/public/webhooks/supabase") as tell:
        yield tell


async def test_users_come_change_and_go(
    app: FastAPI, tell: Tell, sign_in: SignIn, database: Database, provider: Provider
) -> None:
    app.state.verifier = provider.new_verifier(confirms_email=True)
    assert (await tell(event("INSERT"))).status_code == 204
    found = await only_user(database)
    assert found is not None
    assert (found.email, found.email_verified, found.display_name) == ("ada@example.com", True, "Ada")
    app.state.verifier = provider.new_verifier()
    # The token does not say that the address is verified, and does not undo what the project has told.
    later = int(time.time()) + 20
    with time_machine.travel(later + 1):
        me = (await sign_in(sub="ada", email="ada@example.com", iat=later).get(ME)).json()
        assert (me["id"], me["email_verified"]) == (str(found.id), True)
    await tell(event(minute=2, email="new@example.com", email_confirmed_at=None))
    await tell(event(minute=1, email="late@example.com"))
    changed = await only_user(database)
    assert changed is not None
    assert (changed.email, changed.email_verified) == ("new@example.com", False)
    assert (await tell(event("DELETE", minute=3))).status_code == 204
    assert await only_user(database) is None
    await tell(event(minute=4))
    assert await only_user(database) is None
    assert (await sign_in(sub="ada").get(ME)).status_code == 403


async def test_an_address_is_verified_where_the_project_confirms_addresses(
    app: FastAPI, tell: Tell, database: Database, provider: Provider
) -> None:
    """Without that, email_confirmed_at is the time of the sign-up, whosever the address is."""

    async def verified_after(minute: int, **more: Any) -> bool:
        await tell(event(minute=minute, **more))
        found = await only_user(database)
        assert found is not None
        return found.email_verified

    assert not await verified_after(0)
    app.state.verifier = provider.new_verifier(confirms_email=True)
    assert await verified_after(1)
    assert not await verified_after(2, email_confirmed_at=None)


async def test_who_is_marked_as_deleted_has_gone(tell: Tell, database: Database) -> None:
    await tell(event("INSERT"))
    await tell(event(minute=1, deleted_at="2026-11-01T12:01:00+00:00"))
    assert await only_user(database) is None


async def test_anonymous_users_have_a_row_where_they_are_let_in(
    app: FastAPI, tell: Tell, database: Database, provider: Provider
) -> None:
    assert (await tell(event("INSERT", is_anonymous=True, email=None))).status_code == 204
    assert await only_user(database) is None
    app.state.verifier = provider.new_verifier(anonymous_users=True)
    await tell(event("INSERT", is_anonymous=True, email=None))
    assert await only_user(database) is not None


async def test_roles_come_from_what_users_cannot_write(
    app: FastAPI, tell: Tell, database: Database, provider: Provider
) -> None:
    app.state.verifier = provider.new_verifier(roles_claim="app_metadata.role")

    async def role_after(news: dict[str, Any]) -> str:
        await tell(news)
        found = await only_user(database)
        assert found is not None
        return found.role

    assert await role_after(event("INSERT", raw_user_meta_data={"role": "admin"})) == "user"
    assert await role_after(event(minute=1, raw_app_meta_data={"role": "admin"})) == "admin"
    # A claim of which the row says nothing is left to tokens.
    app.state.verifier = provider.new_verifier(roles_claim="user_role")
    assert await role_after(event(minute=2)) == "admin"


async def test_who_is_banned_is_locked_out(tell: Tell, sign_in: SignIn) -> None:
    assert (await tell(event(is_banned=False))).status_code == 204
    assert (await sign_in(sub="ada").get(ME)).status_code == 200
    assert (await tell(event(minute=1, is_banned=True))).status_code == 204
    assert (await sign_in(sub="ada").get(ME)).json()["code"] == "account_deactivated"


async def test_an_event_that_comes_again_does_nothing(tell: Tell, database: Database) -> None:
    await tell(event("INSERT"), "msg_same")
    async with database.session() as session:
        await session.delete((await session.exec(select(User))).one())
    assert (await tell(event("INSERT"), "msg_same")).status_code == 204
    assert await only_user(database) is None


@pytest.mark.parametrize(
    "other",
    [event() | {"schema": "public"}, event() | {"table": "identities"}, event() | {"type": "TRUNCATE"}],
)
async def test_events_that_are_no_matter_here_are_accepted(
    tell: Tell, database: Database, other: dict[str, Any]
) -> None:
    assert (await tell(other)).status_code == 204
    assert await only_user(database) is None


@pytest.mark.parametrize(
    "wrong",
    [
        b"{",
        b"[]",
        {"user": {"id": ADA}, "metadata": {"name": "before-user-created"}},
        event() | {"occurred_at": "2026-11-01T12:00:00"},
        event() | {"occurred_at": None},
        event() | {"occurred_at": "9999-12-31T23:59:59-14:00"},
        event() | {"record": None},
        event("DELETE") | {"old_record": None},
        event(id="ada"),
        event(id=None),
        event(raw_app_meta_data="admin"),
    ],
)
async def test_what_is_signed_and_makes_no_sense_is_told(tell: Tell, database: Database, wrong: object) -> None:
    answer = await tell(wrong)
    assert (answer.status_code, answer.json()["code"]) == (400, "no_event")
    assert await only_user(database) is None


def test_the_trigger_is_printed_with_the_secret_and_the_address() -> None:
    [commands] = [module.commands for module in MODULES if module.name == "supabase"]
    assert commands is not None
    done = CliRunner().invoke(commands, ["trigger", "https://api.example.com/"])
    assert done.exit_code == 0
    assert "'https://api.example.com/api/v1/public/webhooks/supabase'" in done.stdout
    assert (done.stdout.count(SECRET), "<" in done.stdout.replace("<>", "")) == (2, False)
    for wrong in ("https://x'; drop table users", "https://x/$$;drop/**/table/**/users"):
        assert CliRunner().invoke(commands, ["trigger", wrong]).exit_code == 1

from datetime import timedelta
from uuid import UUID

import pytest
from fastapi import FastAPI

from app.kit import clock
from app.modules.contact.models import ContactMessage
from app.modules.contact.repository import ContactRepository
from app.modules.contact_users.service import count_messages, erase, export
from app.modules.reports.figures import Figure, Period
from app.modules.users.models import User
from app.ports.db.database import Database

ADDRESSES = ("ada@example.com", "Ada@Example.com", "ada@example.com.org", "xada@example.com", "bob@example.com", None)


async def somebody(database: Database, email: str | None, *, verified: bool) -> UUID:
    async with database.session() as session:
        user = User(subject=f"{email} {verified}", email=email, email_verified=verified)
        session.add(user)
        for address in ADDRESSES:
            message = ContactMessage(stamp=f"stamp {address}", email=address, message="Hello", more='{"company":"A"}')
            await ContactRepository(session).add(message)
    return user.id


async def left(database: Database) -> list[str | None]:
    async with database.session() as session:
        return [message.email for message in await ContactRepository(session).newest(100)]


async def test_messages_with_my_address_are_mine(database: Database) -> None:
    me = await somebody(database, "ada@example.com", verified=True)
    async with database.session() as session:
        found = await export(session, me)
    assert [(it["email"], it["message"], it["fields"]) for it in found] == [
        ("ada@example.com", "Hello", {"company": "A"}),
        ("Ada@Example.com", "Hello", {"company": "A"}),
    ]
    assert not any("stamp" in it or "confirmed" in it for it in found)
    async with database.session() as session:
        await erase(session, me)
    assert set(await left(database)) == set(ADDRESSES[2:])


@pytest.mark.parametrize(("email", "verified"), [("ada@example.com", False), (None, True), ("%", True), ("", True)])
async def test_an_address_that_may_be_anybodys_gives_nothing(
    database: Database, email: str | None, verified: bool
) -> None:
    me = await somebody(database, email, verified=verified)
    async with database.session() as session:
        assert await export(session, me) == []
        await erase(session, me)
    assert len(await left(database)) == len(ADDRESSES)


async def test_messages_of_a_period_are_counted(app: FastAPI, database: Database) -> None:
    assert count_messages in app.state.figures
    await somebody(database, None, verified=False)
    now, day = clock.now(), timedelta(days=1)
    async with database.session() as session:
        assert await count_messages(session, Period(now - day, now)) == [Figure("Contact messages", len(ADDRESSES))]
        assert await count_messages(session, Period(now, now + day)) == [Figure("Contact messages", 0)]

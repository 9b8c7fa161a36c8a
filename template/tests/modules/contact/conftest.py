"""A stranger at the contact form, the mails that are sent, and the jobs that are left."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.modules.contact.models import ContactMessage
from app.ports.db.database import Database
from app.ports.email.message import Message
from tests.configure import configure

__all__ = ["configure"]
CONTACT = "/api/v1/public/contact"
ADMIN = "admin@example.org"
MESSAGE = {"name": "Ada Lovelace", "email": "ada@example.com", "message": "When will it be ready?"}


class Postman:
    """Takes the mails that would be sent, in the order in which they are."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    async def send_later(self, session: AsyncSession, message: Message) -> None:
        self.sent.append(message)

    def take(self) -> list[Message]:
        """Return what was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent


class Stranger:
    """Somebody who loads the form, takes their time and sends it."""

    def __init__(self, client: AsyncClient, clock: time_machine.Traveller) -> None:
        self.client, self.clock = client, clock

    async def load(self) -> Any:
        answer = await self.client.get(f"{CONTACT}/status")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def stamp(self, seconds: float = 5) -> str:
        """Load the form, and look at it for a while."""
        stamp: str = (await self.load())["stamp"]
        self.clock.shift(timedelta(seconds=seconds))
        return stamp

    async def send(self, stamp: str | None = None, **fields: Any) -> Response:
        # In ASCII, so that what nobody can encode gets there as well.
        body = json.dumps({"stamp": stamp or await self.stamp(), **fields})
        return await self.client.post(CONTACT, content=body, headers={"content-type": "application/json"})


@pytest.fixture(autouse=True)
def somebody_is_told(configure: Callable[..., None]) -> None:
    configure(contact_to=ADMIN)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel("2026-11-28T12:00:00+00:00", tick=True) as clock:
        yield clock


@pytest.fixture
async def stranger(
    app: FastAPI, database: Database, configure: Callable[..., None], clock: time_machine.Traveller
) -> AsyncIterator[Stranger]:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield Stranger(client, clock)


@pytest.fixture
def postman(app: FastAPI) -> Iterator[Postman]:
    postman, outbox = Postman(), app.state.outbox
    app.state.outbox = postman
    yield postman
    app.state.outbox = outbox


async def messages(database: Database) -> list[ContactMessage]:
    """Return what has come, the oldest first."""
    async with database.session() as session:
        return list((await session.exec(select(ContactMessage).order_by(col(ContactMessage.id)))).all())

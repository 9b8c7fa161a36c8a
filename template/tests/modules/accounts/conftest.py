"""People who sign up and in, with the mails that they get."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from sqlmodel.ext.asyncio.session import AsyncSession

from app.ports.db.database import Database
from app.ports.email.message import Message

AUTH = "/api/v1/public/auth"
MINE = "/api/v1/app/auth"
PASSWORD = "three plain words, and a lamp"


class Postman:
    """Takes the mails that would be sent, in the order in which they are."""

    def __init__(self) -> None:
        self.sent: list[Message] = []

    async def send_later(self, session: AsyncSession, message: Message, *, wanted: bool = True) -> None:
        if wanted:
            self.sent.append(message)

    def take(self) -> list[Message]:
        """Return what was sent since the last time."""
        sent, self.sent = self.sent, []
        return sent

    def link(self) -> str:
        """Return the token in the one mail that was sent."""
        [mail] = self.take()
        return token_in(mail)


def token_in(mail: Message) -> str:
    [token] = set(re.findall(r"#token=([\w-]+)", mail.text))
    assert f"#token={token}" in str(mail.html)
    return str(token)


class Person:
    """Somebody at a client."""

    def __init__(self, client: AsyncClient, postman: Postman) -> None:
        self.client, self.postman = client, postman

    async def post(self, path: str, **body: object) -> Response:
        return await self.client.post(f"{AUTH}/{path}", json=body)

    async def register(self, email: str, password: str = PASSWORD, **more: object) -> None:
        """Sign up and confirm the address."""
        assert (await self.post("register", email=email)).status_code == 202
        assert (await self.verify(self.postman.link(), password, **more)).status_code == 204

    async def verify(self, token: str, password: str = PASSWORD, **more: object) -> Response:
        """Open the link of a registration, and choose a password there."""
        return await self.post("verify-email", token=token, password=password, **more)

    async def login(self, email: str, password: str = PASSWORD) -> dict[str, str]:
        """Sign in, and return the headers of who has."""
        answer = await self.post("login", email=email, password=password)
        assert answer.status_code == 200, answer.text
        return {"Authorization": f"Bearer {answer.json()['access_token']}", "refresh": answer.json()["refresh_token"]}


@contextmanager
def instead(app: FastAPI, **parts: object) -> Iterator[None]:
    """Put other parts into an application for a while."""
    before = {name: getattr(app.state, name) for name in parts}
    for name, part in parts.items():
        setattr(app.state, name, part)
    yield
    for name, part in before.items():
        setattr(app.state, name, part)


@pytest.fixture
def postman(app: FastAPI) -> Iterator[Postman]:
    postman = Postman()
    with instead(app, outbox=postman):
        yield postman


@pytest.fixture
async def person(app: FastAPI, database: Database, postman: Postman) -> AsyncIterator[Person]:
    # Over https, so that the client sends cookies back.
    async with AsyncClient(transport=ASGITransport(app), base_url="https://test") as client:
        yield Person(client, postman)

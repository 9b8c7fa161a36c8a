"""Somebody who sends webhooks: it signs them as Standard Webhooks says, with code of its own."""

import base64
import hmac
import itertools
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from sqlmodel import select

from app.modules.users.models import User
from app.ports.db.database import Database

KEY = b"a key of thirty-two random bytes"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"
Tell = Callable[..., Awaitable[Response]]


def signed(
    body: bytes, id: str = "msg_1", *, at: float = 0, key: bytes = KEY, prefix: str = "webhook", version: str = "v1"
) -> dict[str, str]:
    """Return the headers of a message that is sent now, or was at some time."""
    sent = str(int(at or time.time()))
    signature = base64.b64encode(hmac.digest(key, f"{id}.{sent}.".encode() + body, "sha256")).decode()
    return {
        f"{prefix}-id": id,
        f"{prefix}-timestamp": sent,
        f"{prefix}-signature": f"{version},{signature}",
        "content-type": "application/json",
    }


@asynccontextmanager
async def telling(app: FastAPI, path: str, prefix: str = "webhook") -> AsyncIterator[Tell]:
    """Return what sends an event to a route, and returns the answer."""
    ids = itertools.count()
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:

        async def send(event: object, id: str = "") -> Response:
            body = event if isinstance(event, bytes) else json.dumps(event).encode()
            headers = signed(body, id or f"msg_{next(ids)}", prefix=prefix)
            return await client.post(path, content=body, headers=headers)

        yield send


async def only_user(database: Database) -> User | None:
    """Return the user whom there is."""
    async with database.session() as session:
        return (await session.exec(select(User))).one_or_none()

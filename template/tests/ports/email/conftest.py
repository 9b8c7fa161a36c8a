"""An outbox whose mails are kept in memory, and what runs its jobs."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI

from app.kit.sealing import Sealing
from app.ports.db.database import Database
from app.ports.email.message import Email, Message
from app.ports.email.outbox import PURPOSE, Outbox
from app.ports.jobs.engine import EmbeddedEngine
from app.ports.jobs.queue import ignore, listen
from app.ports.jobs.settings import JobSettings
from tests.configure import configure
from tests.ports.email.contract import SENDER
from tests.ports.jobs.conftest import jobs, service
from tests.ports.jobs.contract import QUICK

__all__ = ["configure", "jobs", "service"]
Working = Callable[[], AbstractAsyncContextManager[None]]


class Post(Email):
    """A provider in memory, which goes wrong as often as it is told to, or takes its time."""

    def __init__(self) -> None:
        super().__init__(SENDER, timeout=5)
        self.sent: list[Message] = []
        self.failures: list[Exception] = []
        self.open = asyncio.Event()
        self.open.set()

    async def hand_over(self, message: Message) -> None:
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(message)

    async def look(self) -> None:
        return None


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def outbox(post: Post, service: FastAPI) -> Outbox:
    service.state.outbox = Outbox(post, Sealing(["ours"], PURPOSE))
    made: Outbox = service.state.outbox
    return made


@pytest.fixture
def working(service: FastAPI, jobs: Database, outbox: Outbox) -> Working:
    """Run jobs until the block ends."""

    quick: dict[str, Any] = QUICK

    @asynccontextmanager
    async def run() -> AsyncIterator[None]:
        engine = EmbeddedEngine(service, jobs, JobSettings(**quick))
        await engine.open(works=True)
        listen(jobs, engine.hand_over)
        try:
            yield
        finally:
            ignore(jobs)
            await engine.close()

    return run

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from structlog.testing import capture_logs

from app.modules.users.models import User
from app.ports.db.database import Database, Session
from app.ports.email.message import Email, EmailDelayed, EmailFailed, Message
from app.ports.email.outbox import AT_ONCE, ATTEMPTS, MOST_WAITING, CurrentOutbox, Delivery, Outbox
from tests.ports.email.contract import SENDER


def mail(subject: str = "Hi") -> Message:
    return Message(to="ada@example.com", subject=subject, text="https://example.com/reset?token=hunter2\n")


class Post(Email):
    """A provider in memory, which goes wrong as often as it is told to, or takes its time."""

    def __init__(self) -> None:
        super().__init__(SENDER, timeout=5)
        self.sent: list[str] = []
        self.failures: list[Exception] = []
        self.attempts = self.busy = self.busiest = 0
        self.takes = 0.0
        self.open = asyncio.Event()
        self.open.set()

    async def hand_over(self, message: Message) -> None:
        self.attempts += 1
        self.busy += 1
        self.busiest = max(self.busy, self.busiest)
        try:
            await asyncio.sleep(self.takes)
            await self.open.wait()
            if self.failures:
                raise self.failures.pop(0)
            self.sent.append(message.subject)
        finally:
            self.busy -= 1

    async def look(self) -> None:
        return None


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
async def delivery(post: Post) -> AsyncIterator[Delivery]:
    delivery = Delivery(post, drain=5, pause=0.001)
    yield delivery
    await delivery.close()


@pytest.fixture
async def client(delivery: Delivery, database: Database) -> AsyncIterator[AsyncClient]:
    """A route that stores a user, sends a mail, and then fails if that is what the name says."""
    app = FastAPI()
    app.state.database, app.state.delivery = database, delivery

    @app.post("/users/{name}")
    async def add(name: str, session: Session, outbox: CurrentOutbox) -> None:
        outbox.send_later(mail(name))
        session.add(User(subject=name))
        await session.flush()
        if name == "bad":
            raise RuntimeError
        if name == "twice":
            session.add(User(subject="first"))

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


async def test_a_mail_goes_out_when_its_transaction_is_there_to_stay(
    client: AsyncClient, delivery: Delivery, post: Post
) -> None:
    assert (await client.post("/users/first")).status_code == 200
    for name in ("bad", "twice"):
        with pytest.raises((RuntimeError, IntegrityError)):
            await client.post(f"/users/{name}")
    await delivery.close()
    assert post.sent == ["first"]


async def test_a_savepoint_that_is_rolled_back_takes_its_mails_along(
    database: Database, delivery: Delivery, post: Post
) -> None:
    async with database.session() as session:
        outbox = Outbox(session, delivery)
        outbox.send_later(mail("before"))
        async with session.begin_nested() as outer:
            outbox.send_later(mail("outer"))
            async with session.begin_nested():
                outbox.send_later(mail("inner, kept"))
            await outer.rollback()
        async with session.begin_nested():
            outbox.send_later(mail("kept"))
            async with session.begin_nested() as inner:
                outbox.send_later(mail("inner"))
                await inner.rollback()
        await asyncio.sleep(0.01)
        assert post.sent == []
    await delivery.close()
    assert post.sent == ["before", "kept"]


async def test_a_session_that_only_sends_mails_sends_them_once(
    database: Database, delivery: Delivery, post: Post
) -> None:
    async with database.session() as session:
        Outbox(session, delivery).send_later(mail())
    async with database.session() as session:
        outbox = Outbox(session, delivery)
        outbox.send_later(mail("rolled back"))
        await session.exec(select(User.id))
        await session.rollback()
        outbox.send_later(mail("later"))
        await session.commit()
    await delivery.close()
    assert post.sent == ["Hi", "later"]


async def test_a_request_neither_waits_for_the_provider_nor_fails_with_it(client: AsyncClient, post: Post) -> None:
    post.open.clear()
    post.failures = [EmailFailed("no")]
    try:
        # It is answered while the provider still has the mail in hand.
        assert (await client.post("/users/first")).status_code == 200
        assert (post.sent, len(post.failures)) == ([], 1)
    finally:
        post.open.set()


async def test_what_is_delayed_is_tried_again_and_what_is_refused_is_not(delivery: Delivery, post: Post) -> None:
    post.failures = [EmailDelayed("451 later"), EmailDelayed("429", after=0.05)]
    started = time.monotonic()
    delivery.send_later(mail("delayed"))
    while not post.sent and time.monotonic() - started < 5:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    assert (post.sent, post.attempts) == (["delayed"], 3)
    assert time.monotonic() - started >= 0.05
    post.failures = [EmailFailed("550 <ada@example.com>: hunter2@example.com is nobody"), EmailFailed("")]
    with capture_logs() as logs:
        delivery.send_later(mail())
        await delivery.close()
    assert post.attempts == 4
    [entry] = logs
    assert (entry["log_level"], entry["to"]) == ("error", "a***@example.com")
    assert "hunter2" not in str(entry)


async def test_a_provider_that_stays_away_is_given_up_and_a_broken_one_says_nothing_secret(post: Post) -> None:
    for failure, attempts in ((EmailDelayed("away"), ATTEMPTS), (RuntimeError("hunter2"), 1)):
        post.attempts, post.failures = 0, [failure] * 99
        delivery = Delivery(post, drain=9, pause=0.0001)
        with capture_logs() as logs:
            delivery.send_later(mail())
            await delivery.close()
        assert post.attempts == attempts
        assert logs[-1]["event"] == "mail not sent"
        assert "hunter2" not in str(logs)


async def test_few_are_sent_at_once_and_not_too_many_wait(delivery: Delivery, post: Post) -> None:
    post.takes = 0.001
    with capture_logs() as logs:
        for number in range(MOST_WAITING + 5):
            delivery.send_later(mail(f"{number}"))
        await delivery.close()
    assert post.busiest == AT_ONCE
    assert len(post.sent) == MOST_WAITING
    assert sum("are waiting" in str(entry.get("reason")) for entry in logs) == 5


async def test_the_end_waits_for_mails_but_not_for_long(post: Post) -> None:
    delivery = Delivery(post, drain=1, pause=0.001)
    post.takes = 0.05
    delivery.send_later(mail("in time"))
    await asyncio.sleep(0.01)
    post.takes = 60
    delivery.send_later(mail("too late"))
    with capture_logs() as logs:
        await delivery.close()
        delivery.send_later(mail("after the end"))
    assert post.sent == ["in time"]
    reasons = [entry["reason"] for entry in logs if entry["event"] == "mail not sent"]
    assert reasons == ["the service stopped before it was sent", "the service is stopping"]

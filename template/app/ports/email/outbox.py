"""Sends mails behind the back of requests: none waits for a mail server, and none fails because of one."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import stamina
from fastapi import Depends
from sqlalchemy import event
from sqlalchemy.orm import Session as SyncSession
from sqlalchemy.orm import SessionTransaction
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection
from structlog.contextvars import bind_contextvars

from app.kit.logging import get_logger
from app.ports.db.database import Session
from app.ports.email.message import Email, EmailDelayed, EmailFailed, Message, masked

AT_ONCE = 4
MOST_WAITING = 1000
# Some minutes, which is how long a server puts off those whom it does not know yet.
ATTEMPTS = 10
LONGEST_PAUSE_SECONDS = 120.0
log = get_logger(__name__)


class Delivery:
    """Hands mails to the provider in the background, a few at a time, and again when they are delayed.

    What waits is held in memory: a process that is killed loses it, and one that is stopped sends what it can within
    `drain` seconds. Each loss is an error in the log, with the id of the mail.
    """

    def __init__(self, provider: Email, *, drain: float, pause: float = 2) -> None:
        self.provider = provider
        self._drain, self._pause = drain, pause
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def send_later(self, message: Message) -> None:
        """Send a mail in the background. Returns at once and never raises."""
        if self._closed:
            self._lost(message, "the service is stopping")
        elif len(self._running) >= MOST_WAITING:
            self._lost(message, f"{MOST_WAITING} mails are waiting")
        else:
            task = asyncio.create_task(self._deliver(message))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _deliver(self, message: Message) -> None:
        bind_contextvars(mail=str(message.id))
        try:
            async for attempt in stamina.retry_context(
                on=self._pause_after,
                attempts=ATTEMPTS,
                timeout=None,
                wait_initial=self._pause,
                wait_max=LONGEST_PAUSE_SECONDS,
                wait_jitter=self._pause,
            ):
                # A mail that waits for its next attempt is in nobody's way.
                with attempt:
                    async with self._slots:
                        await self.provider.send(message)
        except asyncio.CancelledError:
            self._lost(message, "the service stopped before it was sent")
            raise
        except EmailFailed as error:
            self._lost(message, str(error))
        except Exception as error:
            # Its text may hold what the mail holds.
            self._lost(message, type(error).__name__)
        else:
            log.info("mail sent", to=masked(message.to.address))

    @staticmethod
    def _pause_after(error: Exception) -> bool | float:
        if not isinstance(error, EmailDelayed):
            return False
        return error.after is None or min(error.after, LONGEST_PAUSE_SECONDS)

    @staticmethod
    def _lost(message: Message, reason: str) -> None:
        log.error("mail not sent", mail=str(message.id), to=masked(message.to.address), reason=reason)

    async def close(self) -> None:
        """Take no more mails, and give those that wait some seconds."""
        self._closed = True
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._drain)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class Outbox:
    """The mails of one transaction: they are sent when it has been committed, and never when it is rolled back."""

    def __init__(self, session: AsyncSession, delivery: Delivery) -> None:
        self._session = session.sync_session
        self._delivery = delivery
        self._listening = False
        self._waiting: Sequence[tuple[SessionTransaction | None, Message]] = []

    def send_later(self, message: Message) -> None:
        """Send a mail once what has been done in this transaction, or savepoint, is there to stay."""
        if not self._listening:
            self._listening = True
            event.listen(self._session, "after_commit", self._committed)
            event.listen(self._session, "after_soft_rollback", self._rolled_back)
        self._waiting = [*self._waiting, (self._session.get_nested_transaction(), message)]

    def _committed(self, session: SyncSession) -> None:
        if savepoint := session.get_nested_transaction():
            outer = savepoint.parent if savepoint.parent and savepoint.parent.nested else None
            self._waiting = [(outer if owner is savepoint else owner, mail) for owner, mail in self._waiting]
            return
        waiting, self._waiting = self._waiting, []
        for _, message in waiting:
            self._delivery.send_later(message)

    def _rolled_back(self, _: SyncSession, ended: SessionTransaction) -> None:
        self._waiting = [(owner, mail) for owner, mail in self._waiting if ended.nested and not _within(owner, ended)]


def _within(inner: SessionTransaction | None, outer: SessionTransaction) -> bool:
    while inner is not None and inner is not outer:
        inner = inner.parent
    return inner is outer


async def _outbox(connection: HTTPConnection, session: Session) -> Outbox:
    return Outbox(session, connection.app.state.delivery)


CurrentOutbox = Annotated[Outbox, Depends(_outbox)]

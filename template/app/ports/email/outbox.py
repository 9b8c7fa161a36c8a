"""Mails are jobs: none delays a request, none fails one, and a process that is killed loses none.

A mail is written in the transaction that gives rise to it, and sent once that is committed. Until then it may hold
links that open an account, so the row of the job has it sealed, and forgets it when it has been sent.
"""

import zlib
from base64 import b64decode
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from pydantic import BaseModel
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit.logging import get_logger
from app.kit.sealing import Sealing
from app.ports.email.message import Email, EmailDelayed, EmailFailed, Message, as_base64, masked
from app.ports.jobs.queue import enqueue
from app.ports.jobs.tasks import GiveUp, Retry, Running, task

PURPOSE = b"mails that wait, 1"
# Some forty minutes, which is longer than most servers put off those whom they do not know yet.
ATTEMPTS = 10
LONGEST_PAUSE = timedelta(hours=1)
MOST_CHARACTERS = 60_000
log = get_logger(__name__)


class Waiting(BaseModel):
    """A mail as it waits. One that is not wanted is written only so that nobody can tell which of both it was."""

    message: Message
    wanted: bool


class Outbox:
    """Takes the mails of transactions, and sends them afterwards."""

    def __init__(self, provider: Email, sealing: Sealing) -> None:
        self.provider, self._sealing = provider, sealing

    async def send_later(self, session: AsyncSession, message: Message, *, wanted: bool = True) -> None:
        """Send a mail once the transaction of the session is committed; never, when it is rolled back.

        With `wanted=False` all is done as for any other mail, and nothing is sent: a request takes the same time
        whether it is for somebody who has an account or not. Raises ValueError when it is longer than a job may be.
        """
        await enqueue(session, send(message.id, self.seal(message, wanted=wanted)))

    def seal(self, message: Message, *, wanted: bool = True) -> str:
        """Write a mail as the row of a job holds it. Raises ValueError when it is longer than a job may be."""
        waiting = zlib.compress(Waiting(message=message, wanted=wanted).model_dump_json().encode())
        sealed = as_base64(self._sealing.seal(waiting, message.id))
        if len(sealed) > MOST_CHARACTERS:
            raise ValueError("This mail is too long: store what it tells, and mail a link.")
        return sealed

    def unseal(self, id: UUID, sealed: str) -> Message | None:
        """Read a mail from the row of a job; None is one that is not wanted. Raises GiveUp when no key opens it."""
        opened = self._sealing.unseal(b64decode(sealed), id)
        if opened is None:
            raise GiveUp(
                "SECRET_KEY has changed since: put the earlier one in SECRET_KEY_FALLBACKS, and retry the job."
            )
        waiting = Waiting.model_validate_json(zlib.decompress(opened))
        return waiting.message if waiting.wanted else None

    async def hand_over(self, message: Message) -> None:
        """Give a mail to the provider. Raises Retry and GiveUp, whose reasons hold nothing of what it says."""
        try:
            await self.provider.send(message)
        except EmailDelayed as error:
            after = None if error.after is None else min(timedelta(seconds=error.after), LONGEST_PAUSE)
            raise Retry(str(error), after=after) from None
        except EmailFailed as error:
            raise GiveUp(str(error)) from None
        except Exception as error:
            # Its text, and that of what led to it, may hold what the mail holds.
            raise Retry(type(error).__name__) from None
        log.info("mail sent", mail=str(message.id), to=masked(message.to.address))


@task(name="email.send", attempts=ATTEMPTS)
async def send(job: Running, id: UUID, sealed: str) -> None:
    """Send a mail. Its id stays the same at each attempt, so that a second copy can be told from a second mail."""
    outbox: Outbox = job.app.state.outbox
    if message := outbox.unseal(id, sealed):
        await outbox.hand_over(message)


async def _outbox(connection: HTTPConnection) -> Outbox:
    outbox: Outbox = connection.app.state.outbox
    return outbox


CurrentOutbox = Annotated[Outbox, Depends(_outbox)]

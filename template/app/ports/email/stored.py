"""Mails with files of the storage: the job names the objects, which are read when it is sent."""

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit.module import Module
from app.ports.email.message import MOST_ATTACHED_BYTES, MOST_ATTACHMENTS, Attachment, FileName, MediaType, Message
from app.ports.email.outbox import ATTEMPTS, Outbox
from app.ports.jobs.queue import enqueue
from app.ports.jobs.tasks import GiveUp, Queue, Running, task
from app.ports.storage.storage import ObjectNotFound, Storage, check_key


class StoredFile(BaseModel):
    """An object of the storage, and what it is called in a mail."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    key: Annotated[str, AfterValidator(check_key)]
    name: FileName
    content_type: MediaType


async def send_with_files(session: AsyncSession, outbox: Outbox, message: Message, files: Sequence[StoredFile]) -> None:
    """Send a mail with objects of the storage once the transaction of the session is committed.

    They have to be there until then: a mail whose file is gone, or whose files are larger than MOST_ATTACHED_BYTES in
    all, ends as a dead job that says so. Raises ValueError for too many of them.
    """
    if len(files) + len(message.attachments) > MOST_ATTACHMENTS:
        raise ValueError(f"A mail has {MOST_ATTACHMENTS} files at most.")
    await enqueue(session, send_stored(message.id, outbox.seal(message), list(files)))


@task(name="email.send_stored", queue=Queue.HEAVY, attempts=ATTEMPTS)
async def send_stored(job: Running, id: UUID, sealed: str, files: list[StoredFile]) -> None:
    """Read the files and send the mail with them."""
    outbox: Outbox = job.app.state.outbox
    if message := outbox.unseal(id, sealed):
        attachments = list(message.attachments)
        for file in files:
            room = MOST_ATTACHED_BYTES - sum(len(it.content) for it in attachments)
            content = await _read(job.app.state.storage, file.key, room)
            attachments.append(Attachment(name=file.name, content_type=file.content_type, content=content))
        await outbox.hand_over(message.model_copy(update={"attachments": tuple(attachments)}))


async def _read(storage: Storage, key: str, most: int) -> bytes:
    content = bytearray()
    try:
        async with storage.open(key) as chunks:
            async for chunk in chunks:
                content += chunk
                if len(content) > most:
                    raise GiveUp(f"The files have more than {MOST_ATTACHED_BYTES:,} bytes in all: mail a link to them.")
    except ObjectNotFound:
        raise GiveUp("A file of this mail is not in the storage any more.") from None
    return bytes(content)


# Every process knows the task, whether or not a module of its sends such mails.
email_storage = Module(name="email_storage")

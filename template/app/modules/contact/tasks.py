"""What happens to messages outside of requests: others are told, and what is old is forgotten."""

import json
from datetime import datetime, timedelta
from uuid import UUID

from app.kit.settings import load
from app.modules.contact.models import ContactMessage
from app.modules.contact.repository import ContactRepository
from app.modules.contact.settings import ContactSettings
from app.modules.retention.rules import lets_go
from app.ports.jobs.tasks import GiveUp, Running, task
from app.ports.outgoing.webhook import send

EVENT = "contact.message.created"


@task(attempts=16, backoff=timedelta(seconds=30), timeout=timedelta(minutes=2))
async def tell(job: Running, message_id: UUID) -> None:
    """Tell the receiver of the webhook of a message, for as long as the message is there."""
    receiver = load(ContactSettings).receiver
    if receiver is None:
        raise GiveUp("Nobody is to be told any more: CONTACT_WEBHOOK_URL is empty.")
    async with job.database.session() as session:
        message = await session.get(ContactMessage, message_id)
    if message is None:
        return
    data = {"id": str(message.id), "name": message.name, "email": message.email, "subject": message.subject}
    data |= {"message": message.message, "fields": json.loads(message.more)}
    await send(receiver, EVENT, data, id=f"msg_{message.id}", at=message.created_at)


@lets_go("contact messages")
async def forget(job: Running, now: datetime) -> int:
    """Remove the messages that have been kept for as long as they may be."""
    before = now - timedelta(days=load(ContactSettings).contact_keep_days)
    async with job.database.session() as session:
        return await ContactRepository(session).forget(before)

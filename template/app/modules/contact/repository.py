"""Queries for messages of the contact form."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam, delete, func, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from app.modules.contact.models import ContactMessage
from app.ports.db.records import Repository

_messages = ContactMessage.__table__  # type: ignore[attr-defined]
_CONFIRM = update(_messages).where(_messages.c.id == bindparam("message_id")).values(confirmed=bindparam("key"))


class ContactRepository(Repository[ContactMessage]):
    """Finds, adds and deletes messages."""

    table = ContactMessage

    async def add_once(self, message: ContactMessage) -> ContactMessage | None:
        """Add a message, or return the one that the same form has brought before."""
        try:
            async with self.session.begin_nested():
                await self.add(message)
        except IntegrityError:
            query = select(ContactMessage).where(ContactMessage.stamp == message.stamp)
            return (await self.session.exec(query)).one()
        return None

    async def confirm_once(self, message: ContactMessage, key: str) -> bool:
        """Note a confirmation, and tell whether it is the first one with this key."""
        try:
            async with self.session.begin_nested():
                # Past the message, whose attributes would have to be read again after a rollback.
                await (await self.session.connection()).execute(_CONFIRM, {"message_id": message.id, "key": key})
        except IntegrityError:
            return False
        return True

    async def newest(self, most: int) -> Sequence[ContactMessage]:
        """List the newest messages, the newest first."""
        query = select(ContactMessage).order_by(col(ContactMessage.created_at).desc()).limit(most)
        return (await self.session.exec(query)).all()

    async def giving(self, email: str) -> Sequence[ContactMessage]:
        """List the messages that give an address, the oldest first."""
        given = select(ContactMessage).where(func.lower(col(ContactMessage.email)) == email.lower())
        return (await self.session.exec(given.order_by(col(ContactMessage.id)))).all()

    async def came(self, since: datetime, until: datetime) -> int:
        """Count the messages of a period."""
        of_period = (col(ContactMessage.created_at) >= since) & (col(ContactMessage.created_at) < until)
        return (await self.session.exec(select(func.count()).select_from(ContactMessage).where(of_period))).one()

    async def erase(self, email: str) -> int:
        """Remove the messages that give an address, and count them."""
        query = delete(ContactMessage).where(func.lower(col(ContactMessage.email)) == email.lower())
        return (await self.session.exec(query)).rowcount

    async def forget(self, before: datetime) -> int:
        """Remove the messages that are older than a time, and count them."""
        return (await self.session.exec(delete(ContactMessage).where(col(ContactMessage.created_at) < before))).rowcount

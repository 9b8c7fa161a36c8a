"""Queries for the directory."""

from hashlib import sha256

from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from app.modules.directory.models import DirectoryEntry
from app.ports.db.records import Repository


class DirectoryRepository(Repository[DirectoryEntry]):
    """Finds and adds entries."""

    table = DirectoryEntry

    async def locked(self, subject: str) -> DirectoryEntry:
        """Find the entry of a user, or make it. Until the end of the transaction nobody else has it."""
        key = sha256(subject.encode()).hexdigest()
        query = select(DirectoryEntry).where(DirectoryEntry.subject_hash == key).with_for_update()
        entry = (await self.session.exec(query)).one_or_none()
        if entry is None:
            entry = DirectoryEntry(subject_hash=key)
            try:
                async with self.session.begin_nested():
                    await self.add(entry)
            except IntegrityError:
                entry = (await self.session.exec(query)).one()
        return entry

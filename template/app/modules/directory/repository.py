"""Queries for the directory."""

from hashlib import sha256

from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.sql.expression import SelectOfScalar

from app.modules.directory.models import DirectoryEntry
from app.ports.db.records import Repository


def _key(subject: str) -> str:
    return sha256(subject.encode()).hexdigest()


def _of(subject: str) -> SelectOfScalar[DirectoryEntry]:
    return select(DirectoryEntry).where(DirectoryEntry.subject_hash == _key(subject))


class DirectoryRepository(Repository[DirectoryEntry]):
    """Finds and adds entries."""

    table = DirectoryEntry

    async def known(self, subject: str) -> DirectoryEntry | None:
        """Find the entry of a user, if there is one."""
        return (await self.session.exec(_of(subject))).one_or_none()

    async def locked(self, subject: str) -> DirectoryEntry:
        """Find the entry of a user, or make it. Until the end of the transaction nobody else has it."""
        query = _of(subject).with_for_update()
        entry = (await self.session.exec(query)).one_or_none()
        if entry is None:
            entry = DirectoryEntry(subject_hash=_key(subject))
            try:
                async with self.session.begin_nested():
                    await self.add(entry)
            except IntegrityError:
                entry = (await self.session.exec(query)).one()
        return entry

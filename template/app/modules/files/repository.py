"""Queries for files. Those of users are for one owner; those that clean up are for all."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import String, and_, bindparam, case, delete, func, or_, update
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.modules.files.models import File, FileState
from app.modules.files.schemas import FileRead
from app.modules.users.models import User
from app.ports.db.pages import PagedQuery
from app.ports.db.records import select_fields
from app.ports.db.soft_delete import SoftDeletingRepository

_MINE = select_fields(File, FileRead).where(col(File.owner_id) == bindparam("owner_id"), col(File.deleted_at).is_(None))
_NEWEST_FIRST = _MINE.where(col(File.state) == FileState.LIVE).order_by(col(File.id).desc())

FILE_BY_ID = _MINE.where(col(File.id) == bindparam("file_id"))
ALL_FILES = PagedQuery(_NEWEST_FIRST, FileRead)
# The database lowers both sides, so that they always agree. SQLite only knows the case of A to Z.
_PATTERN = func.lower(bindparam("pattern", type_=String))
MATCHING_FILES = PagedQuery(_NEWEST_FIRST.where(func.lower(File.name).like(_PATTERN, escape="\\")), FileRead)


class Usage(NamedTuple):
    """What somebody keeps, in bytes and in files, and how many uploads they have begun."""

    size: int
    files: int
    pending: int


class FileRepository(SoftDeletingRepository[File]):
    """Finds, adds and deletes files."""

    table = File

    async def usage(self, owner: UUID, now: datetime) -> Usage:
        """Tell what an owner keeps. Whoever asks for the same owner waits, until this transaction has ended.

        A file that is deleted still counts while there is a link to upload it, which may bring the content again.
        """
        await self.session.exec(select(User.id).where(col(User.id) == owner).with_for_update())
        good = col(File.upload_until) > now
        here = col(File.deleted_at).is_(None)
        pending = and_(here, good, col(File.state) == FileState.PENDING)
        asked = select(
            func.coalesce(func.sum(File.size), 0),
            func.count(),
            func.coalesce(func.sum(case((pending, 1), else_=0)), 0),
        ).where(col(File.owner_id) == owner, or_(here, good))
        size, files, begun = (await self.session.exec(asked)).one()
        return Usage(int(size), files, int(begun))

    async def go_live(self, id: UUID, owner: UUID, sha256: str) -> bool:
        """Make a pending file live, and tell whether it was one."""
        mine = (col(File.id) == id) & (col(File.owner_id) == owner) & col(File.deleted_at).is_(None)
        pending = mine & (col(File.state) == FileState.PENDING)
        changed = await self.session.exec(update(File).where(pending).values(state=FileState.LIVE, sha256=sha256))
        return bool(changed.rowcount)

    async def unconfirmed(self, before: datetime, most: int) -> Sequence[File]:
        """Find pending files whose links ran out before a time, and let nobody else take them."""
        pending = (col(File.state) == FileState.PENDING) & (col(File.upload_until) < before)
        found = select(File).where(pending, col(File.deleted_at).is_(None)).order_by(col(File.id)).limit(most)
        return (await self.session.exec(found.with_for_update(skip_locked=True))).all()

    async def to_remove(self, before: datetime, most: int) -> Sequence[File]:
        """Find deleted files whose content nothing can bring again, and may still be there."""
        deleted = col(File.deleted_at).is_not(None) & col(File.removed_at).is_(None)
        found = select(File).where(deleted, col(File.upload_until) < before).order_by(col(File.id)).limit(most)
        return (await self.session.exec(found)).all()

    async def removed(self, ids: Collection[UUID], at: datetime) -> None:
        """Note that the contents of files have gone for good."""
        await self.session.exec(update(File).where(col(File.id).in_(ids)).values(removed_at=at))

    async def forget(self, before: datetime) -> int:
        """Remove the rows of files whose content went before a time."""
        return (await self.session.exec(delete(File).where(col(File.removed_at) < before))).rowcount

    async def owned(self, owner: UUID) -> Sequence[File]:
        """List all that somebody owns, also what is marked as deleted."""
        return (await self.session.exec(select(File).where(File.owner_id == owner).order_by(col(File.id)))).all()

    async def stored(self, since: datetime, until: datetime) -> tuple[int, int]:
        """Count the live files that were begun in a period, and their bytes."""
        live = (col(File.state) == FileState.LIVE) & col(File.deleted_at).is_(None)
        begun = (col(File.created_at) >= since) & (col(File.created_at) < until)
        counted = select(func.count(), func.coalesce(func.sum(File.size), 0)).where(live, begun)
        count, size = (await self.session.exec(counted)).one()
        return count, int(size)

    async def erase(self, owner: UUID) -> None:
        """Remove all that somebody owns, also what is marked as deleted."""
        await self.session.exec(delete(File).where(col(File.owner_id) == owner))


async def without_file(session: AsyncSession, ids: Collection[UUID]) -> set[UUID]:
    """Return those of the ids that no file has, not even a deleted one."""
    known = (await session.exec(select(File.id).where(col(File.id).in_(ids)))).all()
    return set(ids) - set(known)

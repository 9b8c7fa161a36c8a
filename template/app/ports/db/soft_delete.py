"""Rows that are kept when they are deleted, marked, and found no more."""

from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from sqlmodel import col

from app.kit import clock
from app.ports.db.records import Record, Repository


class SoftDeletedRecord(Record):
    """A row with an id, its times, and a mark. Queries beside the repository's have to leave marked rows out."""

    deleted_at: datetime | None = None


Row = TypeVar("Row", bound=SoftDeletedRecord)


class SoftDeletingRepository(Repository[Row], Generic[Row]):
    """Finds the rows without a mark, and sets it in place of a deletion."""

    async def find(self, id: UUID, *conditions: Any) -> Row | None:
        """Find a row that is not deleted and fulfils the conditions."""
        table: Any = self.table
        return await super().find(id, col(table.deleted_at).is_(None), *conditions)

    async def delete(self, row: Row) -> None:
        """Mark a row as deleted."""
        row.deleted_at = clock.now()
        await self.session.flush()

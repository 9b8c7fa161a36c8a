"""Queries for exports. Every one is for one owner, or for what is old."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import delete
from sqlmodel import col, select

from app.modules.privacy.models import DataExport
from app.ports.db.records import Repository


class ExportRepository(Repository[DataExport]):
    """Keeps one export of each user."""

    table = DataExport

    async def of(self, user_id: UUID) -> DataExport | None:
        """Find the export of a user, also one that has expired."""
        return (await self.session.exec(select(DataExport).where(DataExport.user_id == user_id))).one_or_none()

    async def replace(self, export: DataExport) -> None:
        """Add an export in place of the one before."""
        await self.session.exec(delete(DataExport).where(col(DataExport.user_id) == export.user_id))
        await self.add(export)

    async def forget(self, now: datetime) -> int:
        """Remove what nobody can fetch any more, and count it."""
        return (await self.session.exec(delete(DataExport).where(col(DataExport.expires_at) <= now))).rowcount

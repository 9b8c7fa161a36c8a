"""The contents of exports in their rows, in a service without storage: they go with the user, by the foreign key."""

from collections.abc import AsyncIterator
from datetime import datetime
from uuid import UUID

from fastapi import FastAPI

from app.modules.privacy.models import DataExport
from app.modules.privacy.repository import ExportRepository
from app.ports.jobs.tasks import Running

erase = None


async def save(job: Running, content: bytes, *, user_id: UUID, expires_at: datetime) -> None:
    """Keep an export in place of the one before."""
    async with job.ending() as session:
        await ExportRepository(session).replace(
            DataExport(user_id=user_id, content=content.decode(), expires_at=expires_at)
        )


async def read(app: FastAPI, user_id: UUID, now: datetime) -> AsyncIterator[bytes]:
    """Give the export of a user, or nothing."""
    async with app.state.database.session() as session:
        export = await ExportRepository(session).of(user_id)
    if export is not None and export.expires_at > now:
        yield export.content.encode()


async def forget(job: Running, now: datetime) -> int:
    """Remove what nobody can fetch any more, and count it."""
    async with job.database.session() as session:
        return await ExportRepository(session).forget(now)

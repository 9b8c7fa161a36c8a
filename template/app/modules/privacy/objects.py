"""The contents of exports in the storage, each under a key of its own that no link leads to."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from fastapi import FastAPI
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit import clock
from app.kit.logging import get_logger
from app.modules.privacy.models import DataExport
from app.modules.privacy.repository import ExportRepository
from app.ports.jobs.queue import enqueue
from app.ports.jobs.tasks import Queue, Running, task
from app.ports.storage.storage import ObjectNotFound, Storage

PREFIX = "exports/"
BLOCK_BYTES = 1_048_576
BATCH = 100
# Longer than the task takes that writes an object before its row.
GRACE = timedelta(hours=1)
log = get_logger(__name__)


def prefix_of(user_id: UUID) -> str:
    """Return what the keys of a user's exports begin with."""
    return f"{PREFIX}{user_id.hex}/"


def key_of(export: DataExport) -> str:
    """Return the key of an export."""
    return f"{prefix_of(export.user_id)}{export.id.hex}"


def user_of(key: str) -> UUID | None:
    """Return whose export a key is of; None for what is no such key."""
    try:
        user_id, id = (UUID(hex=part) for part in key.removeprefix(PREFIX).split("/"))
    except ValueError:
        return None
    return user_id if key == f"{prefix_of(user_id)}{id.hex}" else None


class StoredExports(ExportRepository):
    """Finds the rows of objects as well."""

    async def expired(self, now: datetime) -> Sequence[DataExport]:
        """List what nobody can fetch any more."""
        return (await self.session.exec(select(DataExport).where(col(DataExport.expires_at) <= now))).all()

    async def of_these(self, users: Collection[UUID]) -> Sequence[DataExport]:
        """List the exports of some users."""
        return (await self.session.exec(select(DataExport).where(col(DataExport.user_id).in_(users)))).all()


def _storage(app: FastAPI) -> Storage:
    storage: Storage = app.state.storage
    return storage


async def _blocks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), BLOCK_BYTES):
        yield content[start : start + BLOCK_BYTES]


async def save(job: Running, content: bytes, *, user_id: UUID, expires_at: datetime) -> None:
    """Keep an export in place of the one before, whose object goes when that is committed."""
    export, storage = DataExport(user_id=user_id, expires_at=expires_at), _storage(job.app)
    key = key_of(export)
    try:
        await storage.write(key, _blocks(content), content_type="application/json")
        async with job.ending() as session:
            exports = StoredExports(session)
            before = await exports.of(user_id)
            await exports.replace(export)
            if before is not None:
                await enqueue(session, remove(key_of(before)))
    except Exception:
        # Such as when the user has gone meanwhile: nobody knows of the object.
        await storage.delete(key)
        raise


async def read(app: FastAPI, user_id: UUID, now: datetime) -> AsyncIterator[bytes]:
    """Give the export of a user in blocks, or nothing."""
    async with app.state.database.session() as session:
        export = await StoredExports(session).of(user_id)
    if export is not None and export.expires_at > now:
        try:
            async with _storage(app).open(key_of(export)) as blocks:
                async for block in blocks:
                    yield block
        except ObjectNotFound:
            log.warning("an export has no content", export=str(export.id))


async def erase(session: AsyncSession, user_id: UUID) -> None:
    """Remove the exports of a user who is going."""
    await enqueue(session, remove_all(user_id))


async def forget(job: Running, now: datetime) -> int:
    """Remove what nobody can fetch any more, objects first, and count it."""
    async with job.database.session() as session:
        expired = await StoredExports(session).expired(now)
    for export in expired:
        await _storage(job.app).delete(key_of(export))
    async with job.database.session() as session:
        return await StoredExports(session).forget(now)


@task(name="privacy.remove", attempts=10)
async def remove(job: Running, key: str) -> None:
    """Remove an export that a newer one has replaced."""
    await _storage(job.app).delete(key)


@task(name="privacy.remove_all", attempts=10, timeout=timedelta(minutes=30))
async def remove_all(job: Running, user_id: UUID) -> None:
    """Remove all exports of a user who has gone."""
    storage = _storage(job.app)
    async for stored in storage.objects(prefix_of(user_id), before=clock.now() + GRACE):
        await storage.delete(stored.key)


@task(name="privacy.sweep_orphans", cron="7 4 * * *", queue=Queue.HEAVY, timeout=timedelta(hours=1))
async def sweep_orphans(job: Running) -> int:
    """Remove exports that no row is known of, such as what a process has written that was killed. Counts them."""
    storage, now = _storage(job.app), clock.now()
    count, batch = 0, dict[str, UUID]()
    async for stored in storage.objects(PREFIX, before=now - GRACE):
        if user_id := user_of(stored.key):
            batch[stored.key] = user_id
        if len(batch) == BATCH:
            count += await _remove_orphans(job, batch)
            batch = {}
    count += await _remove_orphans(job, batch)
    if count:
        log.warning("orphans of exports removed", count=count)
    await storage.tidy(before=now - timedelta(days=1))
    return count


async def _remove_orphans(job: Running, found: Mapping[str, UUID]) -> int:
    async with job.database.session() as session:
        known = await StoredExports(session).of_these(found.values())
    orphans = found.keys() - {key_of(export) for export in known}
    for key in orphans:
        await _storage(job.app).delete(key)
    return len(orphans)

"""What removes content: when a file is deleted, and what is left over, now and then."""

from datetime import datetime, timedelta
from uuid import UUID

from app.kit import clock
from app.kit.logging import get_logger
from app.kit.settings import load
from app.modules.files.models import PREFIX, id_of, prefix_of
from app.modules.files.repository import FileRepository, without_file
from app.modules.files.settings import FileSettings
from app.modules.retention.rules import lets_go
from app.ports.db.database import Database
from app.ports.jobs.tasks import Queue, Running, task
from app.ports.storage.storage import Storage

BATCH = 100
# An upload that began while its link was good may take a while.
GRACE = timedelta(hours=1)
log = get_logger(__name__)


def _storage(job: Running) -> Storage:
    storage: Storage = job.app.state.storage
    return storage


@task(attempts=10)
async def remove(job: Running, key: str) -> None:
    """Remove the content of a file that has been deleted."""
    await _storage(job).delete(key)


@task(attempts=10, timeout=timedelta(minutes=30))
async def remove_all(job: Running, owner: UUID) -> None:
    """Remove the contents of all files of a user who has gone."""
    storage = _storage(job)
    async for stored in storage.objects(prefix_of(owner), before=clock.now() + GRACE):
        await storage.delete(stored.key)


@task(cron="17 * * * *", timeout=timedelta(minutes=30))
async def sweep(job: Running) -> None:
    """Remove again what an upload may have brought after its deletion."""
    await Sweeper(job.database, _storage(job)).sweep()


@task(cron="47 3 * * *", queue=Queue.HEAVY, timeout=timedelta(hours=2))
async def sweep_orphans(job: Running) -> None:
    """Remove the content that belongs to no file, and what the storage itself has left over."""
    await Sweeper(job.database, _storage(job)).sweep_orphans()


@lets_go("unconfirmed uploads")
async def forget_unconfirmed(job: Running, now: datetime) -> int:
    """Delete the files whose uploads nobody has confirmed. The sweep removes what came."""
    return await Sweeper(job.database, _storage(job)).delete_unconfirmed(now)


@lets_go("deleted files")
async def forget_deleted(job: Running, now: datetime) -> int:
    """Remove the rows of files whose contents went long ago."""
    before = now - timedelta(days=load(FileSettings).files_keep_deleted_days)
    async with job.database.session() as session:
        return await FileRepository(session).forget(before)


class Sweeper:
    """Removes what is left over. Several at a time do no harm."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self.database, self.storage, self.settings = database, storage, load(FileSettings)

    async def sweep(self) -> None:
        """Remove the contents of deleted files that no link can bring back any more."""
        while await self._remove_deleted(clock.now() - GRACE) == BATCH:
            pass

    async def delete_unconfirmed(self, now: datetime) -> int:
        """Delete uploads that nobody has confirmed in time, and count them."""
        before, count = now - timedelta(hours=self.settings.files_unconfirmed_hours), 0
        while True:
            async with self.database.session() as session:
                files = FileRepository(session)
                found = await files.unconfirmed(before, BATCH)
                for file in found:
                    await files.delete(file)
            count += len(found)
            if len(found) < BATCH:
                return count

    async def _remove_deleted(self, before: datetime) -> int:
        # No transaction is open while the storage works, however long it takes.
        async with self.database.session() as session:
            found = await FileRepository(session).to_remove(before, BATCH)
        for file in found:
            await self.storage.delete(file.key)
        async with self.database.session() as session:
            await FileRepository(session).removed([file.id for file in found], clock.now())
        return len(found)

    async def sweep_orphans(self) -> None:
        """Remove objects that have been there for days and belong to no file."""
        before = clock.now() - timedelta(days=self.settings.files_orphan_days)
        batch: dict[UUID, str] = {}
        async for stored in self.storage.objects(PREFIX, before=before):
            id = id_of(stored.key)
            if id is not None:
                batch[id] = stored.key
            if len(batch) == BATCH:
                await self._remove_orphans(batch)
                batch = {}
        await self._remove_orphans(batch)
        await self.storage.tidy(before=clock.now() - timedelta(days=1))

    async def _remove_orphans(self, batch: dict[UUID, str]) -> None:
        async with self.database.session() as session:
            orphans = await without_file(session, batch)
        for id in orphans:
            await self.storage.delete(batch[id])
        if orphans:
            log.warning("orphans removed", count=len(orphans))

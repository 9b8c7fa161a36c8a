"""Two at a time, on connections of their own."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from alembic.config import Config
from sqlmodel import col, delete, select

from app.kit import clock
from app.kit.errors import AppError
from app.kit.settings import forget
from app.modules.files.models import File, FileState
from app.modules.files.repository import FileRepository
from app.modules.files.schemas import UploadRequest
from app.modules.files.service import FileContents, FileService, UploadRejected
from app.modules.users.models import User
from app.ports.db.database import Database, DatabaseSettings
from app.ports.jobs.models import Job
from app.ports.storage.local import LocalStorage
from tests.modules.files.samples import HTML, PNG
from tests.ports.storage.contract import pieces


@pytest.fixture
async def shared(migrated: Config, database_url: str) -> AsyncIterator[Database]:
    """A pool of connections, in which transactions are committed; what they leave is removed."""
    shared = Database.open(DatabaseSettings(database_url=database_url))
    yield shared
    async with shared.session() as session:
        await session.exec(delete(User).where(col(User.subject).like("racer %")))
        await session.exec(delete(Job).where(col(Job.task).like("files.%")))
    await shared.close()


@pytest.fixture
async def owner(shared: Database) -> UUID:
    async with shared.session() as session:
        user = User(subject=f"racer {uuid4()}")
        session.add(user)
    return user.id


async def begin(shared: Database, storage: LocalStorage, owner: UUID, content: bytes = PNG) -> File:
    new = UploadRequest(name="a.png", size=len(content), content_type="image/png")
    async with shared.session() as session:
        file, _ = await FileService(session, storage).begin(new, owner=owner)
    return file


async def test_uploads_that_begin_together_share_one_quota(
    shared: Database, storage: LocalStorage, owner: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILES_QUOTA_BYTES", str(3 * len(PNG)))
    forget()
    begun = await asyncio.gather(*(begin(shared, storage, owner) for _ in range(8)), return_exceptions=True)
    refused = [one for one in begun if isinstance(one, AppError)]
    assert (len(refused), {one.code for one in refused}) == (5, {"quota_exceeded"})
    async with shared.session() as session:
        assert len((await session.exec(select(File).where(File.owner_id == owner))).all()) == 3


async def test_confirming_and_deleting_together_ends_in_one_of_both(
    shared: Database, storage: LocalStorage, owner: UUID
) -> None:
    for _ in range(5):
        file = await begin(shared, storage, owner)
        await storage.write(file.key, pieces(PNG), content_type="image/png")
        contents = FileContents(shared, storage)

        async def remove(id: UUID) -> None:
            async with shared.session() as session:
                await FileService(session, storage).delete(id, owner=owner)

        outcomes = await asyncio.gather(
            contents.confirm(file.id, owner=owner),
            contents.confirm(file.id, owner=owner),
            remove(file.id),
            return_exceptions=True,
        )
        assert not [one for one in outcomes if isinstance(one, Exception) and not isinstance(one, AppError)]
        async with shared.session() as session:
            row = (await session.exec(select(File).where(File.id == file.id))).one()
        assert row.deleted_at is not None


async def test_nobody_makes_a_file_of_somebody_else_live(shared: Database, storage: LocalStorage, owner: UUID) -> None:
    file = await begin(shared, storage, owner)
    async with shared.session() as session:
        files = FileRepository(session)
        assert not await files.go_live(file.id, uuid4(), "0" * 64)
        assert await files.go_live(file.id, owner, "0" * 64)
        await files.delete(await files.find(file.id, col(File.owner_id) == owner) or file)
        assert not await files.go_live(file.id, owner, "1" * 64)


async def test_what_is_rejected_twice_is_removed_once(shared: Database, storage: LocalStorage, owner: UUID) -> None:
    file = await begin(shared, storage, owner, HTML)
    await storage.write(file.key, pieces(HTML), content_type="image/png")
    contents = FileContents(shared, storage)
    outcomes = await asyncio.gather(*(contents.confirm(file.id, owner=owner) for _ in range(4)), return_exceptions=True)
    assert any(isinstance(one, UploadRejected) for one in outcomes)
    assert all(isinstance(one, AppError) for one in outcomes)
    async with shared.session() as session:
        jobs = (await session.exec(select(Job).where(Job.task == "files.remove"))).all()
        row = (await session.exec(select(File).where(File.id == file.id))).one()
    assert (row.state, row.deleted_at is not None) == (FileState.PENDING, True)
    assert 1 <= len(jobs) <= 4
    assert row.upload_until < clock.now() + timedelta(hours=1)

"""Rules for files: only their owner sees them, and none is live before it was found to be what it was said to be."""

import hashlib
from datetime import datetime, timedelta
from typing import Annotated, NamedTuple
from uuid import UUID

from fastapi import Depends
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit import clock
from app.kit.errors import AppError, NotFound
from app.kit.logging import get_logger
from app.kit.pagination import Page, PageRequest
from app.kit.settings import load
from app.modules.files.kinds import HEAD_BYTES, looks_like, may_be_called, may_be_shown
from app.modules.files.models import File, FileState, key_of
from app.modules.files.repository import ALL_FILES, FILE_BY_ID, MATCHING_FILES, FileRepository
from app.modules.files.schemas import FileRead, UploadRequest
from app.modules.files.settings import FileSettings
from app.modules.files.tasks import remove, remove_all
from app.ports.db.database import Database, Session, with_reads
from app.ports.db.pages import like_pattern
from app.ports.jobs.queue import enqueue
from app.ports.storage.module import Objects
from app.ports.storage.storage import ObjectNotFound, Storage, Stored, Upload

log = get_logger(__name__)


class FileNotFound(NotFound):
    """There is no such file, or it is somebody else's."""

    def __init__(self) -> None:
        super().__init__("There is no such file.")


class NotAllowed(AppError):
    """A file that this service does not take, whatever it holds."""

    status = 422
    code = "file_not_allowed"


class QuotaExceeded(AppError):
    """There is no room for more files of this user."""

    status = 409
    code = "quota_exceeded"


class NotUploaded(AppError):
    """There is nothing to confirm, or to download, yet."""

    status = 409
    code = "not_uploaded"


class UploadRejected(AppError):
    """What was uploaded is not what it was said to be. It has been removed."""

    status = 422
    code = "upload_rejected"


class Download(NamedTuple):
    """A link to the content of a file, and how long it is good."""

    url: str
    expires_at: datetime


class FileService:
    """Begins uploads, and deletes files."""

    def __init__(self, session: AsyncSession, storage: Storage) -> None:
        self.session, self.storage = session, storage
        self.files, self.settings = FileRepository(session), load(FileSettings)

    async def begin(self, new: UploadRequest, *, owner: UUID) -> tuple[File, Upload]:
        """Let an owner, whose row must be there, upload a file. Raises NotAllowed and QuotaExceeded."""
        settings, now = self.settings, clock.now()
        if new.size > settings.files_max_bytes:
            raise NotAllowed(f"A file may have {settings.files_max_bytes} bytes at most.")
        if new.content_type not in settings.files_types:
            raise NotAllowed(f"Files of type {new.content_type} are not taken, only {', '.join(settings.files_types)}.")
        if not may_be_called(new.name, new.content_type):
            raise NotAllowed(f"The ending of the name does not go with the type {new.content_type}.")
        usage = await self.files.usage(owner, now)
        if usage.pending >= settings.files_pending_most:
            raise QuotaExceeded("Too many uploads are pending: confirm or delete some, or wait until their links end.")
        if usage.files >= settings.files_most:
            raise QuotaExceeded(f"There is room for {settings.files_most} files: delete some first.")
        if usage.size + new.size > settings.files_quota_bytes:
            left = max(0, settings.files_quota_bytes - usage.size)
            raise QuotaExceeded(f"There is room for {left} more bytes: delete some files first.")
        good_for = timedelta(seconds=settings.files_link_seconds)
        file = await self.files.add(File(owner_id=owner, upload_until=now + good_for, **new.model_dump()))
        upload = await self.storage.upload(
            file.key, size=new.size, content_type=new.content_type, sha256=new.sha256, expires=good_for
        )
        return file, upload

    async def delete(self, id: UUID, *, owner: UUID) -> None:
        """Mark a file as deleted; its content goes when that is committed. Raises FileNotFound."""
        file = await self.files.find(id, col(File.owner_id) == owner)
        if file is None:
            raise FileNotFound
        await self.files.delete(file)
        await enqueue(self.session, remove(file.key))


async def erase(session: AsyncSession, user_id: UUID) -> None:
    """Remove the files of a user who is going, and what they hold."""
    await FileRepository(session).erase(user_id)
    await enqueue(session, remove_all(user_id))


async def export(session: AsyncSession, user_id: UUID) -> list[FileRead]:
    """Return what is known of a user's files, also of those that are marked as deleted. Their contents have links."""
    return [FileRead.model_validate(row) for row in await FileRepository(session).owned(user_id)]


class FileReader:
    """Reads files without a transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def page(self, page: PageRequest, *, owner: UUID, matching: str | None = None) -> Page[FileRead]:
        """List an owner's live files, the newest first; `matching` searches the names."""
        if matching:
            return await MATCHING_FILES.fetch(self.database, page, owner_id=owner, pattern=like_pattern(matching))
        return await ALL_FILES.fetch(self.database, page, owner_id=owner)

    async def get(self, id: UUID, *, owner: UUID) -> FileRead:
        """Get one file, live or pending. Raises FileNotFound."""
        rows = await self.database.fetch(FILE_BY_ID, {"file_id": id, "owner_id": owner})
        if not rows:
            raise FileNotFound
        return FileRead.model_validate(rows[0])


class FileContents:
    """What asks the storage, which may take a while: no transaction is open meanwhile."""

    def __init__(self, database: Database, storage: Storage) -> None:
        self.database, self.storage = database, storage
        self.files, self.settings = FileReader(database), load(FileSettings)

    async def confirm(self, id: UUID, *, owner: UUID) -> FileRead:
        """Look at what was uploaded, and make the file live. Doing so again changes nothing.

        Raises FileNotFound, NotUploaded, and UploadRejected for what is not as announced, which is removed.
        """
        file = await self.files.get(id, owner=owner)
        if file.state == FileState.LIVE:
            return file
        key = key_of(owner, id)
        stored = await self.storage.stat(key)
        if stored is None:
            raise NotUploaded("Nothing has been uploaded yet: send the content with the link first.")
        try:
            sha256 = await self._examine(file, stored)
        except UploadRejected as error:
            await self._reject(id, owner, error.detail)
            raise
        async with self.database.session() as session:
            await FileRepository(session).go_live(id, owner, sha256)
        return await self.files.get(id, owner=owner)

    async def _examine(self, file: FileRead, stored: Stored) -> str:
        """Return the checksum of what is there. Raises UploadRejected."""
        if stored.size != file.size:
            raise UploadRejected(f"{stored.size} bytes were uploaded, and {file.size} were announced.")
        if stored.content_type not in {file.content_type, "application/octet-stream", None}:
            raise UploadRejected(f"It was uploaded as {stored.content_type}, and announced as {file.content_type}.")
        head, found, seen = bytearray(), hashlib.sha256(), 0
        # Where the storage knows the checksum, the beginning will do.
        length = HEAD_BYTES if stored.sha256 else None
        try:
            async with self.storage.open(stored.key, length=length) as blocks:
                async for block in blocks:
                    head += block[: HEAD_BYTES - len(head)]
                    seen += len(block)
                    found.update(block)
        except ObjectNotFound:
            raise NotUploaded("The content has gone: begin again.") from None
        sha256 = stored.sha256 or found.hexdigest()
        if length is None and seen != stored.size:
            raise NotUploaded("The content was still changing. Try again.")
        if not looks_like(file.content_type, bytes(head)):
            raise UploadRejected(f"The content is not of the type {file.content_type}.")
        if file.sha256 not in {None, sha256}:
            raise UploadRejected("The content has another SHA-256 checksum than was announced.")
        return sha256

    async def _reject(self, id: UUID, owner: UUID, reason: str) -> None:
        log.warning("upload rejected", file=str(id), owner=str(owner), reason=reason)
        async with self.database.session() as session:
            files = FileRepository(session)
            file = await files.find(id, col(File.owner_id) == owner, col(File.state) == FileState.PENDING)
            if file is not None:
                await files.delete(file)
                await enqueue(session, remove(file.key))

    async def download(self, id: UUID, *, owner: UUID, inline: bool) -> Download:
        """Make a link to the content of a live file. Raises FileNotFound and NotUploaded."""
        file = await self.files.get(id, owner=owner)
        if file.state != FileState.LIVE:
            raise NotUploaded("This file is not there yet: its upload has not been confirmed.")
        good_for = timedelta(seconds=self.settings.files_link_seconds)
        expires_at = clock.now() + good_for
        shown = inline and may_be_shown(file.content_type)
        url = await self.storage.download_url(
            key_of(owner, id), name=file.name, content_type=file.content_type, inline=shown, expires=good_for
        )
        return Download(url, expires_at)


async def _files(session: Session, storage: Objects) -> FileService:
    return FileService(session, storage)


async def _contents(connection: HTTPConnection, storage: Objects) -> FileContents:
    return FileContents(connection.app.state.database, storage)


Files = Annotated[FileService, Depends(_files)]
FileReads = Annotated[FileReader, with_reads(FileReader)]
Contents = Annotated[FileContents, Depends(_contents)]

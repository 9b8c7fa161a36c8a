"""Local files: objects on the disk of this machine, and links that the service itself serves.

An object is a folder with its content and a note of what it is. It is made elsewhere and moved into place whole, which
fails where a folder with something in it is. A deletion leaves such a folder for a while, so that the link of an
upload that is still good brings nothing back.
"""

import asyncio
import hashlib
import json
import os
import shutil
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from hmac import compare_digest, digest
from io import BufferedWriter
from pathlib import Path
from secrets import token_hex
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import Field

from app.kit import clock
from app.kit.errors import AppError
from app.kit.logging import get_logger
from app.kit.settings import CoreSettings, ModuleSettings, load
from app.ports.storage.storage import (
    LONGEST,
    ObjectExists,
    ObjectNotFound,
    StorageUnavailable,
    Stored,
    Upload,
    WrongContent,
    check_key,
    check_type,
)

PREFIX = "/api/v1/public/storage"
PURPOSE = b"links to local files, 1"
BLOCK_BYTES = 1_048_576
CONTENT, NOTE, GONE = "content", "note.json", "gone"
Result = TypeVar("Result")
log = get_logger(__name__)


class LocalStorageSettings(ModuleSettings):
    """Files on the disk of this machine."""

    storage_folder: Path = Field(Path("data/files"), description="Where local files are kept, for the service alone.")


class LinkRefused(AppError):
    """A link was made up, changed, or is used for something else."""

    status = 403
    code = "link_refused"

    def __init__(self, detail: str = "This link is not good. Ask for a new one.") -> None:
        super().__init__(detail)


class Links:
    """Signs what a link allows, with a key that is derived from SECRET_KEY for this purpose alone."""

    def __init__(self, secret: str) -> None:
        self._key = digest(secret.encode(), PURPOSE, "sha256")

    def _signature(self, purpose: str, text: str) -> str:
        signature = digest(self._key, f"{purpose}.{text}".encode(), "sha256")
        return urlsafe_b64encode(signature).rstrip(b"=").decode()

    def sign(self, purpose: str, expires_at: datetime, **allowed: Any) -> str:
        """Write a ticket for a purpose that is good until a time."""
        claims = json.dumps({**allowed, "until": int(expires_at.timestamp())}).encode()
        text = urlsafe_b64encode(claims).decode()
        return f"{text}.{self._signature(purpose, text)}"

    def read(self, purpose: str, key: str, ticket: str) -> dict[str, Any]:
        """Return what a ticket allows. Raises LinkRefused unless it was signed here for this purpose and key."""
        text, _, signature = ticket.partition(".")
        if not ticket.isascii() or not compare_digest(signature, self._signature(purpose, text)):
            raise LinkRefused
        allowed: dict[str, Any] = json.loads(urlsafe_b64decode(text))
        if allowed["key"] != key:
            raise LinkRefused
        if allowed["until"] <= clock.now().timestamp():
            raise LinkRefused("This link has expired. Ask for a new one.")
        return allowed


class LocalStorage:
    """Keeps objects in a folder."""

    def __init__(self) -> None:
        self.folder = load(LocalStorageSettings).storage_folder.absolute()
        self.links = Links(load(CoreSettings).secret_key.get_secret_value())
        # Two uploads of one object would take its room twice; across processes, the first that is done wins.
        self._arriving: set[str] = set()

    @classmethod
    def problems(cls) -> list[str]:
        """Nothing is needed but a folder."""
        return []

    @property
    def _objects(self) -> Path:
        return self.folder / "objects"

    @property
    def _parts(self) -> Path:
        return self.folder / "parts"

    def place(self, key: str) -> Path:
        """Return the folder of an object. The dot in its name is in no key, so none lies in another's."""
        return self._objects / f"{check_key(key)}.object"

    async def upload(self, key: str, *, size: int, content_type: str, sha256: str | None, expires: timedelta) -> Upload:
        """Sign a link to PUT one object; see Storage."""
        until = clock.now() + min(expires, LONGEST)
        ticket = self.links.sign(
            "upload", until, key=check_key(key), size=size, type=check_type(content_type), sha256=sha256
        )
        return Upload(
            method="PUT",
            url=f"{PREFIX}/{key}?{urlencode({'ticket': ticket})}",
            headers={"Content-Type": content_type},
            expires_at=until,
        )

    async def download_url(self, key: str, *, name: str, content_type: str, inline: bool, expires: timedelta) -> str:
        """Sign a link to GET an object; see Storage."""
        until = clock.now() + min(expires, LONGEST)
        ticket = self.links.sign(
            "download", until, key=check_key(key), name=name, type=check_type(content_type), inline=inline
        )
        return f"{PREFIX}/{key}?{urlencode({'ticket': ticket})}"

    async def stat(self, key: str) -> Stored | None:
        """Read the note of an object; see Storage."""
        return await _on_disk(lambda: self._stat(key, self.place(key)))

    def _stat(self, key: str, place: Path) -> Stored | None:
        if (place / GONE).exists():
            return None
        try:
            found = (place / CONTENT).stat()
            note = json.loads((place / NOTE).read_bytes())
        except FileNotFoundError:
            return None
        modified_at = datetime.fromtimestamp(found.st_mtime, UTC)
        return Stored(key=key, size=found.st_size, modified_at=modified_at, **note)

    @asynccontextmanager
    async def open(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Read the content; see Storage."""
        path = self.place(key) / CONTENT
        try:
            file = await _on_disk(lambda: path.open("rb"))
        except FileNotFoundError:
            raise ObjectNotFound(key) from None

        async def blocks() -> AsyncIterator[bytes]:
            await _on_disk(lambda: file.seek(start))
            left = length
            while left is None or left > 0:
                many = BLOCK_BYTES if left is None else min(BLOCK_BYTES, left)
                block = await _on_disk(partial(file.read, many))
                if not block:
                    return
                left = None if left is None else left - len(block)
                yield block

        try:
            yield blocks()
        finally:
            file.close()

    async def write(self, key: str, chunks: AsyncIterable[bytes], *, content_type: str) -> Stored:
        """Take what the service has made; see Storage."""
        return await self.take(key, chunks, content_type=check_type(content_type))

    async def take(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        content_type: str,
        size: int | None = None,
        sha256: str | None = None,
    ) -> Stored:
        """Store what comes if it is as long, and what, it is said to be. Raises ObjectExists and WrongContent."""
        place = self.place(key)
        if key in self._arriving:
            raise ObjectExists(key)
        self._arriving.add(key)
        try:
            part = await _on_disk(lambda: _Part(self._parts, place))
            try:
                async for block in _blocks(chunks):
                    if size is not None and part.size + len(block) > size:
                        raise WrongContent(f"More came than the {size} bytes that were announced.")
                    await _on_disk(partial(part.add, block))
                if size is not None and part.size < size:
                    raise WrongContent(f"{part.size} bytes came, and {size} were announced.")
                if sha256 not in {None, part.hash.hexdigest()}:
                    raise WrongContent("What came has another SHA-256 checksum than was announced.")
                await _on_disk(lambda: part.finish(content_type))
            finally:
                part.discard()
        finally:
            self._arriving.discard(key)
        stored = await self.stat(key)
        if stored is None:
            raise ObjectExists(key)  # It did: somebody has deleted it meanwhile.
        return stored

    async def delete(self, key: str) -> None:
        """Remove the content, and let nothing come back for a while; see Storage."""
        await _on_disk(lambda: self._delete(self.place(key)))

    def _delete(self, place: Path) -> None:
        _make_private(place)
        os.close(os.open(place / GONE, os.O_CREAT | os.O_WRONLY, 0o600))
        (place / CONTENT).unlink(missing_ok=True)
        (place / NOTE).unlink(missing_ok=True)

    async def objects(self, prefix: str, *, before: datetime) -> AsyncIterator[Stored]:
        """Walk through the folders; see Storage."""
        walk = self._walk()
        while place := await _on_disk(lambda: next(walk, None)):
            key = place.relative_to(self._objects).as_posix().removesuffix(".object")
            if key.startswith(prefix):
                stored = await _on_disk(partial(self._stat, key, place))
                if stored and stored.modified_at < before:
                    yield stored

    def _walk(self) -> Iterator[Path]:
        for folder, names, _ in os.walk(self._objects):
            yield from (Path(folder, name) for name in names if name.endswith(".object"))
            names[:] = [name for name in names if not name.endswith(".object")]

    async def tidy(self, *, before: datetime) -> None:
        """Remove parts, and what deletions have left when no link is good any more; see Storage."""
        await _on_disk(lambda: self._tidy(before.timestamp(), (clock.now() - 2 * LONGEST).timestamp()))

    def _tidy(self, before: float, good_until: float) -> None:
        for part in self._parts.iterdir() if self._parts.is_dir() else ():
            with suppress(FileNotFoundError):  # Its upload may just have ended.
                if part.stat().st_mtime < before:
                    shutil.rmtree(part, ignore_errors=True)
        for place in self._walk():
            with suppress(FileNotFoundError):
                if (place / GONE).stat().st_mtime < min(before, good_until):
                    shutil.rmtree(place, ignore_errors=True)

    async def check(self) -> str:
        """Find out whether the folder can be written to, and how much room it has; see Storage."""

        def look() -> str:
            there = next(folder for folder in (self.folder, *self.folder.parents) if folder.exists())
            if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
                raise PermissionError(f"{there} cannot be written to")
            return f"{self.folder}, {shutil.disk_usage(there).free / 1e9:.1f} GB free"

        return await _on_disk(look)

    async def close(self) -> None:
        """Nothing is open."""


class _Part:
    """An object that is still coming: a folder beside those that are there."""

    def __init__(self, parts: Path, place: Path) -> None:
        if place.is_dir():
            raise ObjectExists(place.name)
        _make_private(place.parent)
        self.place, self.folder = place, parts / token_hex(16)
        _make_private(self.folder)
        self.file: BufferedWriter = _create(self.folder / CONTENT)
        self.hash, self.size = hashlib.sha256(), 0

    def add(self, block: bytes) -> None:
        self.file.write(block)
        self.hash.update(block)
        self.size += len(block)

    def finish(self, content_type: str) -> None:
        """Move it into place, when all of it is on the disk. Raises ObjectExists."""
        _close_synced(self.file)
        note = _create(self.folder / NOTE)
        note.write(json.dumps({"content_type": content_type, "sha256": self.hash.hexdigest()}).encode())
        _close_synced(note)
        _sync_folder(self.folder)
        try:
            self.folder.rename(self.place)
        except OSError:
            # Systems differ in what they call it that there is one.
            if self.place.is_dir():
                raise ObjectExists(self.place.name) from None
            raise
        _sync_folder(self.place.parent)

    def discard(self) -> None:
        """Remove what has not been moved. Quick enough for the event loop, which may be giving up."""
        with suppress(OSError):
            self.file.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def _create(path: Path) -> BufferedWriter:
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb")


def _close_synced(file: BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # Windows opens no folders.
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _make_private(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for the service's user alone."""
    if not folder.is_dir():
        _make_private(folder.parent)
        folder.mkdir(0o700, exist_ok=True)


async def _blocks(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Gather chunks: each block costs a turn in a thread."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        if len(gathered) >= BLOCK_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


async def _on_disk(work: Callable[[], Result]) -> Result:
    """Do something slow in a thread. Raises StorageUnavailable for what the disk refuses, but for what is missing."""
    try:
        return await asyncio.to_thread(work)
    except FileNotFoundError:
        raise
    except OSError as error:
        log.error("the disk refuses", reason=f"{type(error).__name__}: {error.strerror}")  # noqa: TRY400
        raise StorageUnavailable from error

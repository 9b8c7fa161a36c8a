"""What every storage has to do. A class of tests for each says how it is made, and how its links are followed."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import uuid4

import pytest
from httpx2 import Response

from app.kit import clock
from app.ports.storage.storage import ObjectExists, ObjectNotFound, Storage, Stored, Upload

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PNG = "image/png"
QUARTER = timedelta(minutes=15)
# Sends the request of an upload with a content, as a browser does: `headers` are changed, None leaves one out.
Send = Callable[..., Awaitable[Response]]
# Follows a link of a download, with headers.
Fetch = Callable[..., Awaitable[Response]]
NAMES = {
    "plain": "report.pdf",
    "quotes": 'a"b\\c.pdf',
    "other letters": "Größe 日本語 🚀.pdf",
    "second header": "a.pdf\r\nSet-Cookie: x=y",
    "second parameter": "a.pdf; filename*=UTF-8''evil.exe",
    "percent": "100%22.pdf",
    "dots": "...",
}


async def pieces(content: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def cut_short() -> AsyncIterator[bytes]:
    yield b"x" * 2_000_000
    raise ConnectionError


async def there(storage: Storage, prefix: str, before: datetime) -> set[str]:
    return {stored.key async for stored in storage.objects(prefix, before=before)}


async def content_of(storage: Storage, key: str, **part: int) -> bytes:
    async with storage.open(key, **part) as blocks:
        return b"".join([block async for block in blocks])


def later() -> datetime:
    return clock.now() + timedelta(minutes=1)


class StorageContract:
    """A class has the fixtures `storage`, an empty one; `send`, which uploads; and `fetch`, which downloads.

    BINDS names what an upload's signature binds: `size`, `type`, `checksum`, `once` (never over an object that is
    there). What is not in it, `stat` has to tell, so that it is found afterwards.
    """

    BINDS: ClassVar = {"size", "type", "checksum", "once"}
    # Whether downloads come with the type and the name that were asked for, and in parts.
    NAMES_DOWNLOADS: ClassVar = True

    @pytest.fixture
    def key(self) -> str:
        return f"tests/{uuid4().hex}/{uuid4().hex}"

    async def ticket(
        self, storage: Storage, key: str, *, size: int = len(CONTENT), sha256: str | None = None
    ) -> Upload:
        return await storage.upload(key, size=size, content_type=PNG, sha256=sha256, expires=QUARTER)

    async def test_what_is_uploaded_is_there_as_it_was(self, storage: Storage, key: str, send: Send) -> None:
        assert await storage.stat(key) is None
        upload = await self.ticket(storage, key, sha256=SHA256)
        assert clock.now() < upload.expires_at <= clock.now() + QUARTER
        assert (await send(upload, CONTENT)).is_success
        stored = await storage.stat(key)
        assert stored is not None
        assert (stored.key, stored.size) == (key, len(CONTENT))
        assert stored.sha256 in {SHA256, None}
        assert stored.content_type in {PNG, None}
        assert abs(stored.modified_at - datetime.now(UTC)) < timedelta(minutes=5)
        assert await content_of(storage, key) == CONTENT

    async def test_an_empty_file_is_a_file(self, storage: Storage, key: str, send: Send) -> None:
        assert (await send(await self.ticket(storage, key, size=0), b"")).is_success
        stored = await storage.stat(key)
        assert stored is not None
        assert stored.size == 0
        assert await content_of(storage, key) == b""

    @pytest.mark.parametrize("content", [CONTENT + b"x", CONTENT[:-1], b""], ids=["longer", "shorter", "empty"])
    async def test_another_size_is_refused_or_found(
        self, storage: Storage, key: str, send: Send, content: bytes
    ) -> None:
        answer = await send(await self.ticket(storage, key), content)
        stored = await storage.stat(key)
        if "size" in self.BINDS:
            assert (answer.is_success, stored) == (False, None)
        else:
            assert stored is None or stored.size == len(content)

    @pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", None])
    async def test_another_type_is_refused_or_found(
        self, storage: Storage, key: str, send: Send, kind: str | None
    ) -> None:
        answer = await send(await self.ticket(storage, key), CONTENT, headers={"Content-Type": kind})
        stored = await storage.stat(key)
        if "type" in self.BINDS:
            assert (answer.is_success, stored) == (False, None)
        else:
            assert stored is None or stored.content_type in {kind, None, "application/octet-stream"}

    async def test_another_content_is_refused_or_found(self, storage: Storage, key: str, send: Send) -> None:
        other = CONTENT[:-1] + b"x"
        answer = await send(await self.ticket(storage, key, sha256=SHA256), other)
        stored = await storage.stat(key)
        if "checksum" in self.BINDS:
            assert (answer.is_success, stored) == (False, None)
        else:
            assert stored is None or stored.sha256 in {None, hashlib.sha256(other).hexdigest()}

    async def test_a_link_uploads_once(self, storage: Storage, key: str, send: Send) -> None:
        upload = await self.ticket(storage, key)
        other = bytes(reversed(CONTENT))
        assert (await send(upload, CONTENT)).is_success
        again = await send(upload, other)
        if "once" in self.BINDS:
            assert not again.is_success
            assert await content_of(storage, key) == CONTENT

    async def test_a_link_is_for_its_own_object(self, storage: Storage, key: str, send: Send) -> None:
        upload, other = await self.ticket(storage, key), f"tests/{uuid4().hex}/{uuid4().hex}"
        assert not (await send(upload, CONTENT, rewrite=lambda text: text.replace(key, other))).is_success
        assert await storage.stat(other) is None
        assert await storage.stat(key) is None

    async def test_a_download_is_named_and_typed(self, storage: Storage, key: str, fetch: Fetch) -> None:
        await storage.write(key, pieces(CONTENT), content_type=PNG)
        url = await storage.download_url(key, name="a b.png", content_type=PNG, inline=False, expires=QUARTER)
        answer = await fetch(url)
        assert (answer.status_code, answer.content) == (200, CONTENT)
        if self.NAMES_DOWNLOADS:
            assert answer.headers["content-type"] == PNG
            assert answer.headers["content-disposition"].startswith("attachment; ")
            assert "filename*=UTF-8''a%20b.png" in answer.headers["content-disposition"]
            part = await fetch(url, headers={"Range": "bytes=100-199"})
            assert (part.status_code, part.content) == (206, CONTENT[100:200])

    @pytest.mark.parametrize("name", NAMES)
    async def test_no_name_is_more_than_a_name(self, storage: Storage, key: str, fetch: Fetch, name: str) -> None:
        await storage.write(key, pieces(b"x"), content_type=PNG)
        url = await storage.download_url(key, name=NAMES[name], content_type=PNG, inline=False, expires=QUARTER)
        assert url.isascii()
        answer = await fetch(url)
        assert answer.status_code == 200
        assert "set-cookie" not in answer.headers
        assert not answer.headers.get("content-disposition", "attachment").startswith("inline")

    async def test_a_link_to_nothing_leads_nowhere(self, storage: Storage, key: str, fetch: Fetch) -> None:
        url = await storage.download_url(key, name="x", content_type=PNG, inline=False, expires=QUARTER)
        assert (await fetch(url)).status_code in {403, 404}

    async def test_the_service_writes_once_and_whole(self, storage: Storage, key: str) -> None:
        large = CONTENT * 100
        stored = await storage.write(key, pieces(large, 65_536), content_type="text/plain")
        assert (stored.key, stored.size) == (key, len(large))
        assert stored.sha256 in {hashlib.sha256(large).hexdigest(), None}
        with pytest.raises(ObjectExists):
            await storage.write(key, pieces(b"other"), content_type="text/plain")
        assert await content_of(storage, key) == large
        half = f"{key}-half"
        with pytest.raises(ConnectionError):
            await storage.write(half, cut_short(), content_type="text/plain")
        assert await storage.stat(half) is None

    async def test_a_part_is_read(self, storage: Storage, key: str) -> None:
        await storage.write(key, pieces(CONTENT), content_type=PNG)
        assert await content_of(storage, key, start=1000) == CONTENT[1000:]
        assert await content_of(storage, key, start=5, length=10) == CONTENT[5:15]
        assert await content_of(storage, key, start=len(CONTENT) - 5, length=10) == CONTENT[-5:]
        with pytest.raises(ObjectNotFound):
            await content_of(storage, f"{key}-other")

    async def test_what_is_deleted_is_gone(self, storage: Storage, key: str, send: Send, fetch: Fetch) -> None:
        upload = await self.ticket(storage, key)
        assert (await send(upload, CONTENT)).is_success
        url = await storage.download_url(key, name="x", content_type=PNG, inline=False, expires=QUARTER)
        await storage.delete(key)
        assert await storage.stat(key) is None
        assert (await fetch(url)).status_code in {403, 404}
        assert await there(storage, "tests/", later()) == set()
        await storage.delete(key)

    async def test_objects_are_found_by_prefix_and_age(self, storage: Storage) -> None:
        keys = {f"tests/{number}/x" for number in range(5)}
        for key in keys:
            await storage.write(key, pieces(b"x"), content_type=PNG)
        await storage.write("other/x", pieces(b"x"), content_type=PNG)
        assert await there(storage, "tests/", later()) == keys
        assert await there(storage, "tests/3/", later()) == {"tests/3/x"}
        assert await there(storage, "tests/", clock.now() - timedelta(minutes=1)) == set()
        async for stored in storage.objects("other/", before=later()):
            assert isinstance(stored, Stored)
            assert stored.size == 1
        await storage.tidy(before=later())
        assert await there(storage, "tests/", later()) == keys

    @pytest.mark.parametrize(
        "key",
        [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "../a",
            "a/../b",
            "a/./b",
            "A",
            "a.b",
            "a\\b",
            "a\x00",
            "a\n",
            "é",
            "a b",
            "a" * 201,
        ],
    )
    async def test_what_is_no_key_is_refused(self, storage: Storage, key: str) -> None:
        async def write() -> None:
            await storage.write(key, pieces(b"x"), content_type=PNG)

        for attempt in (
            self.ticket(storage, key),
            storage.download_url(key, name="x", content_type=PNG, inline=False, expires=QUARTER),
            storage.stat(key),
            write(),
            storage.delete(key),
            content_of(storage, key),
        ):
            with pytest.raises(ValueError, match="key"):
                await attempt

    @pytest.mark.parametrize("kind", ["", "image", "image/png; x=y", "image/png\r\nX: y", "IMAGE/PNG", "a/b/c"])
    async def test_what_is_no_type_is_refused(self, storage: Storage, key: str, kind: str) -> None:
        with pytest.raises(ValueError, match="type"):
            await storage.upload(key, size=1, content_type=kind, sha256=None, expires=QUARTER)
        with pytest.raises(ValueError, match="type"):
            await storage.download_url(key, name="x", content_type=kind, inline=False, expires=QUARTER)

    async def test_it_can_be_checked(self, storage: Storage) -> None:
        await storage.check()
        assert await there(storage, "", later()) == set()

import asyncio
import json
import os
import stat
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import time_machine
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response

from app.kit import clock
from app.kit.errors import ERROR_HANDLERS
from app.kit.settings import SettingsError, load
from app.ports.storage import endpoints, local
from app.ports.storage.endpoints import router
from app.ports.storage.local import LocalStorage
from app.ports.storage.settings import StorageSettings
from app.ports.storage.storage import (
    LONGEST,
    ObjectExists,
    StorageUnavailable,
    Stored,
    Upload,
    content_disposition,
)
from tests.ports.storage import following
from tests.ports.storage.contract import (
    CONTENT,
    PNG,
    QUARTER,
    SHA256,
    Fetch,
    Send,
    StorageContract,
    content_of,
    later,
    pieces,
    there,
)

KEY = "tests/ada/1"


@pytest.fixture
def storage(tmp_path: Path, configure: Callable[..., None]) -> LocalStorage:
    configure(storage_folder=str(tmp_path / "data" / "files"))
    return LocalStorage()


@pytest.fixture
async def client(storage: LocalStorage) -> AsyncIterator[AsyncClient]:
    app = FastAPI(exception_handlers=dict[Any, Any](ERROR_HANDLERS))
    app.state.storage = storage
    app.include_router(router, prefix="/api/v1/public")
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        yield client


@pytest.fixture
def send(client: AsyncClient) -> Send:
    return partial(following.send, client)


@pytest.fixture
def fetch(client: AsyncClient) -> Fetch:
    return client.get


class TestLocal(StorageContract):
    pass


async def ticket(storage: LocalStorage, key: str = KEY, *, size: int = len(CONTENT), **more: Any) -> Upload:
    asked: dict[str, Any] = {"content_type": PNG, "sha256": None, "expires": QUARTER, **more}
    return await storage.upload(key, size=size, **asked)


async def link(storage: LocalStorage, key: str = KEY, **more: Any) -> str:
    asked: dict[str, Any] = {"name": "a.png", "content_type": PNG, "inline": False, "expires": QUARTER, **more}
    return await storage.download_url(key, **asked)


def ticket_in(url: str) -> str:
    return parse_qs(urlsplit(url).query)["ticket"][0]


def with_ticket(url: str, ticket: str) -> str:
    return f"{urlsplit(url).path}?{urlencode({'ticket': ticket})}"


def claims_of(ticket: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(urlsafe_b64decode(ticket.split(".", maxsplit=1)[0]))
    return read


def forged(ticket: str, **changes: Any) -> str:
    """Change what a ticket allows, and keep its signature."""
    claims = json.dumps({**claims_of(ticket), **changes}).encode()
    return f"{urlsafe_b64encode(claims).decode()}.{ticket.split('.')[1]}"


def nothing_is_left(storage: LocalStorage) -> bool:
    return not any(path.is_file() for path in storage.folder.rglob("*"))


FORGERIES: dict[str, Callable[[str], str]] = {
    "no signature": lambda good: good.split(".")[0],
    "empty signature": lambda good: f"{good.split('.')[0]}.",
    "no ticket": lambda good: "",
    "one letter more": lambda good: f"{good}A",
    "one letter less": lambda good: good[:-1],
    "another signature": lambda good: f"{good[:-2]}{'AA' if good[-2:] != 'AA' else 'BB'}",
    "padding": lambda good: f"{good}=",
    "white space": lambda good: good.replace(".", ". "),
    "other letters": lambda good: good.replace(".", ".é"),
    "a larger file": lambda good: forged(good, size=10**12),
    "another type": lambda good: forged(good, type="text/html"),
    "another object": lambda good: forged(good, key="tests/eve/1"),
    "more time": lambda good: forged(good, until=2**40),
    "any checksum": lambda good: forged(good, sha256=None, x=1),
    "signed with nothing": lambda good: local.Links("").sign("upload", later(), **claims_of(good)),
    "signed for downloads": lambda good: local.LocalStorage().links.sign("download", later(), **claims_of(good)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_what_was_not_signed_uploads_nothing(
    storage: LocalStorage, client: AsyncClient, send: Send, forgery: str
) -> None:
    upload = await ticket(storage)
    ticket_sent = FORGERIES[forgery](ticket_in(upload.url))
    answer = await client.put(with_ticket(upload.url, ticket_sent), content=CONTENT, headers=dict(upload.headers))
    assert (answer.status_code, answer.json()["code"]) == (403, "link_refused")
    assert nothing_is_left(storage)
    assert (await send(upload, CONTENT)).status_code == 201


async def test_a_link_of_one_kind_is_none_of_another(storage: LocalStorage, client: AsyncClient) -> None:
    upload, url = await ticket(storage), await link(storage)
    answers = [
        await client.put(url, content=CONTENT, headers=dict(upload.headers)),
        await client.get(upload.url),
        await client.head(upload.url),
        await client.put(urlsplit(upload.url).path, content=CONTENT, headers=dict(upload.headers)),
    ]
    assert [answer.status_code for answer in answers] == [403, 403, 403, 422]
    for method in ("POST", "PATCH", "DELETE", "OPTIONS"):
        assert (await client.request(method, upload.url, content=CONTENT)).status_code == 405
    assert nothing_is_left(storage)


@pytest.mark.parametrize("path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/x", "/a%00", "/a/../b", "//a", "/A", "/", "/é"])
async def test_no_path_leaves_the_folder(storage: LocalStorage, client: AsyncClient, path: str) -> None:
    good = ticket_in((await ticket(storage)).url)
    url = f"http://test{local.PREFIX}{path}?{urlencode({'ticket': good})}"
    answer = await client.put(url, content=CONTENT, headers={"Content-Type": PNG})
    assert answer.status_code in {403, 404, 405}
    assert nothing_is_left(storage)


async def test_links_run_out(storage: LocalStorage, client: AsyncClient, send: Send) -> None:
    upload = await ticket(storage, expires=timedelta(days=9))
    url = await link(storage, expires=timedelta(days=9))
    assert upload.expires_at <= clock.now() + LONGEST
    with time_machine.travel(upload.expires_at + timedelta(seconds=1)):
        for answer in (await send(upload, CONTENT), await client.get(url)):
            assert (answer.status_code, answer.json()["detail"]) == (403, "This link has expired. Ask for a new one.")
    assert nothing_is_left(storage)


async def test_another_secret_signs_other_links(
    storage: LocalStorage, client: AsyncClient, configure: Callable[..., None]
) -> None:
    configure(secret_key="another secret of forty characters or more")
    upload = await ticket(LocalStorage())
    assert (await client.put(upload.url, content=CONTENT, headers=dict(upload.headers))).status_code == 403


async def test_a_length_that_is_not_announced_is_counted(storage: LocalStorage, client: AsyncClient) -> None:
    endless = 0

    async def more() -> AsyncIterator[bytes]:
        nonlocal endless
        while endless < 1000:
            endless += 1
            yield bytes(65_536)

    for content, told in ((pieces(CONTENT[:-1]), "announced"), (more(), "More came"), (pieces(b""), "0 bytes came")):
        upload = await ticket(storage)
        answer = await client.put(upload.url, content=content, headers=dict(upload.headers))
        assert (answer.status_code, told in answer.json()["detail"]) == (422, True)
    # It is not read to its end.
    assert endless < 100
    upload = await ticket(storage)
    assert (await client.put(upload.url, content=pieces(CONTENT), headers=dict(upload.headers))).status_code == 201


async def test_who_stops_sending_is_not_waited_for(
    storage: LocalStorage, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield CONTENT[:1000]
        await asyncio.Event().wait()

    monkeypatch.setattr(endpoints, "STALLED_SECONDS", 0.1)
    upload = await ticket(storage)
    answer = await client.put(upload.url, content=stalled(), headers=dict(upload.headers))
    assert (answer.status_code, answer.json()["detail"]) == (408, "Nothing came for 0.1 seconds.")
    assert nothing_is_left(storage)


@pytest.mark.parametrize(("after", "status"), [(timedelta(seconds=1), 408), (timedelta(minutes=-1), 201)])
async def test_who_sends_for_ever_is_not_waited_for(
    storage: LocalStorage, client: AsyncClient, after: timedelta, status: int
) -> None:
    upload = await ticket(storage)
    with time_machine.travel(clock.now()) as traveller:

        async def slowly() -> AsyncIterator[bytes]:
            yield CONTENT[:1000]
            traveller.move_to(upload.expires_at + LONGEST + after)
            yield CONTENT[1000:2000]
            yield CONTENT[2000:]

        answer = await client.put(upload.url, content=slowly(), headers=dict(upload.headers))
    assert answer.status_code == status
    assert nothing_is_left(storage) == (status == 408)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Length": "1"}, 400),
        ({"Content-Length": str(10**30)}, 413),
        ({"Content-Length": "x"}, 413),
        ({"Content-Length": "-1"}, 413),
        ({"Content-Encoding": "gzip"}, 400),
        ({"Content-Range": "bytes 0-9/100"}, 400),
        ({"Content-Type": "image/png; charset=x"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
    ],
)
async def test_headers_that_say_something_else_are_refused(
    storage: LocalStorage, client: AsyncClient, headers: dict[str, str], status: int
) -> None:
    upload = await ticket(storage)
    answer = await client.put(upload.url, content=CONTENT, headers={**upload.headers, **headers})
    assert answer.status_code == status
    assert answer.json()["detail"].endswith(".")
    assert nothing_is_left(storage)


async def test_of_two_uploads_with_one_link_one_is_kept(storage: LocalStorage, client: AsyncClient) -> None:
    upload = await ticket(storage)
    other, begun, both = bytes(reversed(CONTENT)), asyncio.Event(), asyncio.Event()

    async def slowly(content: bytes) -> AsyncIterator[bytes]:
        begun.set()
        yield content[:1000]
        await both.wait()
        yield content[1000:]

    async def put(content: AsyncIterator[bytes]) -> Response:
        return await client.put(upload.url, content=content, headers=dict(upload.headers))

    first = asyncio.create_task(put(slowly(CONTENT)))
    await begun.wait()
    assert (await put(pieces(other))).status_code == 409
    # Another process knows nothing of the first, and is done before it.
    assert (await LocalStorage().take(KEY, pieces(other), content_type=PNG)).size == len(other)
    both.set()
    assert (await first).status_code == 409
    assert await content_of(storage, KEY) == other
    assert not any((storage.folder / "parts").iterdir())


async def test_what_was_deleted_does_not_come_back(storage: LocalStorage, send: Send) -> None:
    used, unused = await ticket(storage), await ticket(storage, "tests/ada/2")
    await send(used, CONTENT)
    for upload, key in ((used, KEY), (unused, "tests/ada/2")):
        await storage.delete(key)
        assert (await send(upload, CONTENT)).status_code == 409
        assert await storage.stat(key) is None
    # What remembers that goes when no link is good any more.
    await storage.tidy(before=later())
    assert storage.place(KEY).is_dir()
    with time_machine.travel(clock.now() + 3 * LONGEST):
        await storage.tidy(before=later())
    assert not storage.place(KEY).exists()


async def test_a_deletion_ends_what_is_being_uploaded(storage: LocalStorage) -> None:
    async def deleted_meanwhile() -> AsyncIterator[bytes]:
        yield b"x" * 100
        await storage.delete(KEY)
        yield b"y" * 100

    with pytest.raises(ObjectExists):
        await storage.write(KEY, deleted_meanwhile(), content_type=PNG)
    assert await storage.stat(KEY) is None


async def test_a_deletion_right_after_an_upload_is_no_failure(
    storage: LocalStorage, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, stat = await ticket(storage), storage.stat

    async def deleted_meanwhile(key: str) -> Stored | None:
        await storage.delete(key)
        return await stat(key)

    monkeypatch.setattr(storage, "stat", deleted_meanwhile)
    assert (await send(upload, CONTENT)).status_code == 409
    assert await there(storage, "", later()) == set()


async def test_only_the_user_of_the_service_may_read(storage: LocalStorage, send: Send) -> None:
    before = os.umask(0)
    try:
        await send(await ticket(storage), CONTENT)
        await storage.delete("tests/ada/2")
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [storage.folder, *storage.folder.rglob("*")]}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}


async def test_a_process_that_was_killed_leaves_nothing_for_long(storage: LocalStorage) -> None:
    await storage.write(KEY, pieces(CONTENT), content_type=PNG)
    part = storage.folder / "parts" / "killed"
    part.mkdir()
    (part / "content").write_bytes(CONTENT)
    half = storage.place("tests/ada/2")
    half.mkdir()
    (half / "content").write_bytes(CONTENT)
    (half / "gone").touch()
    assert await storage.stat("tests/ada/2") is None
    assert await there(storage, "", later()) == {KEY}
    await storage.tidy(before=clock.now() - timedelta(hours=1))
    assert part.is_dir()
    with time_machine.travel(clock.now() + 3 * LONGEST):
        await storage.tidy(before=later())
    assert (part.exists(), half.exists()) == (False, False)
    assert await content_of(storage, KEY) == CONTENT


async def test_a_disk_that_refuses_is_told(storage: LocalStorage, send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    await storage.write("tests/ada/2", pieces(b"x"), content_type=PNG)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    answer = await send(await ticket(storage), CONTENT)
    assert (answer.status_code, "Try again" in answer.json()["detail"]) == (503, True)
    monkeypatch.undo()
    assert await storage.stat(KEY) is None
    assert not any((storage.folder / "parts").iterdir())


async def test_the_check_finds_a_folder_that_cannot_be_made(tmp_path: Path, configure: Callable[..., None]) -> None:
    (tmp_path / "file").write_text("in the way")
    configure(storage_folder=str(tmp_path / "file" / "files"))
    storage = LocalStorage()
    with pytest.raises(StorageUnavailable):
        await storage.check()
    with pytest.raises(StorageUnavailable):
        await storage.write(KEY, pieces(b"x"), content_type=PNG)


def test_a_storage_that_is_not_there_is_refused(configure: Callable[..., None]) -> None:
    configure(storage_provider="floppy")
    with pytest.raises(SettingsError, match=r"STORAGE_PROVIDER: is none of local"):
        load(StorageSettings)


RANGES = {
    "bytes=0-0": (206, 0, 1),
    "bytes=0-99": (206, 0, 100),
    "bytes=100-": (206, 100, len(CONTENT)),
    "bytes=-100": (206, len(CONTENT) - 100, len(CONTENT)),
    "bytes=5-999999999999": (206, 5, len(CONTENT)),
    "bytes=-999999999": (206, 0, len(CONTENT)),
    "Bytes=1-2": (206, 1, 3),
    f"bytes={len(CONTENT) - 1}-": (206, len(CONTENT) - 1, len(CONTENT)),
    # What is no single range is ignored.
    "bytes=0-0,2-3": (200, 0, len(CONTENT)),
    "bytes=" + "0-0," * 1000: (200, 0, len(CONTENT)),
    "bytes=9-5": (200, 0, len(CONTENT)),
    "bytes=a-b": (200, 0, len(CONTENT)),
    "bytes=-": (200, 0, len(CONTENT)),
    "bytes=": (200, 0, len(CONTENT)),
    "lines=0-9": (200, 0, len(CONTENT)),
    "0-9": (200, 0, len(CONTENT)),
    "bytes=\u0660-\u0669": (200, 0, len(CONTENT)),
    f"bytes=0-{'9' * 5000}": (200, 0, len(CONTENT)),
}


@pytest.mark.parametrize("asked", RANGES, ids=range(len(RANGES)))
async def test_a_range_is_sent_and_anything_else_ignored(
    storage: LocalStorage, client: AsyncClient, asked: str
) -> None:
    await storage.write(KEY, pieces(CONTENT), content_type=PNG)
    status, start, end = RANGES[asked]
    url, headers = await link(storage), {b"Range": asked.encode()}
    answer = await client.get(url, headers=headers)
    assert (answer.status_code, answer.content) == (status, CONTENT[start:end])
    assert answer.headers["content-length"] == str(end - start)
    told = f"bytes {start}-{end - 1}/{len(CONTENT)}" if status == 206 else None
    assert (answer.headers["accept-ranges"], answer.headers.get("content-range")) == ("bytes", told)
    head = await client.head(url, headers=headers)
    same = ("content-length", "content-type", "etag", "content-disposition")
    assert (head.status_code, head.content) == (status, b"")
    assert [head.headers[name] for name in same] == [answer.headers[name] for name in same]


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=999999999999-", "bytes=-0"])
async def test_a_range_past_the_end_cannot_be_sent(storage: LocalStorage, client: AsyncClient, asked: str) -> None:
    await storage.write(KEY, pieces(CONTENT), content_type=PNG)
    answer = await client.get(await link(storage), headers={"Range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")
    assert answer.json()["detail"] == f"The file has {len(CONTENT)} bytes."


async def test_a_part_of_something_else_is_not_sent(storage: LocalStorage, client: AsyncClient) -> None:
    await storage.write(KEY, pieces(CONTENT), content_type=PNG)
    url = await link(storage)
    etag = (await client.head(url)).headers["etag"]
    assert etag == f'"{SHA256}"'
    for condition, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200), ("x", 200)):
        answer = await client.get(url, headers={"Range": "bytes=0-9", "If-Range": condition})
        assert answer.status_code == status, condition
    past = await client.get(url, headers={"Range": f"bytes={len(CONTENT)}-", "If-Range": '"other"'})
    assert (past.status_code, past.content) == (200, CONTENT)
    for condition, status in ((etag, 304), (f'"x", W/{etag}', 304), ("*", 304), ('"x"', 200)):
        answer = await client.get(url, headers={"If-None-Match": condition})
        assert answer.status_code == status, condition


@pytest.mark.parametrize("kind", ["text/html", "image/svg+xml", "text/javascript", PNG])
async def test_whatever_it_is_it_runs_nothing_here(storage: LocalStorage, client: AsyncClient, kind: str) -> None:
    await storage.write(KEY, pieces(b"<script>alert(1)</script>"), content_type=kind)
    headers = (await client.get(await link(storage, content_type=kind))).headers
    assert headers["content-disposition"].startswith("attachment; ")
    assert "sandbox" in headers["content-security-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    shown = (await client.get(await link(storage, content_type=kind, inline=True))).headers
    assert shown["content-disposition"].startswith("inline; ")
    assert "sandbox" in shown["content-security-policy"]


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.png", "filename=\"a.png\"; filename*=UTF-8''a.png"),
        ("a b.png", "filename=\"a b.png\"; filename*=UTF-8''a%20b.png"),
        ('a"; x="b', "filename=\"a__ x=_b\"; filename*=UTF-8''a%22%3B%20x%3D%22b"),
        ("a\r\nX: y", "filename=\"a__X_ y\"; filename*=UTF-8''a%0D%0AX%3A%20y"),
        ("日本", "filename=\"file\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC"),
        ("é\u202egnp.exe", "filename=\"egnp.exe\"; filename*=UTF-8''%C3%A9%E2%80%AEgnp.exe"),
        ("..", "filename=\"file\"; filename*=UTF-8''.."),
        ("\uff0e\uff0e\uff0fa", "filename=\"_a\"; filename*=UTF-8''%EF%BC%8E%EF%BC%8E%EF%BC%8Fa"),
        ("100%.png", "filename=\"100_.png\"; filename*=UTF-8''100%25.png"),
    ],
)
def test_a_name_is_one_value_of_a_header(name: str, header: str) -> None:
    assert content_disposition(name, inline=False) == f"attachment; {header}"
    assert content_disposition(name, inline=True) == f"inline; {header}"


async def test_links_to_local_files_lead_nowhere_when_something_else_keeps_them(
    storage: LocalStorage, client: AsyncClient
) -> None:
    upload, url = await ticket(storage), await link(storage)
    client._transport.app.state.storage = object()  # type: ignore[attr-defined]
    answers = [await client.get(url), await client.put(upload.url, content=CONTENT, headers=dict(upload.headers))]
    assert [answer.status_code for answer in answers] == [404, 404]

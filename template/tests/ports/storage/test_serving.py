"""Links over real connections, to the service in a process of its own."""

import asyncio
import hashlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest
from alembic.config import Config
from httpx2 import AsyncClient

from app.ports.storage.local import LocalStorage
from app.ports.storage.storage import Upload
from tests.ports.storage.contract import PNG, QUARTER

SECRET = "a secret of the service and of these tests alone"
BLOCK = secrets.token_bytes(1_000_000)
MANY = 64
SIZE = MANY * len(BLOCK)
SHA256 = hashlib.sha256(BLOCK * MANY).hexdigest()
# Far less than the file, and more than any process of Python takes beside it.
LITTLE_MB = 40


# Where Linux tells what a process has.
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="this system has no /proc")


class Served(NamedTuple):
    """A service, and the storage that signs its links."""

    storage: LocalStorage
    client: AsyncClient
    port: int
    pid: int
    log: Path
    key: str

    def begin_peak(self) -> None:
        """Forget how much memory the process has had."""
        with suppress(PermissionError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def peak_mb(self) -> float:
        """Return the most memory that the process has had since."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory, migrated: Config) -> Iterator[tuple[int, int, Path]]:
    folder = tmp_path_factory.mktemp("served")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "app.cli", "serve", "--port", str(port)]
    env = os.environ | {"LOG_LEVEL": "INFO", "LOG_FORMAT": "json", "STORAGE_FOLDER": str(folder), "SECRET_KEY": SECRET}
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, env=env, stdout=log)
    try:
        while "Uvicorn running" not in (folder / "log").read_text():
            assert running.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield port, running.pid, folder
    finally:
        running.kill()
        running.wait()


@pytest.fixture
async def served(process: tuple[int, int, Path], configure: Callable[..., None]) -> AsyncIterator[Served]:
    port, pid, folder = process
    configure(storage_folder=str(folder), secret_key=SECRET)
    async with AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield Served(LocalStorage(), client, port, pid, folder / "log", f"tests/ada/{uuid4().hex}")


async def blocks(many: int = MANY) -> AsyncIterator[bytes]:
    for _ in range(many):
        yield BLOCK


async def ticket(served: Served, *, size: int = SIZE) -> Upload:
    return await served.storage.upload(served.key, size=size, content_type=PNG, sha256=None, expires=QUARTER)


async def url(served: Served) -> str:
    return await served.storage.download_url(served.key, name="a", content_type=PNG, inline=False, expires=QUARTER)


async def send_raw(
    served: Served, upload: Upload, *lines: str, body: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    head = [f"PUT {upload.url} HTTP/1.1", "Host: test", f"Content-Type: {PNG}", *lines, "", ""]
    writer.write("\r\n".join(head).encode() + body)
    await writer.drain()
    return reader, writer


def parts(served: Served) -> list[Path]:
    return list((served.storage.folder / "parts").glob("*"))


def is_open(pid: int, path: Path) -> bool:
    """Tell whether a process has a file open."""
    opened = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            opened.append(one.readlink())
    return path in opened


async def no_part_is_left(served: Served) -> None:
    async with asyncio.timeout(30):
        while parts(served):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@needs_proc
async def test_a_large_file_goes_both_ways_in_little_memory(served: Served) -> None:
    small = await served.storage.upload(f"{served.key}-small", size=1, content_type=PNG, sha256=None, expires=QUARTER)
    await served.client.put(small.url, content=b"x", headers=dict(small.headers))
    served.begin_peak()
    before = served.peak_mb()
    upload = await ticket(served)
    told = {**upload.headers, "Content-Length": str(SIZE)}
    assert (await served.client.put(upload.url, content=blocks(), headers=told)).status_code == 201
    stored = await served.storage.stat(served.key)
    assert stored is not None
    assert (stored.size, stored.sha256) == (SIZE, SHA256)
    found, received = hashlib.sha256(), 0
    async with served.client.stream("GET", await url(served)) as answer:
        async for chunk in answer.aiter_bytes():
            found.update(chunk)
            received += len(chunk)
    assert (received, found.hexdigest()) == (SIZE, SHA256)
    assert served.peak_mb() - before < LITTLE_MB
    assert "ticket" not in served.log.read_text()


async def test_a_chunked_upload_is_counted(served: Served) -> None:
    upload = await ticket(served)
    answer = await served.client.put(upload.url, content=blocks(MANY - 1), headers=dict(upload.headers))
    assert (answer.status_code, answer.json()["code"]) == (422, "unprocessable_content")
    assert await served.storage.stat(served.key) is None
    assert (await served.client.put(upload.url, content=blocks(), headers=dict(upload.headers))).status_code == 201


@pytest.mark.parametrize("lines", [[f"Content-Length: {SIZE}"], ["Transfer-Encoding: chunked"]])
async def test_an_upload_that_is_cut_off_leaves_nothing_and_may_begin_again(served: Served, lines: list[str]) -> None:
    upload = await ticket(served)
    chunk = BLOCK if "Length" in lines[0] else b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)
    _, writer = await send_raw(served, upload, *lines, body=chunk * 3)
    async with asyncio.timeout(30):
        while not parts(served):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    writer.transport.abort()
    await no_part_is_left(served)
    assert await served.storage.stat(served.key) is None
    assert (await served.client.put(upload.url, content=blocks(), headers=dict(upload.headers))).status_code == 201
    assert "unhandled error" not in served.log.read_text()


async def test_more_than_was_announced_is_the_next_request_and_not_the_file(served: Served) -> None:
    upload = await ticket(served, size=10)
    reader, writer = await send_raw(served, upload, "Content-Length: 10", body=b"x" * 10 + b"GET / HTTP/1.1\r\n\r\n")
    assert b" 201 " in await reader.readline()
    writer.close()
    stored = await served.storage.stat(served.key)
    assert stored is not None
    assert stored.size == 10


async def test_two_lengths_are_refused(served: Served) -> None:
    upload = await ticket(served, size=10)
    for lines in (("Content-Length: 10", "Content-Length: 11"), ("Content-Length: 10", "Transfer-Encoding: chunked")):
        reader, writer = await send_raw(served, upload, *lines, body=b"x" * 10)
        async with asyncio.timeout(30):
            assert b" 400 " in await reader.readline()
        writer.close()
    assert await served.storage.stat(served.key) is None


async def test_what_is_too_long_is_refused_before_it_comes(served: Served) -> None:
    upload = await ticket(served, size=10)
    reader, writer = await send_raw(served, upload, f"Content-Length: {10**12}", body=b"x")
    async with asyncio.timeout(30):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_other_routes_keep_their_limit(served: Served) -> None:
    for path in ("/api/v1/public/storage", "/api/v1/public/storages/x", "/api/v1/app/users/me"):
        answer = await served.client.put(path, content=blocks(3), headers={"Content-Length": "3000000"})
        assert answer.status_code == 413, path


async def test_of_many_uploads_with_one_link_one_is_kept(served: Served) -> None:
    contents = [secrets.token_bytes(2_000_000) for _ in range(8)]
    upload = await ticket(served, size=2_000_000)

    async def put(content: bytes) -> int:
        return (await served.client.put(upload.url, content=content, headers=dict(upload.headers))).status_code

    statuses = await asyncio.gather(*map(put, contents))
    assert sorted(statuses) == [201, *[409] * 7]
    stored = await served.storage.stat(served.key)
    assert stored is not None
    assert stored.sha256 == hashlib.sha256(contents[statuses.index(201)]).hexdigest()
    assert parts(served) == []


async def test_no_header_keeps_the_service_busy(served: Served) -> None:
    await served.storage.write(served.key, blocks(1), content_type=PNG)
    headers = {"If-None-Match": f'"x{" " * 200_000}y"'}
    assert (await served.client.get(await url(served), headers=headers)).status_code == 200


@needs_proc
async def test_who_leaves_in_the_middle_of_a_download_leaves_no_file_open(served: Served) -> None:
    await served.storage.write(served.key, blocks(), content_type=PNG)
    path, content = await url(served), served.storage.place(served.key) / "content"
    async with served.client.stream("GET", path) as answer:
        await anext(answer.aiter_bytes())
        assert is_open(served.pid, content)
    async with asyncio.timeout(30):
        while is_open(served.pid, content):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

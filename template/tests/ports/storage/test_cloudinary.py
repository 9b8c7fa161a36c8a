import hashlib
import json
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from httpx2 import AsyncClient

from app.kit.settings import SettingsError, load
from app.ports.storage import cloudinary as adapter
from app.ports.storage.cloudinary import CloudinaryStorage
from app.ports.storage.settings import StorageSettings, open_storage
from app.ports.storage.storage import ObjectExists, Storage, StorageUnavailable
from tests.ports.storage import following
from tests.ports.storage.contract import (
    CONTENT,
    PNG,
    QUARTER,
    Fetch,
    Send,
    StorageContract,
    content_of,
    later,
    pieces,
    there,
)

CLOUD, KEY, SECRET = "tests", "123456789012345", "a-secret-that-is-only-for-tests"
UNSIGNED = {"file", "cloud_name", "resource_type", "api_key", "signature"}
HOUR = 3600


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message


class Vendor:
    """What https://cloudinary.com/documentation/image_upload_api_reference says of raw files, and the Admin API."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.parts: dict[str, bytes] = {}
        self.url = ""

    def verify(self, given: dict[str, str]) -> None:
        """See https://cloudinary.com/documentation/authentication_signatures."""
        signed = sorted((name, value) for name, value in given.items() if name not in UNSIGNED)
        text = "&".join(f"{name}={value}".replace("&", "%26") for name, value in signed)
        if given.get("api_key") != KEY:
            raise Refused(401, "Unknown API key")
        if given.get("signature") != hashlib.sha1((text + SECRET).encode()).hexdigest():
            raise Refused(401, "Invalid Signature")
        if abs(time.time() - int(given["timestamp"])) > HOUR:
            raise Refused(400, "Stale request")

    def details(self, sort: str, key: str) -> dict[str, Any]:
        content, at = self.kept[sort, key]
        kind = {"resource_type": sort, "type": "authenticated"}
        return {"public_id": key, "bytes": len(content), "created_at": at, **kind}

    def upload(self, sort: str, given: dict[str, str], content: bytes, headers: dict[str, str]) -> dict[str, Any]:
        self.verify(given)
        key = given["public_id"]
        if not content:
            raise Refused(400, "Empty file")
        if "content-range" in headers:
            whole = self.parts.pop(headers["x-unique-upload-id"], b"") + content
            if len(whole) < int(headers["content-range"].rpartition("/")[2]):
                self.parts[headers["x-unique-upload-id"]] = whole
                return {"done": False, "public_id": key}
            content = whole
        assert given["type"] == "authenticated"
        if (sort, key) in self.kept and given.get("overwrite") in {"false", "0"}:
            return {**self.details(sort, key), "existing": True}
        self.kept[sort, key] = content, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return self.details(sort, key)

    def destroy(self, sort: str, given: dict[str, str]) -> dict[str, Any]:
        self.verify(given)
        return {"result": "ok" if self.kept.pop((sort, given["public_id"]), None) else "not found"}

    def download(self, given: dict[str, str]) -> tuple[bytes, dict[str, str]]:
        self.verify(given)
        if int(given["expires_at"]) < time.time():
            raise Refused(401, "Expired")
        if ("raw", given["public_id"]) not in self.kept:
            raise Refused(404, "Resource not found")
        kind = "attachment" if given.get("attachment") == "true" else "inline"
        return self.kept["raw", given["public_id"]][0], {"Content-Disposition": kind}

    def admin(self, path: str, query: dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
        if headers.get("authorization") != f"Basic {b64encode(f'{KEY}:{SECRET}'.encode()).decode()}":
            raise Refused(401, "api_secret mismatch")
        if path == "ping":
            return {"status": "ok"}
        _, sort, _, key = f"{path}/".split("/", 3)
        if not key:
            found = sorted(it for of, it in self.kept if of == sort and it.startswith(query.get("prefix", "")))
            start, many = int(query.get("next_cursor", 0)), int(query["max_results"])
            more = {"next_cursor": str(start + many)} if start + many < len(found) else {}
            return {"resources": [self.details(sort, it) for it in found[start : start + many]], **more}
        if (sort, key := key.rstrip("/")) not in self.kept:
            raise Refused(404, "Resource not found")
        return self.details(sort, key)


def fields_of(kind: str, body: bytes) -> tuple[dict[str, str], bytes]:
    """Read a form."""
    if not kind.startswith("multipart/"):
        return dict(parse_qsl(body.decode())), b""
    form = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + body)
    parts: dict[str, bytes] = {}
    for part in form.get_payload():
        assert not isinstance(part, str)
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        parts[str(part.get_param("name", header="content-disposition"))] = content
    content = parts.pop("file", b"")
    return {name: value.decode() for name, value in parts.items()}, content


@pytest.fixture(scope="module")
def served() -> Iterator[Vendor]:
    vendor = Vendor()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = self.rfile.read(int(headers.get("content-length", 0)))
            url = urlsplit(self.path)
            query = dict(parse_qsl(url.query))
            path = unquote(url.path).removeprefix(f"/v1_1/{CLOUD}/")
            sort, _, action = path.partition("/")
            status, told = 200, b""
            extra: dict[str, str] = {}
            try:
                if path == "raw/download":
                    told, extra = vendor.download(query)
                else:
                    given, content = fields_of(headers.get("content-type", ""), body)
                    answer = (
                        vendor.upload(sort, given, content, headers)
                        if action == "upload"
                        else vendor.destroy(sort, given)
                        if action == "destroy"
                        else vendor.admin(path, query, headers)
                    )
                    told = json.dumps(answer).encode()
            except Refused as refused:
                status, told = refused.status, json.dumps({"error": {"message": refused.message}}).encode()
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(told)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST = handle_any  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        vendor.url = f"http://127.0.0.1:{server.server_port}"
        yield vendor
        server.shutdown()
        thread.join()


@pytest.fixture
def vendor(served: Vendor) -> Vendor:
    served.kept.clear()
    served.parts.clear()
    return served


@pytest.fixture
async def storage(vendor: Vendor, configure: Callable[..., None]) -> AsyncIterator[CloudinaryStorage]:
    configure(cloudinary_cloud_name=CLOUD, cloudinary_api_key=KEY, cloudinary_api_secret=SECRET)
    storage = CloudinaryStorage(url=vendor.url)
    yield storage
    await storage.close()


class TestCloudinary(StorageContract):
    BINDS: ClassVar = set()
    NAMES_DOWNLOADS: ClassVar = False

    @pytest.fixture
    async def client(self) -> AsyncIterator[AsyncClient]:
        async with AsyncClient() as client:
            yield client

    @pytest.fixture
    def send(self, client: AsyncClient) -> Send:
        return partial(following.send, client)

    @pytest.fixture
    def fetch(self, client: AsyncClient) -> Fetch:
        async def fetch(url: str, **options: Any) -> Any:
            answer = await client.get(url, **options)
            if answer.status_code == 401:
                answer.status_code = 403
            return answer

        return fetch

    async def test_an_empty_file_is_a_file(self, storage: Storage, key: str, send: Send) -> None:
        """Not there: it takes none."""
        assert (await send(await self.ticket(storage, key, size=0), b"")).status_code == 400
        assert await storage.stat(key) is None
        with pytest.raises(StorageUnavailable):
            await storage.write(key, pieces(b""), content_type=PNG)

    async def test_a_second_upload_changes_nothing(self, storage: Storage, key: str, send: Send) -> None:
        upload = await self.ticket(storage, key)
        await send(upload, CONTENT)
        assert (await send(upload, b"other")).json()["existing"] is True
        assert await content_of(storage, key) == CONTENT

    @pytest.mark.parametrize("name", ["overwrite", "type", "timestamp", "public_id"])
    async def test_each_field_is_signed(self, storage: Storage, key: str, send: Send, name: str) -> None:
        upload = await self.ticket(storage, key)
        given = upload.fields[name]
        changed = str(int(given) + 60) if name == "timestamp" else {"overwrite": "true"}.get(name, "upload")
        answer = await send(upload, CONTENT, rewrite=lambda text: changed if text == given else text)
        assert answer.status_code == 401
        assert await storage.stat(key) is None

    @pytest.mark.parametrize("sort", ["image", "video"])
    async def test_what_is_uploaded_as_something_else_is_not_there_and_goes(
        self, storage: Storage, key: str, send: Send, vendor: Vendor, sort: str
    ) -> None:
        upload = await self.ticket(storage, key)
        assert (await send(upload, CONTENT, rewrite=lambda text: text.replace("/raw/", f"/{sort}/"))).is_success
        assert await storage.stat(key) is None
        assert await there(storage, "tests/", later()) == {key}
        await storage.delete(key)
        assert vendor.kept == {}

    async def test_a_form_ends_with_its_time(self, storage: Storage, key: str, send: Send) -> None:
        upload = await storage.upload(
            key, size=len(CONTENT), content_type=PNG, sha256=None, expires=timedelta(seconds=-2)
        )
        assert (await send(upload, CONTENT)).json() == {"error": {"message": "Stale request"}}

    async def test_a_link_ends_with_its_time(self, storage: Storage, key: str, fetch: Fetch) -> None:
        await storage.write(key, pieces(CONTENT), content_type=PNG)
        url = await storage.download_url(key, name="x", content_type=PNG, inline=False, expires=timedelta(seconds=-2))
        assert (await fetch(url)).status_code == 403
        good = await storage.download_url(key, name="x", content_type=PNG, inline=False, expires=QUARTER)
        assert (await fetch(good.replace("attachment=true", "attachment=false"))).status_code == 403

    async def test_what_is_long_goes_in_parts(
        self, storage: Storage, key: str, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adapter, "PART_BYTES", 30_000)
        stored = await storage.write(key, pieces(CONTENT, 7000), content_type=PNG)
        assert (stored.size, stored.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
        assert await content_of(storage, key) == CONTENT
        assert not vendor.parts

    async def test_who_comes_second_writes_over_nothing(self, storage: Storage, key: str, vendor: Vendor) -> None:
        async def overtaken() -> AsyncIterator[bytes]:
            yield b"second"
            vendor.kept["raw", key] = b"first", "2026-01-01T00:00:00Z"

        with pytest.raises(ObjectExists):
            await storage.write(key, overtaken(), content_type=PNG)
        assert await content_of(storage, key) == b"first"

    async def test_a_long_list_has_pages(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(adapter, "PAGE_KEYS", 2)
        keys = {f"tests/{number}/x" for number in range(5)}
        for key in keys:
            await storage.write(key, pieces(b"x"), content_type=PNG)
        assert sorted([stored.key async for stored in storage.objects("tests/", before=later())]) == sorted(keys)


async def test_the_setting_picks_it(storage: CloudinaryStorage, configure: Callable[..., None]) -> None:
    configure(storage_provider="cloudinary", cloudinary_region="eu")
    real = open_storage(load(StorageSettings))
    upload = await real.upload("a/b", size=1, content_type=PNG, sha256=None, expires=QUARTER)
    assert upload.url == f"https://api-eu.cloudinary.com/v1_1/{CLOUD}/raw/upload"
    await real.close()


async def test_a_wrong_secret_is_a_sentence(
    vendor: Vendor, storage: CloudinaryStorage, configure: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    assert CLOUD in (await storage.check() or "")
    configure(cloudinary_api_secret="another")
    wrong = CloudinaryStorage(url=vendor.url)
    with pytest.raises(StorageUnavailable, match="its secret is another one"):
        await wrong.check()
    with pytest.raises(StorageUnavailable) as caught:
        await wrong.stat("files/secret-key")
    told = str(caught.value) + capsys.readouterr().out
    assert "AuthorizationRequired" in told
    for secret in ("secret-key", "another", vendor.url):
        assert secret not in told
    await wrong.close()


async def test_away_is_a_sentence(storage: CloudinaryStorage) -> None:
    away = CloudinaryStorage(url="http://127.0.0.1:9")
    with pytest.raises(StorageUnavailable, match="does not answer") as caught:
        await away.check()
    assert caught.value.__cause__ is None  # Doctors and logs tell of causes.
    with pytest.raises(StorageUnavailable):
        await away.delete("a/b")
    await away.close()


def test_a_provider_without_its_settings_is_refused(configure: Callable[..., None]) -> None:
    configure(storage_provider="cloudinary")
    with pytest.raises(SettingsError, match="CLOUDINARY_API_SECRET: cloudinary needs it"):
        load(StorageSettings)

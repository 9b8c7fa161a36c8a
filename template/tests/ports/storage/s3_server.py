"""A server that speaks the API of S3, and the signatures that it does not look at itself, for the tests of adapters."""

import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import boto3
import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from httpx2 import AsyncBaseTransport, AsyncClient, AsyncHTTPTransport, Request, Response
from moto.server import ThreadedMotoServer

from app.kit import clock
from app.ports.storage import s3_api
from app.ports.storage.s3_api import PART_BYTES
from app.ports.storage.storage import LONGEST, ObjectExists, Storage, StorageUnavailable
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
)

KEY_ID, SECRET = "AKIAEXAMPLE", "a-secret-that-is-only-for-tests"


def refusal(request: Request, secret: str = SECRET) -> str | None:
    """Say why S3 would refuse a request, or None: its signature is made again of what was really sent."""
    query = {name: values[0] for name, values in parse_qs(request.url.query.decode()).items()}
    signed = query["X-Amz-SignedHeaders"].split(";")
    at = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    if clock.now() >= at + timedelta(seconds=int(query["X-Amz-Expires"])):
        return "expired"
    unsigned = {name for name in request.headers if name.startswith("x-amz-")} - set(signed)
    if unsigned:
        return f"{unsigned} are not signed"
    again = AWSRequest(
        method=request.method, url=str(request.url), headers={name: request.headers.get(name, "") for name in signed}
    )
    again.context["timestamp"] = query["X-Amz-Date"]
    _, _, region, service, _ = query["X-Amz-Credential"].split("/")
    auth = S3SigV4QueryAuth(Credentials(query["X-Amz-Credential"].split("/")[0], secret), service, region)
    whole, _, given = again.url.partition("&X-Amz-Signature=")
    again.url = whole
    if auth.signature(auth.string_to_sign(again, auth.canonical_request(again)), again) != given:
        return "the signature does not fit"
    checksum = request.headers.get("x-amz-checksum-sha256")
    if checksum and checksum != b64encode(hashlib.sha256(request.content).digest()).decode():
        return "the checksum does not fit"
    return None


class Verifying(AsyncBaseTransport):
    """Asks before each request whether S3 would take its signature."""

    def __init__(self) -> None:
        self.inner = AsyncHTTPTransport()

    async def handle_async_request(self, request: Request) -> Response:
        await request.aread()
        reason = refusal(request)
        return Response(403, text=reason) if reason else await self.inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of a server."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_server: str) -> Any:
    """What a test looks at the server with."""
    keys = {"aws_access_key_id": KEY_ID, "aws_secret_access_key": SECRET}
    return boto3.session.Session().client("s3", region_name="us-east-1", endpoint_url=s3_server, **keys)


@pytest.fixture
def bucket(s3_client: Any) -> tuple[Any, str]:
    """A client and the name of an empty bucket."""
    name = f"tests-{uuid4().hex}"
    s3_client.create_bucket(Bucket=name)
    return s3_client, name


async def long(parts: int = 2, *, fails: bool = False) -> AsyncIterator[bytes]:
    for _ in range(parts * 8):
        yield b"y" * 1_048_576
    yield b"z" * 1000
    if fails:
        raise ConnectionError


class S3Contract(StorageContract):
    BINDS: ClassVar = {"size", "type", "checksum", "once"}

    @pytest.fixture
    async def client(self) -> AsyncIterator[AsyncClient]:
        async with AsyncClient(transport=Verifying()) as client:
            yield client

    @pytest.fixture
    def send(self, client: AsyncClient) -> Send:
        return partial(following.send, client)

    @pytest.fixture
    def fetch(self, client: AsyncClient) -> Fetch:
        return client.get

    @pytest.mark.parametrize("name", ["content-length", "content-type", "if-none-match", "x-amz-checksum-sha256"])
    async def test_each_header_that_binds_an_upload_is_signed(self, storage: Storage, key: str, name: str) -> None:
        upload = await self.ticket(storage, key, sha256=SHA256)
        assert name in parse_qs(urlsplit(upload.url).query)["X-Amz-SignedHeaders"][0].split(";")
        assert name in {"content-length", *(header.lower() for header in upload.headers)}

    @pytest.mark.parametrize("name", ["If-None-Match", "x-amz-checksum-sha256"])
    async def test_no_condition_can_be_left_out(self, storage: Storage, key: str, send: Send, name: str) -> None:
        upload = await self.ticket(storage, key, sha256=SHA256)
        assert (await send(upload, CONTENT, headers={name: None})).status_code == 403
        assert await storage.stat(key) is None

    async def test_no_header_can_be_added(self, storage: Storage, key: str, send: Send) -> None:
        upload = await self.ticket(storage, key)
        assert (await send(upload, CONTENT, headers={"x-amz-acl": "public-read"})).status_code == 403

    @pytest.mark.parametrize("part", ["X-Amz-Expires=900", "X-Amz-Signature=", "response-content-type=image%2Fpng"])
    async def test_a_link_that_was_changed_is_refused(
        self, storage: Storage, key: str, fetch: Fetch, part: str
    ) -> None:
        await storage.write(key, long(0), content_type=PNG)
        url = await storage.download_url(key, name="x", content_type=PNG, inline=False, expires=QUARTER)
        assert part in url
        changed = {
            "X-Amz-Expires=900": "X-Amz-Expires=90000",
            "X-Amz-Signature=": "X-Amz-Signature=0",
            "response-content-type=image%2Fpng": "response-content-type=text%2Fhtml",
        }[part]
        assert (await fetch(url)).status_code == 200
        assert (await fetch(url.replace(part, changed))).status_code == 403

    async def test_links_end_in_time(self, storage: Storage, key: str) -> None:
        upload = await storage.upload(key, size=1, content_type=PNG, sha256=None, expires=timedelta(days=7))
        url = await storage.download_url(key, name="x", content_type=PNG, inline=False, expires=timedelta(days=7))
        for link in (upload.url, url):
            assert parse_qs(urlsplit(link).query)["X-Amz-Expires"] == [str(int(LONGEST.total_seconds()))]
        assert upload.expires_at <= clock.now() + LONGEST
        query = parse_qs(urlsplit(url).query)
        at = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert at <= clock.now()

    async def test_what_is_long_is_written_in_parts_once(
        self, storage: Storage, key: str, bucket: tuple[Any, str]
    ) -> None:
        client, name = bucket
        stored = await storage.write(key, long(), content_type=PNG)
        content = b"y" * PART_BYTES * 2 + b"z" * 1000
        assert (stored.size, stored.sha256) == (len(content), hashlib.sha256(content).hexdigest())
        found = await storage.stat(key)
        assert found is not None
        assert (found.size, found.content_type) == (stored.size, PNG)
        assert found.sha256 in {None, stored.sha256}
        assert await content_of(storage, key) == content
        with pytest.raises(ObjectExists):
            await storage.write(key, long(), content_type=PNG)
        assert not client.list_multipart_uploads(Bucket=name).get("Uploads")

    async def test_who_comes_second_writes_over_nothing(
        self, storage: Storage, key: str, bucket: tuple[Any, str]
    ) -> None:
        client, name = bucket

        async def overtaken(parts: int) -> AsyncIterator[bytes]:
            async for block in long(parts):
                yield block
            client.put_object(Bucket=name, Key=key, Body=b"first")

        for parts in (0, 1):
            with pytest.raises(ObjectExists):
                await storage.write(key, overtaken(parts), content_type=PNG)
            assert await content_of(storage, key) == b"first"
            await storage.delete(key)
        assert not client.list_multipart_uploads(Bucket=name).get("Uploads")

    async def test_parts_that_were_cut_short_are_taken_back(
        self, storage: Storage, key: str, bucket: tuple[Any, str]
    ) -> None:
        client, name = bucket
        with pytest.raises(ConnectionError):
            await storage.write(key, long(fails=True), content_type=PNG)
        assert not client.list_multipart_uploads(Bucket=name).get("Uploads")
        assert await storage.stat(key) is None

    async def test_parts_that_a_crash_left_are_tidied(
        self, storage: Storage, key: str, bucket: tuple[Any, str]
    ) -> None:
        client, name = bucket
        client.create_multipart_upload(Bucket=name, Key=key)
        await storage.tidy(before=datetime(2000, 1, 1, tzinfo=UTC))
        assert len(client.list_multipart_uploads(Bucket=name)["Uploads"]) == 1
        await storage.tidy(before=later())
        assert not client.list_multipart_uploads(Bucket=name).get("Uploads")

    async def test_a_long_list_has_pages(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(s3_api, "PAGE_KEYS", 2)
        keys = {f"tests/{number}/x" for number in range(5)}
        for key in keys:
            await storage.write(key, pieces(b"x"), content_type=PNG)
        found = [stored.key async for stored in storage.objects("tests/", before=later())]
        assert sorted(found) == sorted(keys)

    async def test_reading_stops_where_nothing_is(self, storage: Storage, key: str) -> None:
        await storage.write(key, long(0), content_type=PNG)
        assert await content_of(storage, key, start=1000) == b""
        assert await content_of(storage, key, start=10, length=0) == b""

    async def test_a_wrong_bucket_is_told(self, storage: Storage, bucket: tuple[Any, str]) -> None:
        client, name = bucket
        assert name in (await storage.check() or "")
        client.delete_bucket(Bucket=name)
        with pytest.raises(StorageUnavailable, match=f"no bucket {name}"):
            await storage.check()

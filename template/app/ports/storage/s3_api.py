"""What S3 and the servers that speak its API have in common: boto3, in threads, with links that it signs.

aiobotocore is not used: it holds botocore back by months, and wrapt below what other libraries here are at.
"""

import asyncio
import hashlib
import logging
from base64 import b64decode, b64encode
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.kit import clock
from app.kit.logging import get_logger
from app.kit.settings import CoreSettings, SettingsError, load
from app.ports.storage.storage import (
    LONGEST,
    ObjectExists,
    ObjectNotFound,
    StorageUnavailable,
    Stored,
    Upload,
    check_key,
    check_type,
    content_disposition,
)

BLOCK_BYTES = 1_048_576
# All parts but the last have one size, as some servers want it; 10,000 of them are 80 GB.
PART_BYTES = 8_388_608
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS, CONNECTIONS = 3, 20, 3, 32
CHECK_SECONDS = 1.5
PAGE_KEYS = 1000
ABSENT, EXISTS = {"404", "NoSuchKey", "NotFound"}, {"409", "412", "ConditionalRequestConflict", "PreconditionFailed"}
GONE = {"404", "NoSuchUpload"}
Result = TypeVar("Result")
log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A bucket, and how it is reached. Without keys the usual places are looked at: the environment, a role."""

    name: str
    region: str
    endpoint: str | None = None
    public: str | None = None  # Where clients reach it, if elsewhere.
    path_style: bool = False
    key_id: str | None = None
    secret: SecretStr | None = None


class S3ApiStorage:
    """Keeps objects in a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        # Its own, so that a storage that does not answer keeps no other work waiting.
        self._threads = ThreadPoolExecutor(CONNECTIONS, "storage")

    @cached_property
    def _session(self) -> Any:
        import boto3

        for name in ("boto3", "botocore"):
            logging.getLogger(name).setLevel(logging.INFO)  # At DEBUG they write signatures and the headers of keys.
        return boto3.session.Session()

    def _open_client(self, endpoint: str | None, **options: Any) -> Any:
        from botocore.config import Config

        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if self.bucket.path_style else "virtual"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
            max_pool_connections=CONNECTIONS,
            # What else it would send of its own accord, not every server knows.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return self._session.client(
            "s3",
            region_name=self.bucket.region,
            endpoint_url=endpoint,
            aws_access_key_id=self.bucket.key_id,
            aws_secret_access_key=self.bucket.secret.get_secret_value() if self.bucket.secret else None,
            config=config.merge(Config(**options)),
        )

    @cached_property
    def _client(self) -> Any:
        return self._open_client(self.bucket.endpoint)

    @cached_property
    def _signer(self) -> Any:
        return self._open_client(self.bucket.public) if self.bucket.public else self._client

    @cached_property
    def _prober(self) -> Any:
        quick = {"connect_timeout": CHECK_SECONDS, "read_timeout": CHECK_SECONDS, "retries": {"total_max_attempts": 1}}
        return self._open_client(self.bucket.endpoint, **quick)

    async def _in_thread(self, work: Callable[[], Result], absent: set[str] | None = None) -> Result | None:
        """Do something in a thread. Returns None where the answer is that something is absent."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except Exception as error:
            if absent and _code(error) in absent:
                return None
            raise _failure(error) from None

    async def _ask(self, operation: str, absent: set[str] | None = None, **asked: Any) -> dict[str, Any] | None:
        """Call the API about this bucket."""

        def call() -> dict[str, Any]:
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self.bucket.name, **asked)
            return answer

        return await self._in_thread(call, absent)

    async def _sign(self, operation: str, expires: timedelta, **asked: Any) -> str:
        def sign() -> str:
            asked["Bucket"] = self.bucket.name
            seconds = int(expires.total_seconds())
            return str(self._signer.generate_presigned_url(operation, Params=asked, ExpiresIn=seconds))

        return await self._in_thread(sign) or ""

    async def upload(self, key: str, *, size: int, content_type: str, sha256: str | None, expires: timedelta) -> Upload:
        """Sign a PUT of one object, with its headers; see Storage."""
        asked = {"Key": check_key(key), "ContentType": check_type(content_type), "ContentLength": size}
        headers = {"Content-Type": content_type, "If-None-Match": "*"}
        if sha256:
            headers["x-amz-checksum-sha256"] = asked["ChecksumSHA256"] = b64encode(bytes.fromhex(sha256)).decode()
        until = clock.now().replace(microsecond=0) + min(expires, LONGEST)
        url = await self._sign("put_object", min(expires, LONGEST), IfNoneMatch="*", **asked)
        return Upload(method="PUT", url=url, headers=headers, expires_at=until)

    async def download_url(self, key: str, *, name: str, content_type: str, inline: bool, expires: timedelta) -> str:
        """Sign a GET of one object; see Storage."""
        return await self._sign(
            "get_object",
            min(expires, LONGEST),
            Key=check_key(key),
            ResponseContentType=check_type(content_type),
            ResponseContentDisposition=content_disposition(name, inline=inline),
        )

    async def stat(self, key: str) -> Stored | None:
        """Ask for the headers of an object; see Storage."""
        told = await self._ask("head_object", ABSENT, Key=check_key(key), ChecksumMode="ENABLED")
        if told is None:
            return None
        return Stored(
            key=key,
            size=told["ContentLength"],
            modified_at=told["LastModified"],
            content_type=told.get("ContentType"),
            sha256=_hex(told.get("ChecksumSHA256"), told.get("ETag", "")),
        )

    @asynccontextmanager
    async def open(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Stream an object; see Storage."""
        asked = {} if start == 0 and length is None else {"Range": f"bytes={start}-"}
        if length:
            asked["Range"] += str(start + length - 1)
        told = await self._ask("get_object", ABSENT | {"416", "InvalidRange"}, Key=check_key(key), **asked)
        if told is None:
            if await self.stat(key) is None:
                raise ObjectNotFound(key)
            yield _nothing()  # It has no more bytes than `start`.
            return
        body = told["Body"]

        async def blocks() -> AsyncIterator[bytes]:
            while length != 0 and (block := await self._in_thread(partial(body.read, BLOCK_BYTES))):
                yield block

        try:
            yield blocks()
        finally:
            body.close()

    async def write(self, key: str, chunks: AsyncIterable[bytes], *, content_type: str) -> Stored:
        """Upload what the service has made, in parts where it is long; see Storage."""
        check_type(content_type)
        if await self.stat(check_key(key)):
            raise ObjectExists(key)
        parts = _parts(chunks)
        first = await anext(parts, b"")
        if len(first) < PART_BYTES:
            digest = hashlib.sha256(first).digest()
            checksum = b64encode(digest).decode()
            asked = {"Body": first, "ContentType": content_type, "ChecksumSHA256": checksum, "IfNoneMatch": "*"}
            return await self._finish("put_object", key, len(first), digest.hex(), **asked)
        told = await self._ask("create_multipart_upload", Key=key, ContentType=content_type, ChecksumAlgorithm="SHA256")
        upload: dict[str, Any] = {"Key": key, "UploadId": (told or {})["UploadId"]}
        try:
            return await self._write_parts(upload, first, parts)
        except BaseException:
            with suppress(StorageUnavailable):  # Then `tidy` removes it.
                await asyncio.shield(self._ask("abort_multipart_upload", GONE, **upload))
            raise

    async def _write_parts(self, upload: dict[str, Any], first: bytes, others: AsyncIterator[bytes]) -> Stored:
        done: list[dict[str, Any]] = []
        size, whole, part = 0, hashlib.sha256(), first
        while part:
            checksum = b64encode(hashlib.sha256(part).digest()).decode()
            asked: dict[str, Any] = {"PartNumber": len(done) + 1, "ChecksumSHA256": checksum}
            told = await self._ask("upload_part", **upload, **asked, Body=part)
            done.append({**asked, "ETag": (told or {})["ETag"]})
            size += len(part)
            await asyncio.to_thread(whole.update, part)
            part = await anext(others, b"")
        asked = {"UploadId": upload["UploadId"], "MultipartUpload": {"Parts": done}, "IfNoneMatch": "*"}
        return await self._finish("complete_multipart_upload", upload["Key"], size, whole.hexdigest(), **asked)

    async def _finish(self, operation: str, key: str, size: int, sha256: str, **asked: Any) -> Stored:
        """Make the object, unless there is one. Raises ObjectExists."""
        done = await self._ask(operation, EXISTS | GONE, Key=key, **asked)
        stored = await self.stat(key)
        if done is None and stored is None:
            raise StorageUnavailable
        # When it was tried again, what is in the way may be what it made itself: the same.
        if stored is None or (done is None and (stored.size != size or stored.sha256 != sha256)):
            raise ObjectExists(key)
        return Stored(
            key=key, size=size, modified_at=stored.modified_at, content_type=stored.content_type, sha256=sha256
        )

    async def delete(self, key: str) -> None:
        """Remove an object; see Storage."""
        await self._ask("delete_object", ABSENT, Key=check_key(key))

    async def objects(self, prefix: str, *, before: datetime) -> AsyncIterator[Stored]:
        """List the bucket, page by page; see Storage."""
        more: dict[str, Any] = {"MaxKeys": PAGE_KEYS}
        while True:
            page = await self._ask("list_objects_v2", Prefix=prefix, **more) or {}
            for told in page.get("Contents", ()):
                if told["LastModified"] < before:
                    yield Stored(key=told["Key"], size=told["Size"], modified_at=told["LastModified"])
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    async def tidy(self, *, before: datetime) -> None:
        """Abort uploads in parts that nobody has finished; see Storage."""
        more: dict[str, Any] = {}
        while True:
            page = await self._ask("list_multipart_uploads", **more) or {}
            for told in page.get("Uploads", ()):
                if told["Initiated"] < before:
                    await self._ask("abort_multipart_upload", GONE, Key=told["Key"], UploadId=told["UploadId"])
            if not page.get("IsTruncated"):
                return
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    async def check(self) -> str | None:
        """Find out whether there is the bucket, and whether it lets the service in; see Storage."""
        name, region = self.bucket.name, self.bucket.region
        probe = lambda: self._prober.head_bucket(Bucket=name)  # noqa: E731
        try:
            told = await asyncio.get_running_loop().run_in_executor(self._threads, probe)
        except Exception as error:
            raise StorageUnavailable(self._advice(error)) from None
        # The client would follow; links do not.
        if region != "auto" and told.get("BucketRegion", region) != region:
            raise StorageUnavailable(f"The bucket {name} is in the region {told['BucketRegion']}, not in {region}.")
        return f"the bucket {name}"

    def _advice(self, error: Exception) -> str:
        name = self.bucket.name
        told = {
            "400": f"The bucket {name} is in another region, or the credentials are no good.",
            "401": "The storage does not know the credentials.",
            "403": f"The credentials are wrong, or may not list the bucket {name}.",
            "404": f"There is no bucket {name}.",
            "301": f"The bucket {name} is in another region.",
            "NoCredentialsError": "There are no credentials: neither in the settings nor where AWS has them.",
        }
        return told.get(_code(error), f"The storage does not answer ({_code(error)}).")

    async def close(self) -> None:
        """Close the connections."""
        for name in ("_client", "_signer", "_prober"):
            if client := self.__dict__.pop(name, None):
                client.close()
        self._threads.shutdown(wait=False)


def guard_endpoint(name: str, url: str | None) -> None:
    """Refuse what is no address of a server, and a way that others can read. Raises ValueError."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in {"http", "https"} or parts.path.strip("/") or parts.query or parts.username:
        raise ValueError(f"{name}: write scheme://host[:port], without the bucket.")
    beside = "." not in host or host == "127.0.0.1"
    with suppress(SettingsError):  # What is wrong there is told there.
        if parts.scheme == "http" and not beside and load(CoreSettings).production:
            raise ValueError(f"{name}: production needs https, but for this machine and a container beside it.")


def _code(error: Exception) -> str:
    """Return what a failure is called: by the server, or in boto3."""
    answer = getattr(error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code") or type(error).__name__)


def _failure(error: Exception) -> StorageUnavailable:
    # Never the error itself, nor as a cause: its text may name keys and addresses.
    log.error("the storage fails", reason=_code(error), operation=getattr(error, "operation_name", None))
    return StorageUnavailable()


def _hex(checksum: str | None, etag: str) -> str | None:
    """Read the checksum of a whole object; one of parts is no such, and then both end with their number."""
    return None if checksum is None or "-" in checksum + etag else b64decode(checksum).hex()


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


async def _parts(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Cut what comes into parts of one size; the last one is what is left."""
    gathered = bytearray()
    async for chunk in chunks:
        gathered += chunk
        while len(gathered) >= PART_BYTES:
            yield bytes(gathered[:PART_BYTES])
            del gathered[:PART_BYTES]
    if gathered:
        yield bytes(gathered)

"""Cloudinary, through its SDK, in threads. Files are raw and authenticated: nothing reads them, and nothing is public.

A signature there binds the key and the time, and neither size nor type nor content: those are compared afterwards. It
does not even bind that files are raw, so a client may upload images and videos under the same key: nothing reads them,
and they go with it.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial
from tempfile import TemporaryFile
from typing import IO, Any, Literal, TypeVar

from pydantic import Field, SecretStr

from app.kit import clock
from app.kit.logging import get_logger
from app.kit.module import Module
from app.kit.settings import ModuleSettings, load
from app.ports.storage.storage import (
    LONGEST,
    ObjectExists,
    ObjectNotFound,
    StorageUnavailable,
    Stored,
    Upload,
    check_key,
    check_type,
)

APIS = {
    "global": "https://api.cloudinary.com",
    "eu": "https://api-eu.cloudinary.com",
    "ap": "https://api-ap.cloudinary.com",
}
BLOCK_BYTES = 1_048_576
# What is longer goes in parts of this size.
PART_BYTES = 20_000_000
TIMEOUT_SECONDS, CHECK_SECONDS, CONNECTIONS, PAGE_KEYS = 60, 1.5, 16, 500
RAW = {"resource_type": "raw", "type": "authenticated"}
SORTS = ("raw", "image", "video")
Result = TypeVar("Result")
log = get_logger(__name__)


class CloudinarySettings(ModuleSettings):
    """Files in Cloudinary."""

    cloudinary_cloud_name: str | None = Field(
        None, pattern=r"^[a-z0-9_-]+$", description="The name of the product environment."
    )
    cloudinary_api_key: str | None = Field(None, description="A key of it.")
    cloudinary_api_secret: SecretStr | None = Field(None, description="The secret that goes with it.")
    cloudinary_region: Literal["global", "eu", "ap"] = Field(
        "global", description="global, or eu or ap for an account whose data stays there."
    )
    cloudinary_signature_algorithm: Literal["sha1", "sha256"] = Field(
        "sha1", description="How the account wants signatures made; sha256 where it was set to that."
    )


class CloudinaryStorage:
    """Keeps objects as raw files of Cloudinary."""

    def __init__(self, *, url: str | None = None) -> None:
        settings = load(CloudinarySettings)
        secret = settings.cloudinary_api_secret
        self._secret = secret.get_secret_value() if secret else ""
        self._account = {
            "cloud_name": settings.cloudinary_cloud_name,
            "api_key": settings.cloudinary_api_key,
            "api_secret": self._secret,
            "upload_prefix": url or APIS[settings.cloudinary_region],
            "signature_algorithm": settings.cloudinary_signature_algorithm,
        }
        self._threads = ThreadPoolExecutor(CONNECTIONS, "storage")

    @classmethod
    def problems(cls) -> list[str]:
        """All three are needed."""
        settings = load(CloudinarySettings)
        names = ("cloudinary_cloud_name", "cloudinary_api_key", "cloudinary_api_secret")
        return [f"{name.upper()}: cloudinary needs it." for name in names if not getattr(settings, name)]

    async def _in_thread(self, work: Callable[[], Result]) -> Result | None:
        """Do something in a thread. Returns None where the answer is that something is not there."""

        def run() -> Result | None:
            from cloudinary.exceptions import NotFound

            try:
                return work()
            except NotFound:
                return None

        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, run)
        except Exception as error:
            # Never the error itself, nor as a cause: its text may name keys and addresses.
            log.error("the storage fails", reason=type(error).__name__)  # noqa: TRY400
            raise StorageUnavailable from None

    def _options(self, **others: Any) -> dict[str, Any]:
        return {**self._account, **RAW, "timeout": TIMEOUT_SECONDS, **others}

    async def upload(self, key: str, *, size: int, content_type: str, sha256: str | None, expires: timedelta) -> Upload:
        """Sign a form that uploads one object; see Storage. A signature is good for an hour from its timestamp."""
        check_type(content_type)
        until = clock.now().replace(microsecond=0) + min(expires, LONGEST)
        asked = {
            "overwrite": "false",
            "public_id": check_key(key),
            "timestamp": str(int((until - LONGEST).timestamp())),
            "type": RAW["type"],
        }

        def sign() -> tuple[str, dict[str, str]]:
            from cloudinary import utils

            return utils.cloudinary_api_url("upload", **self._options()), utils.sign_request(asked, self._account)

        url, fields = await self._in_thread(sign) or ("", {})
        return Upload(method="POST", url=url, fields=fields, expires_at=until)

    async def download_url(self, key: str, *, name: str, content_type: str, inline: bool, expires: timedelta) -> str:
        """Sign a link that downloads an object; see Storage. Cloudinary tells no type, and takes a name on its word."""
        check_type(content_type)
        plain = "".join(letter for letter in name if letter.isprintable()).strip(" .") or "file"
        named = {} if inline else {"attachment": "true", "target_filename": plain}
        return await self._link(check_key(key), min(expires, LONGEST), **named)

    async def _link(self, key: str, expires: timedelta, **named: str) -> str:
        until = int((clock.now() + expires).timestamp())

        def sign() -> str:
            from cloudinary import utils

            asked = {"public_id": key, "type": RAW["type"], "expires_at": str(until), "timestamp": utils.now(), **named}
            signed = utils.sign_request(asked, self._account)
            return f"{utils.cloudinary_api_url('download', **self._options())}?{utils.urlencode(signed)}"

        return await self._in_thread(sign) or ""

    async def stat(self, key: str) -> Stored | None:
        """Ask for the details of an object; see Storage."""
        check_key(key)

        def ask() -> Any:
            from cloudinary import api

            return api.resource(key, **self._options())

        told = await self._in_thread(ask)
        return None if told is None else _stored(told)

    @asynccontextmanager
    async def open(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[AsyncIterator[bytes]]:
        """Download an object with a link of our own; see Storage."""
        url = await self._link(check_key(key), timedelta(minutes=5))

        def get() -> Any:
            import urllib3

            timeout = urllib3.Timeout(TIMEOUT_SECONDS)
            headers = {"Range": f"bytes={start}-"} if start else {}
            return urllib3.request("GET", url, preload_content=False, timeout=timeout, headers=headers)

        answer = await self._in_thread(get)
        try:
            if answer is None or answer.status == 404:
                raise ObjectNotFound(key)
            if answer.status not in {200, 206, 416}:
                log.error("the storage fails", reason=answer.status)
                raise StorageUnavailable
            # Whether it serves ranges is not promised.
            skip = start if answer.status == 200 else 0
            yield self._blocks(answer, skip, 0 if answer.status == 416 else length)
        finally:
            if answer is not None:
                answer.close()

    async def _blocks(self, answer: Any, skip: int, length: int | None) -> AsyncIterator[bytes]:
        left = length
        while left is None or left > 0:
            block = await self._in_thread(partial(answer.read, BLOCK_BYTES))
            if not block:
                return
            block, skip = block[skip:], max(0, skip - len(block))
            if left is not None:
                block = block[:left]
                left -= len(block)
            if block:
                yield block

    async def write(self, key: str, chunks: AsyncIterable[bytes], *, content_type: str) -> Stored:
        """Gather what the service has made in a file, and upload that; see Storage. Nothing empty is taken there."""
        check_type(content_type)
        if await self.stat(check_key(key)):
            raise ObjectExists(key)
        whole = hashlib.sha256()
        with TemporaryFile() as file:
            async for chunk in chunks:
                whole.update(chunk)
                await self._in_thread(partial(file.write, chunk))
            size = file.tell()
            told = await self._in_thread(lambda: self._send(file, key, size))
        if told is None:
            raise StorageUnavailable
        if told.get("existing"):
            raise ObjectExists(key)
        modified_at = _stored(told).modified_at
        return Stored(key=key, size=size, modified_at=modified_at, sha256=whole.hexdigest())

    def _send(self, file: IO[bytes], key: str, size: int) -> Any:
        from cloudinary import uploader

        file.seek(0)
        options = self._options(public_id=key, overwrite=False, filename="file")
        if size <= PART_BYTES:
            return uploader.upload(file, **options)
        return uploader.upload_large(file, chunk_size=PART_BYTES, **options)

    async def delete(self, key: str) -> None:
        """Remove an object, also from what was delivered and kept; see Storage."""
        check_key(key)

        def destroy() -> Any:
            from cloudinary import uploader

            return [uploader.destroy(key, **self._options(invalidate=True, resource_type=sort)) for sort in SORTS]

        told = await self._in_thread(destroy) or ()
        if {it.get("result") for it in told} - {"ok", "not found"}:
            log.error("the storage fails", reason="destroy")
            raise StorageUnavailable

    async def objects(self, prefix: str, *, before: datetime) -> AsyncIterator[Stored]:
        """List them, page by page; see Storage."""

        def ask(**asked: str) -> Any:
            from cloudinary import api

            return api.resources(prefix=prefix, **self._options(max_results=PAGE_KEYS, **asked))

        for sort in SORTS:
            more: dict[str, str] = {"resource_type": sort}
            while more:
                page = await self._in_thread(partial(ask, **more)) or {}
                for told in page.get("resources", ()):
                    if (stored := _stored(told)).modified_at < before:
                        yield stored
                cursor = page.get("next_cursor")
                more = {"resource_type": sort, "next_cursor": cursor} if cursor else {}

    async def tidy(self, *, before: datetime) -> None:
        """Cloudinary itself forgets uploads in parts that were cut short."""

    async def check(self) -> str | None:
        """Find out whether it lets the service in; see Storage."""

        def ping() -> Any:
            from cloudinary import api

            return api.ping(**{**self._account, "timeout": CHECK_SECONDS})

        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, ping)
        except Exception as error:
            told = {
                "AuthorizationRequired": "Cloudinary does not know the key, or its secret is another one.",
                "NotAllowed": "Cloudinary does not let the key in.",
                "NotFound": "Cloudinary has no product environment of this name.",
                "RateLimited": "Cloudinary has answered as often as the plan allows in an hour.",
            }
            name = type(error).__name__
            raise StorageUnavailable(told.get(name, f"Cloudinary does not answer ({name}).")) from None
        return f"the product environment {self._account['cloud_name']}"

    async def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False)


def _stored(told: Any) -> Stored:
    at = datetime.fromisoformat(told["created_at"])
    return Stored(key=told["public_id"], size=told["bytes"], modified_at=at)


cloudinary = Module(name="cloudinary", settings=(CloudinarySettings,))

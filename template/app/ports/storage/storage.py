"""The storage port: objects under keys, with links through which clients upload and download them directly."""

import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol
from unicodedata import normalize
from urllib.parse import quote

from app.kit.errors import Unavailable

# For how long a link may be good: what some providers give a signature at most.
LONGEST = timedelta(hours=1)
# Lower-case and without dots, so that no key can leave a folder, and none means another one on any file system.
_is_key = re.compile(r"(?=.{1,200}\Z)[a-z0-9][a-z0-9_-]{0,99}(/[a-z0-9][a-z0-9_-]{0,99}){0,7}").fullmatch
_is_type = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,63}").fullmatch


class StorageUnavailable(Unavailable):
    """The storage is away, refuses the service itself, or has no room left."""

    def __init__(self, detail: str = "The storage of files is away. Try again shortly.") -> None:
        super().__init__(detail)


class ObjectNotFound(Exception):
    """There is no object with this key."""


class ObjectExists(Exception):
    """There is, or was until lately, an object with this key: none is ever written over."""


class WrongContent(Exception):
    """What came is not what was announced: longer, shorter, or with another checksum. The sentence says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """The one request with which a client uploads an object, as it has to send it.

    Without `fields` the body is the file itself. With some it is a form (multipart/form-data) of these fields in their
    order, and last the file, named `file`. A `url` that begins with / is a path of this service.
    """

    method: Literal["PUT", "POST"]
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An object that is there. `content_type` and `sha256`, in hex, are None where the storage does not tell."""

    key: str
    size: int
    modified_at: datetime
    content_type: str | None = None
    sha256: str | None = None


class Storage(Protocol):
    """What keeps objects. A key is one that `check_key` lets pass, and is used for one object only, for ever.

    Where the storage is away, cannot be written to or refuses the service's own credentials, a method raises
    StorageUnavailable, with a sentence for clients that holds neither keys nor addresses.
    """

    @classmethod
    def problems(cls) -> list[str]:
        """Say in sentences which settings are missing, for when this is the storage."""

    async def upload(self, key: str, *, size: int, content_type: str, sha256: str | None, expires: timedelta) -> Upload:
        """Let a client upload one object, until the time is up, and nothing else.

        The signature binds key, size, type and, if given, checksum as far as the provider can. What it cannot bind,
        `stat` tells afterwards. While there is an object with this key an upload is refused.
        """

    async def download_url(self, key: str, *, name: str, content_type: str, inline: bool, expires: timedelta) -> str:
        """Make a link that downloads an object under a name, until the time is up; the object need not be there.

        Only with `inline` a browser may show it in place of saving it. A link that begins with / is a path of this
        service.
        """

    async def stat(self, key: str) -> Stored | None:
        """Tell what is there under a key, or None. Reads no content."""

    def open(
        self, key: str, *, start: int = 0, length: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Read an object from a byte on, to its end or for a length, in blocks of at most a few MiB.

        Raises ObjectNotFound. What is open is closed at the end of the block, however much has been read.
        """

    async def write(self, key: str, chunks: AsyncIterable[bytes], *, content_type: str) -> Stored:
        """Store what the service itself has made, in constant memory. Raises ObjectExists.

        The object is there with its whole content or not at all, also when `chunks` raises.
        """

    async def delete(self, key: str) -> None:
        """Remove an object. Where none is, that is no error; an upload that is under way may still bring one."""

    def objects(self, prefix: str, *, before: datetime) -> AsyncIterator[Stored]:
        """Go through the objects under a prefix, such as `files/`, that were last changed before a time."""

    async def tidy(self, *, before: datetime) -> None:
        """Remove what uploads that were cut short and deletions have left behind before a time. No object is harmed."""

    async def check(self) -> str | None:
        """Find out whether objects could be stored, without storing one. May return a remark."""

    async def close(self) -> None:
        """Close what is open."""


def check_key(key: str) -> str:
    """Return a key that every storage takes. Raises ValueError for any other."""
    if not _is_key(key):
        raise ValueError("A key has up to eight parts of a-z, 0-9, _ and -, and 200 characters at most.")
    return key


def check_type(content_type: str) -> str:
    """Return a media type without parameters, in lower case. Raises ValueError for anything else."""
    if not _is_type(content_type):
        raise ValueError("is no media type, such as image/png")
    return content_type


def content_disposition(name: str, *, inline: bool) -> str:
    """Write the header that names a download (RFC 6266): in ASCII for old clients, and as it is (RFC 8187)."""
    plain = normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._ ()+,=@~-]", "_", plain).strip(" .") or "file"
    kind = "inline" if inline else "attachment"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"

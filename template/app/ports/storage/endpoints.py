"""The links to local files: a ticket says what each is good for, and who has it needs nothing else."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send

from app.kit import clock
from app.kit.errors import AppError, NotFound
from app.ports.storage.local import CONTENT, LocalStorage
from app.ports.storage.storage import LONGEST, ObjectExists, Stored, WrongContent, content_disposition

STALLED_SECONDS = 60.0
# Whatever it is, it runs nothing here, loads nothing and is framed by nobody.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
_one_range = re.compile(r"\s*bytes=\s*(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\s*", re.IGNORECASE | re.ASCII).fullmatch
router = APIRouter(prefix="/storage", tags=["storage"], include_in_schema=False)


class NothingThere(NotFound):
    """The link is good, and the object is not there."""

    def __init__(self) -> None:
        super().__init__("There is no such file.")


class UploadRefused(AppError):
    """An upload that is not the one that the link is for."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class RangeNotSatisfiable(AppError):
    """The range begins after the end (RFC 9110, 15.5.17)."""

    status = 416

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes.")
        self.headers = {"Content-Range": f"bytes */{size}", "Accept-Ranges": "bytes"}


async def _local(connection: HTTPConnection) -> LocalStorage:
    storage = connection.app.state.storage
    if not isinstance(storage, LocalStorage):
        raise NothingThere  # Another storage keeps the files, and has links of its own.
    return storage


Local = Annotated[LocalStorage, Depends(_local)]
Ticket = Annotated[str, Query(max_length=4096)]


@router.put("/{key:path}", status_code=201)
async def upload(key: str, request: Request, storage: Local, ticket: Ticket) -> Response:
    """Take an upload, as large and of the type that was signed, once."""
    allowed = storage.links.read("upload", key, ticket)
    size: int = allowed["size"]
    told = request.headers.get("content-length")
    if request.headers.get("content-type", "").strip().lower() != allowed["type"]:
        raise UploadRefused(415, f"This link is for Content-Type: {allowed['type']}.")
    if "content-encoding" in request.headers or "content-range" in request.headers:
        raise UploadRefused(400, "Send the file as it is: whole, and with no Content-Encoding.")
    if told is not None and told != str(size):
        more = not told.isdigit() or int(told[:19]) > size
        raise UploadRefused(413 if more else 400, f"This link is for {size} bytes, and another length is announced.")
    try:
        stored = await storage.take(
            key, _arriving(request, allowed["until"]), content_type=allowed["type"], size=size, sha256=allowed["sha256"]
        )
    except ClientDisconnect:
        raise UploadRefused(400, "The upload was cut short.") from None
    except TimeoutError:
        raise UploadRefused(408, f"Nothing came for {STALLED_SECONDS:g} seconds.") from None
    except ObjectExists:
        raise UploadRefused(409, "This link has been used. Ask for a new one.") from None
    except WrongContent as error:
        raise UploadRefused(422, str(error)) from None
    return Response(status_code=201, headers={"ETag": _etag(stored)})


async def _arriving(request: Request, until: int) -> AsyncIterator[bytes]:
    """Give what comes, as long as something does, and not for ever: what cleans up counts on an end."""
    coming, ends = request.stream(), until + LONGEST.total_seconds()
    while True:
        if clock.now().timestamp() > ends:
            raise UploadRefused(408, "The upload took too long. Ask for a new link.")
        async with asyncio.timeout(STALLED_SECONDS):
            chunk = await anext(coming, None)
        if chunk is None:
            return
        yield chunk


@router.get("/{key:path}")
@router.head("/{key:path}")
async def download(key: str, request: Request, storage: Local, ticket: Ticket) -> Response:
    """Send an object, or a part of it, under the name that was signed."""
    allowed = storage.links.read("download", key, ticket)
    stored = await storage.stat(key)
    if stored is None:
        raise NothingThere
    etag = _etag(stored)
    headers = {
        "ETag": etag,
        "Content-Disposition": content_disposition(allowed["name"], inline=allowed["inline"]),
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Cross-Origin-Resource-Policy": "cross-origin",
    }
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {"*", etag, f"W/{etag}"}:
        return Response(status_code=304, headers=headers)
    if request.headers.get("if-range", etag) == etag and _is_past_the_end(request.headers, stored.size):
        raise RangeNotSatisfiable(stored.size)
    return _Download(storage.place(key) / CONTENT, headers=headers, media_type=allowed["type"])


def _etag(stored: Stored) -> str:
    return f'"{stored.sha256}"'


def _is_one_range(value: str) -> bool:
    found = _one_range(value)
    return found is not None and not (found[1] and found[2] and int(found[1]) > int(found[2]))


def _is_past_the_end(headers: Headers, size: int) -> bool:
    value = headers.get("range", "")
    found = _one_range(value) if _is_one_range(value) else None
    return found is not None and (int(found[1]) >= size if found[1] else int(found[3]) == 0)


class _Download(FileResponse):
    """Sends a file, or the one range of it that is asked for. What is no such range is ignored (RFC 9110, 14.2)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kept = [it for it in scope["headers"] if it[0] != b"range" or _is_one_range(it[1].decode("latin-1"))]
        await super().__call__({**scope, "headers": kept}, receive, send)

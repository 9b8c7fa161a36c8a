"""Routes for files. Contents go past them, with links: to the storage, or to the routes of local files."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request

from app.kit.errors import responses
from app.kit.pagination import Page, PageQuery, SearchQuery
from app.modules.files.schemas import (
    DownloadRead,
    FileRead,
    FileUpload,
    UploadConfirmation,
    UploadRead,
    UploadRequest,
)
from app.modules.files.service import Contents, FileReads, Files
from app.modules.users.service import CurrentUser
from app.ports.identity.identity import CurrentIdentity

router = APIRouter(prefix="/files", tags=["files"])


def _absolute(request: Request, url: str) -> str:
    """Complete a path of this service with the address that the client has reached it at."""
    return f"{str(request.base_url).rstrip('/')}{url}" if url.startswith("/") else url


@router.post("/upload-url", status_code=201, summary="Begin an upload", responses=responses(409))
async def begin_upload(new: UploadRequest, request: Request, files: Files, me: CurrentUser) -> FileUpload:
    """Announce a file, and get the request that uploads its content. It is listed when the upload is confirmed."""
    file, upload = await files.begin(new, owner=me.id)
    told = UploadRead.model_validate(upload).model_copy(update={"url": _absolute(request, upload.url)})
    return FileUpload(file=FileRead.model_validate(file), upload=told)


@router.post("/confirm", summary="Confirm an upload", responses=responses(404, 409))
async def confirm_upload(done: UploadConfirmation, contents: Contents, me: CurrentIdentity) -> FileRead:
    """Have size, type and checksum of what was uploaded looked at. What is not as announced is removed."""
    return await contents.confirm(done.id, owner=me.user_id)


@router.get("", summary="List my files")
async def list_files(reads: FileReads, me: CurrentIdentity, page: PageQuery, q: SearchQuery = None) -> Page[FileRead]:
    """List the caller's files that are live, the newest first; `q` searches their names."""
    return await reads.page(page, owner=me.user_id, matching=q)


@router.get("/{id}", summary="Show a file", responses=responses(404))
async def read_file(id: UUID, reads: FileReads, me: CurrentIdentity) -> FileRead:
    """Show one of the caller's files, live or pending."""
    return await reads.get(id, owner=me.user_id)


@router.delete("/{id}", status_code=204, summary="Delete a file", responses=responses(404))
async def delete_file(id: UUID, files: Files, me: CurrentIdentity) -> None:
    """Delete one of the caller's files, live or pending, with its content."""
    await files.delete(id, owner=me.user_id)


@router.get("/{id}/download-url", summary="Get a link to download a file", responses=responses(404, 409))
async def download_file(
    id: UUID,
    request: Request,
    contents: Contents,
    me: CurrentIdentity,
    inline: Annotated[bool, Query(description="Let browsers show it, if it is of a type that does no harm.")] = False,
) -> DownloadRead:
    """Get a link to the content, which is good for some minutes for whoever has it."""
    download = await contents.download(id, owner=me.user_id, inline=inline)
    return DownloadRead(url=_absolute(request, download.url), expires_at=download.expires_at)

"""What goes over the wire about files."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal
from unicodedata import normalize
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from app.kit.schemas import Body, Line
from app.modules.files.models import FileState
from app.ports.storage.storage import check_type


def _name(value: str) -> str:
    value = normalize("NFC", value)
    if "/" in value or "\\" in value:
        raise ValueError("is the name of a file, without folders")
    if value.startswith(".") or value.endswith((".", " ")):
        raise ValueError("neither begins nor ends with a dot")
    if len(value.encode()) > 255:
        raise ValueError("is too long for a name: 255 bytes in UTF-8 at most")
    return value


FileName = Annotated[Line, AfterValidator(_name)]
MediaType = Annotated[str, StringConstraints(to_lower=True, max_length=129), AfterValidator(check_type)]
Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]


class UploadRequest(Body):
    """A file that is to be uploaded: what it will be found to be, or else it is not kept."""

    name: FileName = Field(examples=["notes.txt"])
    size: int = Field(ge=0, le=2**53, description="In bytes.", examples=[11])
    content_type: MediaType = Field(examples=["text/plain"])
    sha256: Sha256 | None = Field(None, description="The checksum of the content in hex, if it is known.")


class UploadConfirmation(Body):
    """Which upload is done."""

    id: UUID


class FileRead(BaseModel):
    """A file, as its owner sees it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str = Field(examples=["notes.txt"])
    content_type: str = Field(examples=["text/plain"])
    size: int = Field(examples=[11])
    sha256: str | None = Field(description="The checksum of the content in hex; of a live file, of what is there.")
    state: FileState = Field(description="pending until its upload is confirmed, then live.")
    created_at: datetime
    updated_at: datetime


class UploadRead(BaseModel):
    """The request that uploads the content. With `fields` it is a form of these, and last of `file`; else the body."""

    model_config = ConfigDict(from_attributes=True)

    method: Literal["PUT", "POST"]
    url: str
    headers: Mapping[str, str]
    fields: Mapping[str, str]
    expires_at: datetime


class FileUpload(BaseModel):
    """A file that may be uploaded now, and how."""

    file: FileRead
    upload: UploadRead


class DownloadRead(BaseModel):
    """A link to the content, for whoever has it."""

    url: str
    expires_at: datetime

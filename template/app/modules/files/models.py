"""The files table."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Index, String
from sqlmodel import Field

from app.ports.db.soft_delete import SoftDeletedRecord

PREFIX = "files/"


class FileState(StrEnum):
    """What is known of a file: that somebody wants to upload it, or that it is there and is what it was said to be."""

    PENDING = "pending"
    LIVE = "live"


class File(SoftDeletedRecord, table=True):
    """A file of one user. Its content is an object in the storage."""

    __tablename__ = "files"
    # Ids sort by time, so the first is also the order of the list: the newest file first.
    __table_args__ = (
        Index(None, "owner_id", "id"),
        Index(None, "state", "upload_until"),
        Index(None, "deleted_at"),
    )

    owner_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    name: str = Field(max_length=200)
    content_type: str = Field(max_length=129)
    size: int = Field(sa_type=BigInteger)
    sha256: str | None = Field(default=None, max_length=64)
    state: FileState = Field(default=FileState.PENDING, sa_type=String(16))
    # How long the link is good that the content may be uploaded with.
    upload_until: datetime
    # When the content of a deleted file went for good: after that link.
    removed_at: datetime | None = None

    @property
    def key(self) -> str:
        """Return the key of the content, which says whose it is."""
        return key_of(self.owner_id, self.id)


def prefix_of(owner: UUID) -> str:
    """Return what the keys of an owner's files begin with."""
    return f"{PREFIX}{owner.hex}/"


def key_of(owner: UUID, id: UUID) -> str:
    """Return the key of a file's content. None of it comes from a client."""
    return f"{prefix_of(owner)}{id.hex}"


def id_of(key: str) -> UUID | None:
    """Return the id of the file that a key is of; None for what is no such key."""
    try:
        owner, id = (UUID(hex=part) for part in key.removeprefix(PREFIX).split("/"))
    except ValueError:
        return None
    return id if key_of(owner, id) == key else None

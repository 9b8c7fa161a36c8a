"""The table of what the provider has said of its users."""

from datetime import datetime

from sqlmodel import Field

from app.ports.db.records import Record


class DirectoryEntry(Record, table=True):
    """How far one user has been followed. It outlives the user, and then says no more than that they have gone."""

    __tablename__ = "directory_entries"

    # A hash: who has gone is recognised, and not named.
    subject_hash: str = Field(max_length=64, unique=True)
    # What is told of an earlier time is out of date.
    as_of: datetime | None = None
    display_name: str | None = Field(default=None, max_length=200)
    gone: bool = False

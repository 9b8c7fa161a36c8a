"""The users table."""

from sqlmodel import Field

from app.ports.db.records import Record


class User(Record, table=True):
    """A person who uses the service."""

    __tablename__ = "users"

    subject: str = Field(max_length=255, unique=True)
    email: str | None = Field(default=None, max_length=320)
    display_name: str | None = Field(default=None, max_length=200)

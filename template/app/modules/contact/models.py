"""The table of what was sent with the contact form."""

from sqlalchemy import Index, Text
from sqlmodel import Field

from app.ports.db.records import Record


class ContactMessage(Record, table=True):
    """What a stranger has written. Nothing in it is known to be true, the address least of all."""

    __tablename__ = "contact_messages"
    __table_args__ = (Index(None, "created_at"), Index(None, "email"))

    # Each form that was loaded brings one message.
    stamp: str = Field(max_length=64, unique=True)
    name: str | None = Field(default=None, max_length=200)
    email: str | None = Field(default=None, max_length=320)
    subject: str | None = Field(default=None, max_length=200)
    message: str = Field(sa_type=Text)
    # The fields of CONTACT_FIELDS, as JSON.
    more: str = Field(default="{}", sa_type=Text)
    # The mailbox and the day of a confirmation, hashed, so that there is one of each.
    confirmed: str | None = Field(default=None, max_length=64, unique=True)

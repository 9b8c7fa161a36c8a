"""Tables of local accounts. What opens something is stored as a hash, and cannot be read back."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import String
from sqlmodel import Field

from app.kit import clock
from app.ports.db.records import Record
from app.ports.identity.local import PASSWORD


class Purpose(StrEnum):
    """What a link in a mail is good for."""

    REGISTER = "register"
    CHANGE_EMAIL = "change_email"
    RESET_PASSWORD = "reset_password"  # noqa: S105


class Account(Record, table=True):
    """How a user signs in."""

    __tablename__ = "accounts"

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", unique=True)
    # The e-mail address in lower case, so that its owner is one person however they write it.
    address: str = Field(max_length=320, unique=True)
    password_hash: str = Field(max_length=255)
    password_changed_at: datetime = Field(default_factory=clock.now)


class LoginSession(Record, table=True):
    """A sign-in, until it ends."""

    __tablename__ = "login_sessions"

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    user_agent: str | None = Field(default=None, max_length=200)
    # How it began, in the words of RFC 8176, with spaces between them.
    amr: str = Field(default=PASSWORD, max_length=64, sa_column_kwargs={"server_default": PASSWORD})
    last_used_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None


class RefreshToken(Record, table=True):
    """A token that continues a session once; those of one session are a family."""

    __tablename__ = "refresh_tokens"

    session_id: UUID = Field(foreign_key="login_sessions.id", ondelete="CASCADE", index=True)
    token_hash: str = Field(max_length=64, unique=True)
    expires_at: datetime
    used_at: datetime | None = None


class MailToken(Record, table=True):
    """A token that was mailed to an address, for one purpose and one use. Without a user there may be one later."""

    __tablename__ = "mail_tokens"

    purpose: Purpose = Field(sa_type=String(32))
    address: str = Field(max_length=320, index=True)
    token_hash: str = Field(max_length=64, unique=True)
    expires_at: datetime = Field(index=True)
    user_id: UUID | None = Field(default=None, foreign_key="users.id", ondelete="CASCADE", index=True)

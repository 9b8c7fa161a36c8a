"""The table of API keys."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field

from app.ports.db.records import Record


class ApiKey(Record, table=True):
    """A key with which a program does what its owner may do, within its scopes. The key itself is stored nowhere."""

    __tablename__ = "api_keys"

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    name: str = Field(max_length=200)
    hint: str = Field(max_length=32)
    key_hash: str = Field(max_length=64, unique=True)
    # Separated by spaces, as in RFC 6749, 3.3.
    scopes: str = Field(max_length=4000)
    expires_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

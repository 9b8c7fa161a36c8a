"""Tables of the second factor."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, UniqueConstraint
from sqlmodel import Field

from app.ports.db.records import Record


class Totp(Record, table=True):
    """An application that shows one-time passwords (RFC 6238)."""

    __tablename__ = "totps"

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", unique=True)
    # Sealed: see `Sealing`.
    secret: bytes
    # Until its owner has shown a password of it, it is asked for by nobody.
    confirmed_at: datetime | None = None
    # The time step of the newest password that was taken: no older one is, nor the same one again.
    last_step: int = 0


class RecoveryCode(Record, table=True):
    """A code for who has lost the rest, good once."""

    __tablename__ = "recovery_codes"
    __table_args__ = (UniqueConstraint("user_id", "code_hash"),)

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    code_hash: str = Field(max_length=64)


class Passkey(Record, table=True):
    """A key pair of which an authenticator keeps the private one (WebAuthn)."""

    __tablename__ = "passkeys"

    user_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    name: str = Field(max_length=200)
    # In base64url, as it goes over the wire.
    credential_id: str = Field(max_length=1364, unique=True)
    public_key: bytes
    sign_count: int = Field(default=0, sa_type=BigInteger)
    transports: str = Field(default="", max_length=200)
    last_used_at: datetime | None = None


class MfaChallenge(Record, table=True):
    """What somebody has been asked for and has not answered yet."""

    __tablename__ = "mfa_challenges"

    token_hash: str = Field(max_length=64, unique=True)
    # What an authenticator signs.
    nonce: bytes
    expires_at: datetime = Field(index=True)
    # Whom it was asked, and with which password they came. Nobody where a passkey is to say who it is.
    user_id: UUID | None = Field(default=None, foreign_key="users.id", ondelete="CASCADE", index=True)
    password_changed_at: datetime | None = None
    # Whether a passkey is to be added, which signs nobody in.
    adds: bool = False

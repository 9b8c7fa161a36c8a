"""What Clerk sends. Only what is used of it is read, and the rest may change."""

from typing import Any

from pydantic import BaseModel


class ClerkEvent(BaseModel):
    """Something has happened there."""

    type: str
    data: dict[str, Any]


class ClerkVerification(BaseModel):
    """Whether somebody has shown that an address is theirs."""

    status: str | None = None


class ClerkAddress(BaseModel):
    """An address of a user."""

    id: str
    email_address: str
    verification: ClerkVerification | None = None


class ClerkUser(BaseModel):
    """A user, as they are now. Times are in milliseconds."""

    id: str
    updated_at: int
    first_name: str | None = None
    last_name: str | None = None
    primary_email_address_id: str | None = None
    email_addresses: list[ClerkAddress] = []
    public_metadata: dict[str, Any] = {}
    banned: bool = False


class ClerkDeletion(BaseModel):
    """A user who is no more."""

    id: str

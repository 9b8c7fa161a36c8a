"""What goes over the wire about API keys."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from app.kit.schemas import Body, Line
from app.modules.api_keys.scopes import SCOPE

Scope = Annotated[str, StringConstraints(max_length=64, pattern=SCOPE)]


class ApiKeyCreate(Body):
    """A new key."""

    name: Line = Field(examples=["Nightly export"])
    scopes: list[Scope] = Field(
        min_length=1,
        max_length=50,
        description="What it may do: read or write, users:read for one kind of thing, admin:write for admins.",
        examples=[["users:read"]],
    )
    expires_in_days: int | None = Field(
        None, ge=1, description="How long it is good, within a limit. Left out: the usual time.", examples=[30]
    )


class ApiKeyRead(BaseModel):
    """A key, as its owner sees it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str = Field(examples=["Nightly export"])
    hint: str = Field(description="How the key begins.", examples=["apikey_7Xk2"])
    scopes: list[str] = Field(examples=[["users:read"]])
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None = Field(description="To the minute. Null: it was never used.")

    @field_validator("scopes", mode="before")
    @classmethod
    def split(cls, value: str | list[str]) -> list[str]:
        """Read scopes as they are stored."""
        return value.split(" ") if isinstance(value, str) else value


class ApiKeyCreated(ApiKeyRead):
    """A key that has just been made."""

    key: str = Field(description="The key itself. It is shown this once, and cannot be read again.")

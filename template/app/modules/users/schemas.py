"""What goes over the wire about users."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.kit.schemas import Body, Line


class UserRead(BaseModel):
    """A user, as they see themselves."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    email: str | None = Field(examples=["ada@example.com"])
    display_name: str | None = Field(examples=["Ada Lovelace"])
    created_at: datetime
    updated_at: datetime


class UserUpdate(Body):
    """What users may change about themselves; null takes the name away."""

    display_name: Line | None = Field(examples=["Ada Lovelace"])

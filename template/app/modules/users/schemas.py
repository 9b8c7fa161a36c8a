"""What goes over the wire about users."""

from datetime import datetime
from uuid import UUID

from pydantic import Field

from app.kit.schemas import Body, Line
from app.modules.users.models import UserBase


class UserRead(UserBase):
    """A user, as they see themselves."""

    id: UUID
    created_at: datetime
    updated_at: datetime


class UserUpdate(Body):
    """What users may change about themselves; null takes the name away."""

    display_name: Line | None = Field(examples=["Ada Lovelace"])

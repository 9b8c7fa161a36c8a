"""What goes over the wire about other users."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

from app.kit.schemas import Body, Line
from app.modules.users.schemas import UserRead
from app.ports.identity.bearer import Role


class UserDetail(UserRead):
    """A user, as admins see them."""

    subject: str = Field(description="Who they are to the provider of identity.", examples=["https://id.example.com|1"])


class UserChange(Body):
    """What admins may change about a user; what is left out stays as it is."""

    display_name: Line | None = Field(None, examples=["Ada Lovelace"])
    role: Role | None = None


class Standing(BaseModel):
    """What has to be known of a user at each of their requests."""

    id: UUID
    email: str | None
    email_verified: bool
    display_name: str | None
    role: Role
    is_active: bool
    updated_at: datetime


RoleQuery = Annotated[Role | None, Query(description="Only users with this role.")]
ActiveQuery = Annotated[bool | None, Query(description="Only users who may sign in, or only those who may not.")]

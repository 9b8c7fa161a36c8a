"""What goes over the wire about other users."""

from typing import Annotated

from fastapi import Query
from pydantic import Field

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


RoleQuery = Annotated[Role | None, Query(description="Only users with this role.")]
ActiveQuery = Annotated[bool | None, Query(description="Only users who may sign in, or only those who may not.")]

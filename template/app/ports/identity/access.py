"""What a user may do: a part of the users table."""

from sqlalchemy import String, text
from sqlmodel import Field, SQLModel

from app.ports.identity.bearer import Role


class Access(SQLModel):
    """The columns of the users table that decide what a user may do, and whether their address is theirs."""

    # Text, so that one more role needs no migration.
    role: Role = Field(default=Role.USER, sa_type=String(16), sa_column_kwargs={"server_default": Role.USER})
    is_active: bool = Field(default=True, sa_column_kwargs={"server_default": text("true")})
    email_verified: bool = Field(default=False, sa_column_kwargs={"server_default": text("false")})

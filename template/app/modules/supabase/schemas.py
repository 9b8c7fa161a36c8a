"""What the trigger in a project sends: the shape of Supabase's database webhooks, with a time."""

from datetime import datetime
from typing import Any

from pydantic import AwareDatetime, BaseModel, Field


class DatabaseChange(BaseModel):
    """A row of some table has changed there."""

    type: str
    # Not `schema`, which is a method of the base.
    schema_name: str = Field(alias="schema")
    table: str
    occurred_at: AwareDatetime
    record: dict[str, Any] | None = None
    old_record: dict[str, Any] | None = None


class SupabaseUser(BaseModel):
    """A row of auth.users. It is the user's own word where it says `user_meta_data`."""

    id: str
    email: str | None = None
    email_confirmed_at: datetime | None = None
    raw_app_meta_data: dict[str, Any] | None = None
    raw_user_meta_data: dict[str, Any] | None = None
    is_anonymous: bool = False
    is_banned: bool = False
    deleted_at: datetime | None = None


class SupabaseDeletion(BaseModel):
    """A row that is no more."""

    id: str

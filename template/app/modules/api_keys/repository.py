"""Queries for API keys. Every one is for one owner, or for one key."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, func, update
from sqlmodel import col, select

from app.modules.access.schemas import UserDetail
from app.modules.api_keys.models import ApiKey
from app.modules.api_keys.schemas import ApiKeyRead
from app.modules.users.models import User
from app.ports.db.pages import PagedQuery
from app.ports.db.records import Repository, select_fields

# Whose key it is, and what it is for.
CALLER = (
    select_fields(User, UserDetail)
    .add_columns(
        col(ApiKey.id).label("key_id"), col(ApiKey.scopes).label("scopes"), col(ApiKey.expires_at).label("expires_at")
    )
    .join(ApiKey, col(ApiKey.user_id) == col(User.id))
    .where(
        col(ApiKey.key_hash) == bindparam("key_hash"),
        col(ApiKey.revoked_at).is_(None),
        col(ApiKey.expires_at) > bindparam("now"),
    )
)
_MINE = select_fields(ApiKey, ApiKeyRead).where(
    col(ApiKey.user_id) == bindparam("user_id"), col(ApiKey.revoked_at).is_(None)
)
KEYS = PagedQuery(_MINE.order_by(col(ApiKey.id).desc()), ApiKeyRead)
KEY_BY_ID = _MINE.where(col(ApiKey.id) == bindparam("key_id"))
_columns = ApiKey.__table__.c  # type: ignore[attr-defined]
# Its own time of change is not one of use.
_USED = (
    update(ApiKey.__table__)  # type: ignore[attr-defined]
    .where(_columns.id == bindparam("key_id"))
    .values(last_used_at=bindparam("used_at"), updated_at=_columns.updated_at)
)


class ApiKeyRepository(Repository[ApiKey]):
    """Finds, adds and marks keys."""

    table = ApiKey

    async def live(self, user_id: UUID, now: datetime) -> int:
        """Count the keys of a user that are good."""
        good = (
            col(ApiKey.user_id) == user_id,
            col(ApiKey.revoked_at).is_(None),
            col(ApiKey.expires_at) > now,
        )
        return (await self.session.exec(select(func.count()).select_from(ApiKey).where(*good))).one()

    async def mark_used(self, times: Mapping[UUID, datetime]) -> None:
        """Note when keys were last used."""
        connection = await self.session.connection()
        await connection.execute(_USED, [{"key_id": id, "used_at": at} for id, at in times.items()])

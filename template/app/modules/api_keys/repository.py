"""Queries for API keys. Every one is for one owner, or for one key."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from uuid import UUID

from sqlalchemy import bindparam, func, or_, update
from sqlmodel import col, select

from app.modules.access.schemas import UserDetail
from app.modules.api_keys.keys import hash_of
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
# The time of a change is not one of use, and another process may have noted a later use.
_USED = (
    update(ApiKey.__table__)  # type: ignore[attr-defined]
    .where(
        _columns.id == bindparam("key_id"),
        or_(_columns.last_used_at.is_(None), _columns.last_used_at < bindparam("used_at")),
    )
    .values(last_used_at=bindparam("used_at"), updated_at=_columns.updated_at)
)


class ApiKeyRepository(Repository[ApiKey]):
    """Finds, adds and marks keys."""

    table = ApiKey

    async def live(self, user_id: UUID, now: datetime) -> int:
        """Count the keys of a user that are good, and keep others from adding to them until the transaction ends."""
        await self.session.exec(select(User.id).where(User.id == user_id).with_for_update())
        good = (
            col(ApiKey.user_id) == user_id,
            col(ApiKey.revoked_at).is_(None),
            col(ApiKey.expires_at) > now,
        )
        return (await self.session.exec(select(func.count()).select_from(ApiKey).where(*good))).one()

    async def known_as(self, key: str) -> ApiKey | None:
        """Find a key that was not taken back, by itself or by its id."""
        condition = col(ApiKey.key_hash) == hash_of(key)
        with suppress(ValueError):
            condition |= col(ApiKey.id) == UUID(key)
        return (
            await self.session.exec(select(ApiKey).where(condition, col(ApiKey.revoked_at).is_(None)))
        ).one_or_none()

    async def owned(self, user_id: UUID) -> Sequence[ApiKey]:
        """List the keys of a user, also those that are revoked."""
        return (await self.session.exec(select(ApiKey).where(ApiKey.user_id == user_id))).all()

    async def revoke_all(self, user_id: UUID, now: datetime) -> None:
        """Take all keys of a user back."""
        mine = (col(ApiKey.user_id) == user_id, col(ApiKey.revoked_at).is_(None))
        await self.session.exec(update(ApiKey).where(*mine).values(revoked_at=now))

    async def mark_used(self, times: Mapping[UUID, datetime]) -> None:
        """Note when keys were last used; always in the same order, or two processes could wait for each other."""
        connection = await self.session.connection()
        await connection.execute(_USED, [{"key_id": id, "used_at": at} for id, at in sorted(times.items())])

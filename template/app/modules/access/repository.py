"""Queries for users and their access."""

from collections.abc import Sequence
from contextlib import suppress
from uuid import UUID

from sqlalchemy import Boolean, String, bindparam, func, or_
from sqlmodel import col, select

from app.modules.access.schemas import UserDetail
from app.modules.users.models import User
from app.ports.db.pages import PagedQuery
from app.ports.db.records import Repository, select_fields
from app.ports.identity.bearer import Role

_ALL = select_fields(User, UserDetail)
USER_BY_ID = _ALL.where(col(User.id) == bindparam("user_id"))

_ROLE, _ACTIVE = bindparam("role", type_=String), bindparam("is_active", type_=Boolean)
_PATTERN = bindparam("pattern", type_=String)
_TEXT = func.lower(func.coalesce(User.display_name, "") + " " + func.coalesce(User.email, "") + " " + col(User.subject))
# A filter that is not given is null.
USERS = PagedQuery(
    _ALL.where(
        or_(_ROLE.is_(None), col(User.role) == _ROLE),
        or_(_ACTIVE.is_(None), col(User.is_active) == _ACTIVE),
        or_(_PATTERN.is_(None), _TEXT.like(func.lower(_PATTERN), escape="\\")),
    ).order_by(col(User.created_at).desc(), col(User.id)),
    UserDetail,
)


class AccessRepository(Repository[User]):
    """Finds users whose access is to change."""

    table = User

    async def named(self, name: str) -> Sequence[User]:
        """Find the users with an id, a subject, or an address that is verified."""
        conditions = [
            col(User.subject) == name,
            col(User.subject).endswith(f"|{name}", autoescape=True),
            (func.lower(col(User.email)) == name.lower()) & col(User.email_verified),
        ]
        with suppress(ValueError):
            conditions.append(col(User.id) == UUID(name))
        return (await self.session.exec(select(User).where(or_(*conditions)).limit(2))).all()

    async def active_admins(self) -> set[UUID]:
        """List the admins who may sign in, and keep others from changing them until the end of the transaction."""
        admins = select(User.id).where(User.role == Role.ADMIN, col(User.is_active)).order_by(col(User.id))
        return set((await self.session.exec(admins.with_for_update())).all())

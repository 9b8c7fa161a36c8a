"""Queries for accounts, their sessions and their tokens."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import BindParameter, ColumnElement, and_, bindparam, delete, or_, update
from sqlalchemy import select as select_columns
from sqlmodel import col, select
from sqlmodel.sql.sqltypes import UTCDateTime

from app.modules.access.schemas import UserDetail
from app.modules.accounts.models import Account, LoginSession, MailToken, Purpose, RefreshToken
from app.modules.accounts.schemas import SessionRead
from app.modules.users.models import User
from app.ports.db.pages import PagedQuery
from app.ports.db.records import Repository, select_fields


class Credentials(BaseModel):
    """What is known of an account when somebody signs in."""

    user_id: UUID
    address: str
    password_hash: str
    password_changed_at: datetime
    display_name: str | None
    is_active: bool


_CREDENTIALS = select_columns(
    col(Account.user_id),
    col(Account.address),
    col(Account.password_hash),
    col(Account.password_changed_at),
    col(User.display_name),
    col(User.is_active),
).join(User, col(User.id) == col(Account.user_id))
CREDENTIALS_BY_ADDRESS = _CREDENTIALS.where(col(Account.address) == bindparam("address"))
CREDENTIALS_BY_USER = _CREDENTIALS.where(col(Account.user_id) == bindparam("user_id"))

_NOW: BindParameter[datetime] = bindparam("now", type_=UTCDateTime())
_LIVE = (col(LoginSession.revoked_at).is_(None), col(LoginSession.expires_at) > _NOW)
CALLER = (
    select_fields(User, UserDetail)
    .add_columns(and_(*_LIVE).label("live"))
    .join(LoginSession, col(LoginSession.user_id) == col(User.id))
    .where(col(User.id) == bindparam("user_id"), col(LoginSession.id) == bindparam("session_id"))
)
SESSIONS = PagedQuery(
    select_fields(LoginSession, SessionRead)
    .where(col(LoginSession.user_id) == bindparam("user_id"), *_LIVE)
    .order_by(col(LoginSession.id).desc()),
    SessionRead,
)


def _ended(now: datetime) -> ColumnElement[bool]:
    return or_(col(LoginSession.revoked_at).is_not(None), col(LoginSession.expires_at) <= now)


class AccountRepository(Repository[Account]):
    """Finds and adds accounts."""

    table = Account

    async def with_user(self, *conditions: Any) -> tuple[Account, User] | None:
        """Find an account and its user, and keep others from changing them until the end of the transaction."""
        query = select(Account, User).join(User, col(User.id) == col(Account.user_id)).where(*conditions)
        # Both rows are locked: who is being deactivated begins no session meanwhile.
        row = (await self.session.exec(query.with_for_update(key_share=True))).one_or_none()
        return (row[0], row[1]) if row else None

    async def by_address(self, address: str) -> tuple[Account, User] | None:
        """Find the account of an address in lower case."""
        return await self.with_user(col(Account.address) == address)

    async def by_user(self, user_id: UUID) -> tuple[Account, User] | None:
        """Find the account of a user."""
        return await self.with_user(col(Account.user_id) == user_id)


class SessionRepository(Repository[LoginSession]):
    """Finds sessions and ends them."""

    table = LoginSession

    async def with_user(self, id: UUID) -> tuple[LoginSession, User] | None:
        """Find a session and its user."""
        query = select(LoginSession, User).join(User, col(User.id) == col(LoginSession.user_id))
        row = (await self.session.exec(query.where(col(LoginSession.id) == id))).one_or_none()
        return (row[0], row[1]) if row else None

    async def owned(self, user_id: UUID) -> Sequence[LoginSession]:
        """List the sessions of a user."""
        return (await self.session.exec(select(LoginSession).where(LoginSession.user_id == user_id))).all()

    async def revoke(self, now: datetime, *conditions: Any) -> int:
        """End the sessions that fulfil the conditions, and count those that had not ended."""
        statement = update(LoginSession).where(col(LoginSession.revoked_at).is_(None), *conditions)
        return (await self.session.exec(statement.values(revoked_at=now))).rowcount

    async def forget_ended(self, user_id: UUID, now: datetime) -> None:
        """Remove the sessions of a user that have ended, with their tokens."""
        await self.session.exec(delete(LoginSession).where(col(LoginSession.user_id) == user_id, _ended(now)))

    async def forget_all_ended(self, now: datetime) -> int:
        """Remove the sessions of all users that have ended, with their tokens, and count them."""
        return (await self.session.exec(delete(LoginSession).where(_ended(now)))).rowcount


class RefreshTokenRepository(Repository[RefreshToken]):
    """Finds refresh tokens, and lets each be used once."""

    table = RefreshToken

    async def use(self, token_hash: str, now: datetime) -> UUID | None:
        """Use a token and return its session. Of those who come at once, one gets it."""
        statement = update(RefreshToken).where(
            col(RefreshToken.token_hash) == token_hash,
            col(RefreshToken.used_at).is_(None),
            col(RefreshToken.expires_at) > now,
        )
        found = await self.session.exec(statement.values(used_at=now).returning(col(RefreshToken.session_id)))
        return found.scalar_one_or_none()

    async def by_hash(self, token_hash: str) -> RefreshToken | None:
        """Find a token, whether it has been used or not."""
        return (
            await self.session.exec(select(RefreshToken).where(RefreshToken.token_hash == token_hash))
        ).one_or_none()

    async def forget_expired(self, session_id: UUID, now: datetime) -> None:
        """Remove the tokens of a session that nobody could use any more."""
        conditions = col(RefreshToken.session_id) == session_id, col(RefreshToken.expires_at) <= now
        await self.session.exec(delete(RefreshToken).where(*conditions))


class MailTokenRepository(Repository[MailToken]):
    """Finds tokens that were mailed, and lets each be used once."""

    table = MailToken

    async def find_good(self, token_hash: str, purposes: Collection[Purpose], now: datetime) -> MailToken | None:
        """Find a token for one of the purposes that has not expired."""
        return (await self.session.exec(select(MailToken).where(*self._good(token_hash, purposes, now)))).one_or_none()

    async def take(self, token_hash: str, purposes: Collection[Purpose], now: datetime) -> MailToken | None:
        """Take a token out. Of those who come at once, one gets it."""
        good = self._good(token_hash, purposes, now)
        known = (await self.session.exec(select(MailToken.address, MailToken.user_id).where(*good))).one_or_none()
        if known is None:
            return None
        # Whoever takes one removes others of that address or user later: all are locked, and in the same order.
        of = col(MailToken.address) == known[0]
        if known[1] is not None:
            of = or_(of, col(MailToken.user_id) == known[1])
        await self.session.exec(select(MailToken.id).where(of).order_by(col(MailToken.id)).with_for_update())
        taken = await self.session.exec(delete(MailToken).where(*good).returning(MailToken))
        found: MailToken | None = taken.scalar_one_or_none()
        return found

    async def awaits_registration(self, address: str, now: datetime) -> bool:
        """Tell whether a link that makes an account has been mailed to an address, and is still good."""
        query = select(MailToken.id).where(
            MailToken.purpose == Purpose.REGISTER, MailToken.address == address, col(MailToken.expires_at) > now
        )
        return (await self.session.exec(query.limit(1))).first() is not None

    async def forget(self, *conditions: Any) -> None:
        """Remove the tokens that fulfil the conditions."""
        await self.session.exec(delete(MailToken).where(*conditions))

    async def forget_expired(self, now: datetime) -> None:
        """Remove what nobody could use any more, and leave to others what they are removing."""
        expired = select(MailToken.id).where(col(MailToken.expires_at) <= now).with_for_update(skip_locked=True)
        await self.forget(col(MailToken.id).in_(expired))

    @staticmethod
    def _good(token_hash: str, purposes: Collection[Purpose], now: datetime) -> tuple[Any, ...]:
        return (
            col(MailToken.token_hash) == token_hash,
            col(MailToken.purpose).in_(purposes),
            col(MailToken.expires_at) > now,
        )

"""Queries for the second factor."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, delete, func, or_, update
from sqlalchemy import select as select_columns
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.modules.accounts.models import LoginSession
from app.modules.mfa.models import MfaChallenge, Passkey, RecoveryCode, Totp
from app.modules.users.models import User
from app.ports.db.records import Repository

HAS_FACTOR = select_columns(col(User.id)).where(
    col(User.id) == bindparam("user_id"),
    or_(
        select(Totp.id).where(col(Totp.user_id) == bindparam("user_id"), col(Totp.confirmed_at).is_not(None)).exists(),
        select(Passkey.id).where(col(Passkey.user_id) == bindparam("user_id")).exists(),
    ),
)


class TotpRepository(Repository[Totp]):
    """Finds the application of a user, and takes each of its codes once."""

    table = Totp

    async def of(self, user_id: UUID) -> Totp | None:
        """Find the application of a user, confirmed or not."""
        return (await self.session.exec(select(Totp).where(Totp.user_id == user_id))).one_or_none()

    async def take(self, id: UUID, step: int, **values: Any) -> bool:
        """Take the code of a time step, unless that step or a later one has been taken."""
        statement = update(Totp).where(col(Totp.id) == id, col(Totp.last_step) < step)
        return (await self.session.exec(statement.values(last_step=step, **values))).rowcount == 1


class RecoveryCodeRepository(Repository[RecoveryCode]):
    """Finds recovery codes, and takes each once."""

    table = RecoveryCode

    async def left(self, user_id: UUID) -> int:
        """Count those of a user."""
        query = select(func.count()).select_from(RecoveryCode).where(col(RecoveryCode.user_id) == user_id)
        return (await self.session.exec(query)).one()

    async def take(self, user_id: UUID, hashes: Collection[str]) -> bool:
        """Take one of a user's that has one of the hashes."""
        mine = col(RecoveryCode.user_id) == user_id, col(RecoveryCode.code_hash).in_(hashes)
        return (await self.session.exec(delete(RecoveryCode).where(*mine))).rowcount == 1

    async def replace(self, user_id: UUID, hashes: Collection[str]) -> None:
        """Put these in the place of those that a user has."""
        await self.session.exec(delete(RecoveryCode).where(col(RecoveryCode.user_id) == user_id))
        self.session.add_all(RecoveryCode(user_id=user_id, code_hash=it) for it in hashes)
        await self.session.flush()


class PasskeyRepository(Repository[Passkey]):
    """Finds passkeys."""

    table = Passkey

    async def of(self, user_id: UUID) -> Sequence[Passkey]:
        """List those of a user, the newest first."""
        query = select(Passkey).where(Passkey.user_id == user_id).order_by(col(Passkey.id).desc())
        return (await self.session.exec(query)).all()

    async def known_as(self, credential_id: str, *conditions: Any) -> Passkey | None:
        """Find the one that an authenticator calls so."""
        query = select(Passkey).where(Passkey.credential_id == credential_id, *conditions)
        # As it is now: another answer of it may have been counted while this one waited for the account.
        return (await self.session.exec(query.execution_options(populate_existing=True))).one_or_none()


class ChallengeRepository(Repository[MfaChallenge]):
    """Finds what was asked, and lets each be answered once."""

    table = MfaChallenge

    async def find_good(self, token_hash: str, now: datetime, *, adds: bool) -> MfaChallenge | None:
        """Find one that can still be answered."""
        good = MfaChallenge.token_hash == token_hash, col(MfaChallenge.expires_at) > now, MfaChallenge.adds == adds
        return (await self.session.exec(select(MfaChallenge).where(*good))).one_or_none()

    async def take(self, id: UUID) -> bool:
        """Take one out. Of those who answer at once, one does."""
        return (await self.session.exec(delete(MfaChallenge).where(col(MfaChallenge.id) == id))).rowcount == 1

    async def forget_expired(self, now: datetime) -> None:
        """Remove what nobody could answer any more, and leave to others what they are removing."""
        expired = select(MfaChallenge.id).where(col(MfaChallenge.expires_at) <= now).with_for_update(skip_locked=True)
        await self.session.exec(delete(MfaChallenge).where(col(MfaChallenge.id).in_(expired)))

    async def forget_of(self, user_id: UUID) -> None:
        """Remove those of a user."""
        await self.session.exec(delete(MfaChallenge).where(col(MfaChallenge.user_id) == user_id))


async def forget_factors(session: AsyncSession, user_id: UUID) -> None:
    """Remove all that a user has beside their password."""
    for table in (Totp, RecoveryCode, Passkey, MfaChallenge):
        await session.exec(delete(table).where(col(table.user_id) == user_id))


async def say_how(session: AsyncSession, id: UUID, amr: str) -> None:
    """Write down how somebody has shown who they are, for the tokens that their session gets from now on."""
    await session.exec(update(LoginSession).where(col(LoginSession.id) == id).values(amr=amr))

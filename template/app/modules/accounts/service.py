"""Rules for accounts: nobody learns who has one, and who opens a mail has shown that the address is theirs.

Passwords are hashed before a transaction begins: it would keep a connection from others for as long as that takes.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit import clock
from app.kit.errors import AppError, NotFound
from app.kit.ids import new_id
from app.kit.logging import get_logger
from app.kit.settings import load
from app.modules.access.schemas import UserDetail
from app.modules.access.service import Caller, is_self_care, let_in
from app.modules.accounts import mail
from app.modules.accounts.cookies import read_access_token
from app.modules.accounts.models import Account, LoginSession, MailToken, Purpose
from app.modules.accounts.passwords import Passwords
from app.modules.accounts.repository import (
    CALLER,
    CREDENTIALS_BY_ADDRESS,
    CREDENTIALS_BY_USER,
    AccountRepository,
    Credentials,
    MailTokenRepository,
    SessionRepository,
)
from app.modules.accounts.schemas import (
    Challenge,
    EmailChange,
    Login,
    NewAddress,
    PasswordChange,
    PasswordReset,
    Registration,
    Tokens,
)
from app.modules.accounts.sessions import SessionService
from app.modules.accounts.settings import AccountSettings
from app.modules.accounts.throttle import Throttle
from app.modules.accounts.tokens import hash_of, new_token
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.email.outbox import Outbox
from app.ports.identity.bearer import Forbidden, Role, Unauthorized
from app.ports.identity.local import AccessTokens, session_id, subject_of

EXPORTED = {"created_at", "user_agent", "last_used_at", "expires_at", "revoked_at"}
log = get_logger(__name__)


class WrongCredentials(AppError):
    """There is no such account, or the password is another."""

    status = 401
    code = "wrong_credentials"
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__("The address or the password is wrong, or the address has not been confirmed.")


class WrongPassword(AppError):
    """The caller does not know the password of their account."""

    status = 403
    code = "wrong_password"

    def __init__(self) -> None:
        super().__init__("The password is wrong.")


class LinkNotGood(NotFound):
    """A link from a mail has been used, has expired, or never was one."""

    code = "link_not_good"

    def __init__(self) -> None:
        super().__init__("This link is not good any more: ask for a new one.")


class AccountExists(Exception):
    """The address has an account."""


# Asks for more than the password of an account, or for nothing.
AskMore = Callable[[AsyncSession, Account], Awaitable[Challenge | None]]


async def ask_nothing(_session: AsyncSession, _account: Account) -> None:
    """Let a password do."""


@dataclass(frozen=True, slots=True)
class AccountService:
    """Makes accounts, changes them and lets their owners sign in."""

    database: Database
    passwords: Passwords
    throttle: Throttle
    outbox: Outbox
    sessions: SessionService
    settings: AccountSettings
    ask_more: AskMore

    async def register(self, email: str) -> None:
        """Mail a link that makes the account; who has one already is told of the attempt instead.

        Whoever fills in the form chooses nothing else: it may be somebody with an address that is not theirs.
        """
        address = email.lower()
        await self.throttle.mail(address)
        async with self.database.session() as session:
            taken = await AccountRepository(session).by_address(address)
            # Also where it opens nothing: both ways take the same time.
            token = await self._remember(session, Purpose.REGISTER, address)
            messages = mail.already_registered(address), mail.verification(address, token)
            await self.outbox.send_later(session, messages[0] if taken else messages[1])

    async def request_verification(self, email: str) -> None:
        """Mail the link of a registration again, if there is one to confirm."""
        address = email.lower()
        await self.throttle.mail(address)
        async with self.database.session() as session:
            awaited = await MailTokenRepository(session).awaits_registration(address, clock.now())
            token = await self._remember(session, Purpose.REGISTER, address, good=awaited)
            taken = await AccountRepository(session).by_address(address)
            wanted = awaited and not taken
            await self.outbox.send_later(session, mail.verification(address, token), wanted=wanted)

    async def verify_email(self, given: Registration) -> None:
        """Make the account for who opened the link, with what they choose. Raises LinkNotGood and WeakPassword."""
        token_hash, purposes = hash_of(given.token), (Purpose.REGISTER,)
        async with self.database.session() as session:
            # A password that is refused does not use up the link, and a link that is not good costs no hash.
            asked = await MailTokenRepository(session).find_good(token_hash, purposes, clock.now())
        if asked is None:
            raise LinkNotGood
        known = asked.address, given.display_name
        password_hash = await self.passwords.hash(secret(given.password), known=known)
        async with self.database.session() as session:
            if await MailTokenRepository(session).take(token_hash, purposes, clock.now()) is None:
                raise LinkNotGood
            try:
                await self.create(session, asked.address, password_hash, name=given.display_name)
            except AccountExists:
                raise LinkNotGood from None

    async def confirm_new_email(self, given: NewAddress) -> None:
        """Give an account its new address. Raises LinkNotGood and WrongPassword.

        Whoever opens the mail may have asked for nothing, and would lend their address to an account of somebody else.
        """
        token_hash, purposes = hash_of(given.token), (Purpose.CHANGE_EMAIL,)
        async with self.database.session() as session:
            asked = await MailTokenRepository(session).find_good(token_hash, purposes, clock.now())
            owner = await session.get(User, asked.user_id) if asked and asked.user_id else None
        if asked is None or owner is None or not owner.is_active:
            raise LinkNotGood
        known = await self._checked(owner.id, given.password)
        async with self.database.session() as session:
            account = await self.unchanged(session, known, LinkNotGood())
            if await MailTokenRepository(session).take(token_hash, purposes, clock.now()) is None:
                raise LinkNotGood
            await self._move(session, account, asked.address)
            await self.outbox.send_later(session, mail.email_changed(known.address, asked.address))

    async def log_in(self, given: Login, *, user_agent: str | None) -> Tokens | Challenge:
        """Begin a session, or ask for a second factor first.

        Raises WrongCredentials, and Forbidden for who is deactivated and knows the password.
        """
        address, password = given.email.lower(), secret(given.password)
        found = await self._credentials(address)
        await self.throttle.account(address, found.password_changed_at if found else None)
        if not await self.passwords.verify(found.password_hash if found else None, password) or found is None:
            log.info("sign-in refused")
            raise WrongCredentials
        if not found.is_active:
            raise Forbidden("This account is deactivated.", "account_deactivated")
        renewed = await self.passwords.rehash(password) if self.passwords.outdated(found.password_hash) else None
        async with self.database.session() as session:
            account = await self.unchanged(session, found, WrongCredentials())
            if renewed:
                account.password_hash = renewed
            if challenge := await self.ask_more(session, account):
                return challenge
            return await self.sessions.open(session, found.user_id, user_agent=user_agent)

    async def forgot_password(self, email: str) -> None:
        """Mail a link to set a new password, if there is such an account."""
        address = email.lower()
        await self.throttle.mail(address)
        async with self.database.session() as session:
            found = await AccountRepository(session).by_address(address)
            known = found[1].id if found and found[1].is_active else None
            token = await self._remember(session, Purpose.RESET_PASSWORD, address, user_id=known)
            wanted = known is not None
            await self.outbox.send_later(session, mail.password_reset(address, token), wanted=wanted)

    async def reset_password(self, given: PasswordReset) -> None:
        """Set a new password for who opened the link, and end all sessions. Raises LinkNotGood and WeakPassword."""
        token_hash, purposes = hash_of(given.token), (Purpose.RESET_PASSWORD,)
        async with self.database.session() as session:
            # A password that is refused does not use up the link, and a link that is not good costs no hash.
            asked = await MailTokenRepository(session).find_good(token_hash, purposes, clock.now())
            user = await session.get(User, asked.user_id) if asked and asked.user_id else None
        if asked is None or user is None or not user.is_active:
            raise LinkNotGood
        password_hash = await self.passwords.hash(secret(given.new_password), known=(asked.address, user.display_name))
        async with self.database.session() as session:
            found = await AccountRepository(session).by_user(user.id)
            if found is None or found[0].address != asked.address or not found[1].is_active:
                raise LinkNotGood
            if await MailTokenRepository(session).take(token_hash, purposes, clock.now()) is None:
                raise LinkNotGood
            await self._set_password(session, found[0], password_hash)
            await self.outbox.send_later(session, mail.password_changed(asked.address))

    async def change_password(self, given: PasswordChange, *, me: Caller) -> None:
        """Set a new password and end all other sessions. Raises WrongPassword and WeakPassword."""
        found = await self.confirmed(me, given.current_password)
        password_hash = await self.passwords.hash(secret(given.new_password), known=(found.address, found.display_name))
        async with self.database.session() as session:
            account = await self.unchanged(session, found, WrongPassword())
            await self._set_password(session, account, password_hash, keep=session_id(me.token))
            await self.outbox.send_later(session, mail.password_changed(found.address))

    async def change_email(self, given: EmailChange, *, me: Caller) -> None:
        """Mail a link to the new address, which the account has from then on. Raises WrongPassword."""
        found = await self.confirmed(me, given.password)
        address = given.email.lower()
        await self.throttle.mail(address)
        async with self.database.session() as session:
            await self.unchanged(session, found, WrongPassword())
            taken = await AccountRepository(session).by_address(address)
            token = await self._remember(session, Purpose.CHANGE_EMAIL, address, user_id=me.user_id)
            messages = mail.already_registered(address), mail.new_address(address, token)
            await self.outbox.send_later(session, messages[0] if taken else messages[1])

    @staticmethod
    async def create(
        session: AsyncSession, address: str, password_hash: str, *, name: str | None, role: Role = Role.USER
    ) -> User:
        """Make a user with an account. Raises AccountExists."""
        id = new_id()
        user = User(id=id, subject=subject_of(id), email=address, display_name=name, role=role, email_verified=True)
        try:
            async with session.begin_nested():
                session.add(user)
                await session.flush()
                await AccountRepository(session).add(Account(user_id=id, address=address, password_hash=password_hash))
        except IntegrityError:
            raise AccountExists from None
        registered = col(MailToken.purpose) == Purpose.REGISTER, col(MailToken.address) == address
        await MailTokenRepository(session).forget(*registered)
        log.info("user joined", user=str(id))
        return user

    async def _remember(
        self, session: AsyncSession, purpose: Purpose, address: str, *, user_id: UUID | None = None, good: bool = True
    ) -> str:
        """Store a token to mail, and return it; one that is not good has expired at once."""
        now, token = clock.now(), new_token()
        row = MailToken(
            purpose=purpose,
            address=address,
            token_hash=hash_of(token),
            expires_at=self._expiry(purpose, now) if good else now,
            user_id=user_id,
        )
        tokens = MailTokenRepository(session)
        await tokens.forget_expired(now)
        await tokens.add(row)
        return token

    def _expiry(self, purpose: Purpose, now: datetime) -> datetime:
        if purpose == Purpose.RESET_PASSWORD:
            return now + timedelta(minutes=self.settings.auth_reset_minutes)
        return now + timedelta(hours=self.settings.auth_verification_hours)

    @staticmethod
    async def _move(session: AsyncSession, account: Account, address: str) -> None:
        """Give an account the address that a token was mailed to."""
        user = await session.get_one(User, account.user_id)
        try:
            async with session.begin_nested():
                account.address = user.email = address
                await session.flush()
        except IntegrityError:
            raise LinkNotGood from None
        # What was mailed to the old address opens nothing any more.
        await MailTokenRepository(session).forget(col(MailToken.user_id) == user.id)
        log.warning("address changed", user=str(user.id))

    async def _set_password(
        self, session: AsyncSession, account: Account, password_hash: str, *, keep: UUID | None = None
    ) -> None:
        account.password_hash, account.password_changed_at = password_hash, clock.now()
        await session.flush()
        others = [col(LoginSession.user_id) == account.user_id]
        if keep is not None:
            others.append(col(LoginSession.id) != keep)
        await SessionRepository(session).revoke(clock.now(), *others)
        await MailTokenRepository(session).forget(col(MailToken.user_id) == account.user_id)
        log.warning("password changed", user=str(account.user_id))

    async def _credentials(self, address: str) -> Credentials | None:
        rows = await self.database.fetch(CREDENTIALS_BY_ADDRESS, {"address": address})
        return Credentials.model_validate(rows[0], from_attributes=True) if rows else None

    async def confirmed(self, me: Caller, password: SecretStr) -> Credentials:
        """Let only who knows the password change how the account is opened. Raises WrongPassword."""
        return await self._checked(me.user_id, password)

    async def _checked(self, user_id: UUID, password: SecretStr) -> Credentials:
        """Check the password of a user's account. Raises WrongPassword."""
        rows = await self.database.fetch(CREDENTIALS_BY_USER, {"user_id": user_id})
        found = Credentials.model_validate(rows[0], from_attributes=True) if rows else None
        if found is None:
            raise WrongPassword
        await self.throttle.account(found.address, found.password_changed_at)
        if not await self.passwords.verify(found.password_hash, secret(password)):
            raise WrongPassword
        return found

    @staticmethod
    async def unchanged(session: AsyncSession, known: Credentials, refusal: AppError) -> Account:
        """Find the account again, unless its password or whether it is active has changed meanwhile."""
        found = await AccountRepository(session).by_user(known.user_id)
        if found is None or found[0].password_changed_at != known.password_changed_at or not found[1].is_active:
            raise refusal
        return found[0]


def secret(given: SecretStr) -> str:
    """Read a password that came in a request."""
    return given.get_secret_value()


async def identify(connection: HTTPConnection) -> Caller:
    """Verify the access token of a request and let its owner in, as long as their session lasts: one query."""
    access_tokens: AccessTokens = connection.app.state.verifier
    token = await access_tokens.verify(read_access_token(connection))
    session = {"user_id": UUID(token.claims["sub"]), "session_id": session_id(token), "now": clock.now()}
    rows = await connection.app.state.database.fetch(CALLER, session)
    if not rows:
        raise Unauthorized("The session has ended: sign in again.")
    user = UserDetail.model_construct(**rows[0]._mapping)
    # Who is deactivated is told so, though their sessions have ended as well.
    if user.is_active and not rows[0].live:
        raise Unauthorized("The session has ended: sign in again.")
    return let_in(user, token, connection.scope.get("method", ""), self_care=is_self_care(connection))


async def lock_out(session: AsyncSession, user_id: UUID) -> None:
    """End the sessions and the links of a user who is deactivated: they do not come back when that is undone."""
    await SessionRepository(session).revoke(clock.now(), col(LoginSession.user_id) == user_id)
    await MailTokenRepository(session).forget(col(MailToken.user_id) == user_id)


async def export(session: AsyncSession, user_id: UUID) -> dict[str, Any]:
    """Return the account of a user and where they are signed in, but nothing that opens it."""
    found = await AccountRepository(session).by_user(user_id)
    sessions = await SessionRepository(session).owned(user_id)
    return {
        "address": found[0].address if found else None,
        "password_changed_at": found[0].password_changed_at if found else None,
        "sessions": [row.model_dump(include=EXPORTED) for row in sessions],
    }


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Let nobody in who has not signed in here."""
    app.state.passwords = Passwords(load(AccountSettings))
    app.state.identify = identify
    app.state.ask_more = ask_nothing
    yield


async def sessions_for(connection: HTTPConnection) -> SessionService:
    """Make what opens and ends sessions."""
    state = connection.app.state
    return SessionService(state.database, state.verifier, load(AccountSettings))


Sessions = Annotated[SessionService, Depends(sessions_for)]


async def throttle_for(connection: HTTPConnection) -> Throttle:
    """Make what counts tries."""
    return Throttle(connection.app.state.limiter, load(AccountSettings))


async def accounts_for(
    connection: HTTPConnection, sessions: Sessions, throttle: Annotated[Throttle, Depends(throttle_for)]
) -> AccountService:
    """Make what changes accounts."""
    state = connection.app.state
    return AccountService(
        state.database, state.passwords, throttle, state.outbox, sessions, sessions.settings, state.ask_more
    )


async def count_client(connection: HTTPConnection, throttle: Annotated[Throttle, Depends(throttle_for)]) -> None:
    """Count a try of the client. Raises TooManyTries."""
    await throttle.client(connection.client.host if connection.client else "unknown")


Accounts = Annotated[AccountService, Depends(accounts_for)]

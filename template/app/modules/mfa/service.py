"""Rules for the second factor: what an account asks for beside the password, and what may take the place of both.

Every rule that depends on what an account has locks its row first, as a sign-in does: nobody signs in with a password
alone while a factor is being added.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from secrets import token_bytes, token_hex
from typing import Annotated, Any, Literal
from uuid import UUID

import pyotp
from fastapi import Depends, FastAPI
from pydantic import SecretStr
from pyotp.exceptions import OTPVerificationError
from sqlalchemy.exc import IntegrityError
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit import clock
from app.kit.errors import AppError, NotFound
from app.kit.logging import get_logger
from app.kit.sealing import SealingSettings
from app.kit.settings import load
from app.modules.access.service import Caller, Conflict, CurrentCaller
from app.modules.accounts.models import Account, LoginSession
from app.modules.accounts.repository import AccountRepository, Credentials, SessionRepository
from app.modules.accounts.schemas import Challenge, Tokens
from app.modules.accounts.service import Accounts, AccountService, WrongPassword
from app.modules.accounts.tokens import hash_of, new_token
from app.modules.mfa import mail
from app.modules.mfa.models import MfaChallenge, Passkey, Totp
from app.modules.mfa.passkeys import SECONDS, Passkeys, WrongPasskey, is_id
from app.modules.mfa.repository import (
    HAS_FACTOR,
    ChallengeRepository,
    PasskeyRepository,
    RecoveryCodeRepository,
    TotpRepository,
    forget_factors,
    say_how,
)
from app.modules.mfa.schemas import (
    FactorAdded,
    FactorAnswer,
    PasskeyAnswer,
    PasskeyCreate,
    PasskeyQuestion,
    PasskeyRead,
    RecoveryCodes,
    SecondFactor,
    TotpCreated,
)
from app.modules.mfa.sealing import FactorSecrets
from app.modules.mfa.settings import MfaSettings
from app.ports.db.database import Database
from app.ports.identity.bearer import Forbidden, Role
from app.ports.identity.identity import Identify, Identity
from app.ports.identity.local import PASSWORD, SEVERAL, session_id

RECOVERY_CODES, DIGITS = 10, 6
MOST_PASSKEYS = 20
# In RFC 8176: a one-time password, a proof that somebody has a key.
OTP, KEY = "otp", "pop"
SETUP = timedelta(minutes=15)
NEEDS_ONE = (
    "Admins need a second factor: add one (POST /api/v1/app/auth/totp or /api/v1/app/auth/passkeys/options), "
    "then refresh or sign in again."
)
log = get_logger(__name__)


class WrongCode(AppError):
    """The code is another, has been used, or is too old."""

    # As for a wrong password of who is signed in. Clients take a 401 for a token that has expired, and refresh it.
    status = 403
    code = "wrong_code"

    def __init__(self) -> None:
        super().__init__("The code is wrong, has been used, or is too old. Try another one.")


class ChallengeOver(AppError):
    """Nobody is waiting for this answer."""

    status = 403
    code = "challenge_over"

    def __init__(self) -> None:
        super().__init__("This has been answered, or took too long: begin again.")


class PasskeyNotFound(NotFound):
    """There is no such passkey, or it is somebody else's."""

    def __init__(self) -> None:
        super().__init__("There is no such passkey.")


class MfaService:
    """Asks for second factors, and lets people add them and take them away."""

    def __init__(self, accounts: AccountService, sealing: FactorSecrets, passkeys: Passkeys) -> None:
        self.accounts, self.sealing, self.passkeys = accounts, sealing, passkeys
        self.database = accounts.database

    async def answer(self, given: FactorAnswer, *, user_agent: str | None) -> Tokens:
        """Begin the session of who has shown a password before. Raises ChallengeOver, WrongCode and WrongPasskey."""
        asked = await self._asked(given.token)
        if asked.user_id is None:
            raise ChallengeOver
        if given.code is not None:
            await self.accounts.throttle.code(asked.user_id)
        left: int | None = None
        async with self.database.session() as session:
            account = await self._account(session, asked.user_id, asked)
            await self._take(session, asked)
            if given.passkey is not None:
                known = await self._passkey(session, given.passkey, col(Passkey.user_id) == account.user_id)
                how = await self._use_passkey(session, given.passkey, asked, known, alone=False)
            elif len(given.code or "") == DIGITS:
                how = await self._use_totp(session, account.user_id, given.code or "")
            else:
                how, left = await self._use_recovery_code(session, account.user_id, given.code or "")
            tokens = await self.accounts.sessions.open(
                session, account.user_id, user_agent=user_agent, amr=(PASSWORD, how, SEVERAL)
            )
            if left is not None:
                await self._tell(session, account.address, f"A recovery code was used, of which {left} are left,")
        return tokens

    async def ask_for_passkey(self) -> PasskeyQuestion:
        """Ask for a passkey that says by itself whose it is."""
        nonce = token_bytes(32)
        async with self.database.session() as session:
            token = await remember(session, nonce)
        return PasskeyQuestion(token=token, expires_in=SECONDS, options=self.passkeys.ask(nonce))

    async def sign_in(self, given: PasskeyAnswer, *, user_agent: str | None) -> Tokens:
        """Begin the session of who has a passkey, and knows its PIN or has the finger: that is two factors in one.

        Raises ChallengeOver and WrongPasskey, and Forbidden for who is deactivated.
        """
        asked = await self._asked(given.token)
        if asked.user_id is not None:
            raise ChallengeOver
        async with self.database.session() as session:
            owner = (await self._passkey(session, given.passkey)).user_id
            found = await AccountRepository(session).by_user(owner)
            known = await self._passkey(session, given.passkey, col(Passkey.user_id) == owner)
            how = await self._use_passkey(session, given.passkey, asked, known, alone=True)
            if found is None:
                raise WrongPasskey
            if not found[1].is_active:
                raise Forbidden("This account is deactivated.", "account_deactivated")
            await self._take(session, asked)
            return await self.accounts.sessions.open(session, owner, user_agent=user_agent, amr=(how, SEVERAL))

    async def show(self, me: Caller) -> SecondFactor:
        """Tell what the account of the caller asks for."""
        async with self.database.session() as session:
            totp, passkeys = await factors(session, me.user_id)
            left = await RecoveryCodeRepository(session).left(me.user_id)
        return SecondFactor(
            required=load(MfaSettings).auth_admin_mfa and (me.row or {}).get("role") == Role.ADMIN,
            totp=totp is not None,
            passkeys=[PasskeyRead.model_validate(it.model_dump()) for it in passkeys],
            recovery_codes_left=left,
        )

    async def begin_totp(self, password: SecretStr, *, me: Caller) -> TotpCreated:
        """Draw the secret of an application, which counts from the first code on. Raises WrongPassword and Conflict."""
        known = await self.accounts.confirmed(me, password)
        secret = pyotp.random_base32()
        async with self.database.session() as session:
            await self.accounts.unchanged(session, known, WrongPassword())
            totps = TotpRepository(session)
            if found := await totps.of(me.user_id):
                if found.confirmed_at:
                    raise Conflict("There is an application already: remove it first.")
                await totps.delete(found)
            await totps.add(Totp(user_id=me.user_id, secret=self.sealing.seal(secret, me.user_id)))
        uri = pyotp.TOTP(secret, name=known.address, issuer=self.passkeys.title).provisioning_uri()
        return TotpCreated(secret=secret, uri=uri)

    async def confirm_totp(self, code: str, *, me: Caller) -> FactorAdded:
        """Ask for codes of an application from now on, which has shown a first one. Raises WrongCode and Conflict."""
        await self.accounts.throttle.code(me.user_id)
        async with self.database.session() as session:
            account = await self._account(session, me.user_id)
            found = await TotpRepository(session).of(me.user_id)
            if found is None or found.confirmed_at or clock.now() - found.created_at > SETUP:
                raise Conflict("No application is being set up, or it took too long: begin again.")
            first = not any(await factors(session, me.user_id))
            await self._show_totp(session, found, code, confirmed_at=clock.now())
            added = await self._added(session, me, OTP, first=first)
            await self._tell(session, account.address, "An application that shows codes was added")
        return added

    async def remove_totp(self, password: SecretStr, *, me: Caller) -> None:
        """Ask for no codes of an application any more. Raises WrongPassword."""
        known = await self.accounts.confirmed(me, password)
        async with self.database.session() as session:
            await self.accounts.unchanged(session, known, WrongPassword())
            found = await TotpRepository(session).of(me.user_id)
            if found:
                await TotpRepository(session).delete(found)
                await self._removed(session, me.user_id)
            if found and found.confirmed_at:
                await self._tell(session, known.address, "The application that shows codes was removed")

    async def renew_recovery_codes(self, password: SecretStr, *, me: Caller) -> RecoveryCodes:
        """Draw new recovery codes; the old ones are good for nothing. Raises WrongPassword and Conflict."""
        known = await self.accounts.confirmed(me, password)
        async with self.database.session() as session:
            await self.accounts.unchanged(session, known, WrongPassword())
            if not any(await factors(session, me.user_id)):
                raise Conflict("Add a second factor first: recovery codes come with it.")
            codes = await self._draw_codes(session, me.user_id)
            await self._tell(session, known.address, "New recovery codes were made")
        return RecoveryCodes(recovery_codes=codes)

    async def begin_passkey(self, password: SecretStr, *, me: Caller) -> PasskeyQuestion:
        """Ask an authenticator for a new passkey. Raises WrongPassword and Conflict."""
        known = await self.accounts.confirmed(me, password)
        nonce = token_bytes(32)
        async with self.database.session() as session:
            account = await self.accounts.unchanged(session, known, WrongPassword())
            passkeys = await PasskeyRepository(session).of(me.user_id)
            if len(passkeys) >= MOST_PASSKEYS:
                raise too_many_passkeys()
            token = await remember(session, nonce, account, adds=True)
        options = self.passkeys.ask_to_make(nonce, me.user_id, known.address, passkeys)
        return PasskeyQuestion(token=token, expires_in=SECONDS, options=options)

    async def add_passkey(self, given: PasskeyCreate, *, me: Caller) -> FactorAdded:
        """Add a passkey. Raises ChallengeOver, WrongPasskey and Conflict."""
        asked = await self._asked(given.token, adds=True)
        made = self.passkeys.make(given.passkey, asked.nonce, me.user_id, given.name)
        async with self.database.session() as session:
            account = await self._account(session, me.user_id, asked)
            await self._take(session, asked)
            totp, passkeys = await factors(session, me.user_id)
            if len(passkeys) >= MOST_PASSKEYS:
                raise too_many_passkeys()
            try:
                async with session.begin_nested():
                    await PasskeyRepository(session).add(made)
            except IntegrityError:
                raise Conflict("This passkey is known already.") from None
            added = await self._added(session, me, KEY, first=not totp and not passkeys)
            await self._tell(session, account.address, "A passkey was added")
        return added

    async def remove_passkey(self, id: UUID, password: SecretStr, *, me: Caller) -> None:
        """Take no answers of a passkey any more. Raises PasskeyNotFound and WrongPassword."""
        known = await self.accounts.confirmed(me, password)
        async with self.database.session() as session:
            await self.accounts.unchanged(session, known, WrongPassword())
            passkeys = PasskeyRepository(session)
            found = await passkeys.find(id, col(Passkey.user_id) == me.user_id)
            if found is None:
                raise PasskeyNotFound
            await passkeys.delete(found)
            await self._removed(session, me.user_id)
            await self._tell(session, known.address, "A passkey was removed")

    async def _asked(self, token: str, *, adds: bool = False) -> MfaChallenge:
        async with self.database.session() as session:
            found = await ChallengeRepository(session).find_good(hash_of(token), clock.now(), adds=adds)
        if found is None:
            raise ChallengeOver
        return found

    async def _take(self, session: AsyncSession, asked: MfaChallenge) -> None:
        if not await ChallengeRepository(session).take(asked.id):
            raise ChallengeOver

    @staticmethod
    async def _account(session: AsyncSession, user_id: UUID, asked: MfaChallenge | None = None) -> Account:
        """Find an account, of which nothing has changed since it was asked something. Raises ChallengeOver."""
        found = await AccountRepository(session).by_user(user_id)
        if found is None or not found[1].is_active:
            raise ChallengeOver
        if asked and (asked.user_id, asked.password_changed_at) != (user_id, found[0].password_changed_at):
            raise ChallengeOver
        return found[0]

    async def _use_totp(self, session: AsyncSession, user_id: UUID, code: str) -> str:
        totp, _ = await factors(session, user_id)
        if totp is None:
            raise WrongCode
        await self._show_totp(session, totp, code)
        return OTP

    async def _show_totp(self, session: AsyncSession, totp: Totp, code: str, **values: Any) -> None:
        """Take a code, and those of no earlier time any more (RFC 6238, 5.2). Raises WrongCode."""
        secret = self.sealing.unseal(totp.secret, totp.user_id)
        if secret is None:
            log.error("a secret cannot be unsealed: put the earlier SECRET_KEY in SECRET_KEY_FALLBACKS")
            raise WrongCode
        try:
            step = pyotp.TOTP(secret).verify_and_get_timecode(code, for_time=clock.now(), valid_window=1)
        except OTPVerificationError:
            raise self._wrong(totp.user_id) from None
        # Sealed anew, so that after a while nothing needs an earlier SECRET_KEY.
        values["secret"] = self.sealing.seal(secret, totp.user_id)
        if not await TotpRepository(session).take(totp.id, step, **values):
            raise self._wrong(totp.user_id)

    async def _use_recovery_code(self, session: AsyncSession, user_id: UUID, code: str) -> tuple[str, int]:
        codes = RecoveryCodeRepository(session)
        if not await codes.take(user_id, self.sealing.hashes(code, user_id)):
            raise self._wrong(user_id)
        log.warning("recovery code used", user=str(user_id))
        return OTP, await codes.left(user_id)

    @staticmethod
    def _wrong(user_id: UUID) -> WrongCode:
        log.info("second factor refused", user=str(user_id))
        return WrongCode()

    @staticmethod
    async def _passkey(session: AsyncSession, given: dict[str, Any], *conditions: Any) -> Passkey:
        id = given.get("id")
        if not isinstance(id, str) or not is_id(id):
            raise WrongPasskey
        found = await PasskeyRepository(session).known_as(id, *conditions)
        if found is None:
            raise WrongPasskey
        return found

    async def _use_passkey(
        self, session: AsyncSession, given: dict[str, Any], asked: MfaChallenge, known: Passkey, *, alone: bool
    ) -> str:
        verified = self.passkeys.verify(given, asked.nonce, known, alone=alone)
        known.sign_count, known.last_used_at = verified.new_sign_count, clock.now()
        await session.flush()
        return KEY

    async def _added(self, session: AsyncSession, me: Caller, how: str, *, first: bool) -> FactorAdded:
        """Write down that this session has shown a factor. With the first one all others end: they have shown none."""
        sessions = SessionRepository(session)
        id = session_id(me.token)
        current = await sessions.find(id)
        if current is not None:
            await say_how(session, id, " ".join(dict.fromkeys([*current.amr.split(), how, SEVERAL])))
        log.warning("second factor added", user=str(me.user_id), how=how)
        if not first:
            return FactorAdded(recovery_codes=None)
        await sessions.revoke(clock.now(), col(LoginSession.user_id) == me.user_id, col(LoginSession.id) != id)
        return FactorAdded(recovery_codes=await self._draw_codes(session, me.user_id))

    async def _removed(self, session: AsyncSession, user_id: UUID) -> None:
        log.warning("second factor removed", user=str(user_id))
        if not any(await factors(session, user_id)):
            await RecoveryCodeRepository(session).replace(user_id, ())

    async def _draw_codes(self, session: AsyncSession, user_id: UUID) -> list[str]:
        # 60 bits each, which with the throttle is far more than anybody can try.
        drawn = [token_hex(8)[:15] for _ in range(RECOVERY_CODES)]
        await RecoveryCodeRepository(session).replace(
            user_id, [self.sealing.hashes(code, user_id)[0] for code in drawn]
        )
        return [f"{code[:5]}-{code[5:10]}-{code[10:]}" for code in drawn]

    async def _tell(self, session: AsyncSession, address: str, what: str) -> None:
        await self.accounts.outbox.send_later(session, mail.changed(address, what))


def too_many_passkeys() -> Conflict:
    """Say that somebody has as many passkeys as they may."""
    return Conflict(f"You have {MOST_PASSKEYS} passkeys: remove one that is not needed.")


async def factors(session: AsyncSession, user_id: UUID) -> tuple[Totp | None, Sequence[Passkey]]:
    """Find what a user has beside the password."""
    totp = await TotpRepository(session).of(user_id)
    return totp if totp and totp.confirmed_at else None, await PasskeyRepository(session).of(user_id)


async def remember(session: AsyncSession, nonce: bytes, account: Account | None = None, *, adds: bool = False) -> str:
    """Store what is being asked, and return the token with which it is answered."""
    token, challenges, now = new_token(), ChallengeRepository(session), clock.now()
    await challenges.forget_expired(now)
    await challenges.add(
        MfaChallenge(
            token_hash=hash_of(token),
            nonce=nonce,
            expires_at=now + timedelta(seconds=SECONDS),
            user_id=account.user_id if account else None,
            password_changed_at=account.password_changed_at if account else None,
            adds=adds,
        )
    )
    return token


@dataclass(frozen=True, slots=True)
class Asking:
    """What a sign-in goes through after the password."""

    passkeys: Passkeys

    async def __call__(self, session: AsyncSession, account: Account) -> Challenge | None:
        """Ask for one of the factors that an account has."""
        # One query for the many who have none.
        connection = await session.connection()
        if not (await connection.execute(HAS_FACTOR, {"user_id": account.user_id})).first():
            return None
        totp, passkeys = await factors(session, account.user_id)
        methods: list[Literal["totp", "passkey", "recovery_code"]] = []
        methods += ["totp"] if totp else []
        methods += ["passkey"] if passkeys else []
        if await RecoveryCodeRepository(session).left(account.user_id):
            methods.append("recovery_code")
        nonce = token_bytes(32)
        return Challenge(
            token=await remember(session, nonce, account),
            expires_in=SECONDS,
            methods=methods,
            passkey_options=self.passkeys.ask(nonce, passkeys) if passkeys else None,
        )


def admins_with_factors(others: Identify) -> Identify:
    """Let admins in as users until they have shown a second factor."""

    async def identify(connection: HTTPConnection) -> Identity:
        caller = await others(connection)
        if (
            isinstance(caller, Caller)
            and caller.role == Role.ADMIN
            and caller.scopes is None
            and SEVERAL not in caller.token.claims.get("amr", ())
        ):
            return replace(caller, role=Role.USER, withheld=NEEDS_ONE)
        return caller

    return identify


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Ask for second factors at each sign-in, and of admins where the settings say so."""
    settings = load(MfaSettings)
    app.state.sealing = FactorSecrets(load(SealingSettings).secrets)
    app.state.passkeys = Passkeys(settings.passkey_domain, app.title)
    app.state.ask_more = Asking(app.state.passkeys)
    if settings.auth_admin_mfa:
        app.state.identify = admins_with_factors(app.state.identify)
    yield


async def lock_out(session: AsyncSession, user_id: UUID) -> None:
    """Take no answer any more to what a user was asked who is deactivated."""
    await ChallengeRepository(session).forget_of(user_id)


async def export(session: AsyncSession, user_id: UUID) -> dict[str, Any]:
    """Return which second factors a user has, but nothing that answers for them."""
    totp = await TotpRepository(session).of(user_id)
    passkeys = await PasskeyRepository(session).of(user_id)
    return {
        "totp_confirmed_at": totp.confirmed_at if totp else None,
        "passkeys": [row.model_dump(include={"name", "created_at", "last_used_at"}) for row in passkeys],
    }


async def reset_factors(session: AsyncSession, known: Credentials) -> None:
    """Take all factors of a user away who has lost them, and end their sessions."""
    await AccountRepository(session).by_user(known.user_id)
    await forget_factors(session, known.user_id)
    await SessionRepository(session).revoke(clock.now(), col(LoginSession.user_id) == known.user_id)
    log.warning("second factor reset", user=str(known.user_id))


async def require_factor(connection: HTTPConnection, me: CurrentCaller) -> None:
    """Take API keys of no admin who has no second factor, where admins need one. Raises Forbidden."""
    if me.scopes is not None and load(MfaSettings).auth_admin_mfa:
        database: Database = connection.app.state.database
        if not await database.fetch(HAS_FACTOR, {"user_id": me.user_id}):
            raise Forbidden("Keys of admins are good only when their owner has a second factor.", "admin_withheld")


async def _mfa(connection: HTTPConnection, accounts: Accounts) -> MfaService:
    return MfaService(accounts, connection.app.state.sealing, connection.app.state.passkeys)


Mfa = Annotated[MfaService, Depends(_mfa)]

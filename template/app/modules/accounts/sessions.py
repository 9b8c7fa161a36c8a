"""Rules for sessions: they begin with a sign-in, go on with refresh tokens, and end when one of those comes twice."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit import clock
from app.kit.errors import NotFound
from app.kit.logging import get_logger
from app.kit.pagination import Page, PageRequest
from app.modules.access.service import Caller
from app.modules.accounts.models import LoginSession, RefreshToken
from app.modules.accounts.repository import SESSIONS, RefreshTokenRepository, SessionRepository
from app.modules.accounts.schemas import SessionItem, Tokens
from app.modules.accounts.settings import AccountSettings
from app.modules.accounts.tokens import hash_of, new_token
from app.ports.db.database import Database
from app.ports.identity.bearer import Forbidden, Unauthorized
from app.ports.identity.local import AccessTokens, session_id

log = get_logger(__name__)


class SessionNotFound(NotFound):
    """There is no such session, or it is somebody else's."""

    def __init__(self) -> None:
        super().__init__("There is no such session.")


@dataclass(frozen=True, slots=True)
class SessionService:
    """Opens sessions, continues them and ends them."""

    database: Database
    access_tokens: AccessTokens
    settings: AccountSettings

    async def open(self, session: AsyncSession, user_id: UUID, *, user_agent: str | None) -> Tokens:
        """Begin a session for a user who has shown who they are."""
        now = clock.now()
        sessions = SessionRepository(session)
        await sessions.forget_ended(user_id, now)
        expires = now + timedelta(days=self.settings.auth_session_days)
        opened = LoginSession(user_id=user_id, user_agent=user_agent, last_used_at=now, expires_at=expires)
        return await self._continue(session, await sessions.add(opened))

    async def refresh(self, token: str) -> Tokens:
        """Take a refresh token and give the next one. Raises Unauthorized, and Forbidden for who is deactivated."""
        now = clock.now()
        async with self.database.session() as session:
            tokens, sessions = RefreshTokenRepository(session), SessionRepository(session)
            if (used := await tokens.use(hash_of(token), now)) is None:
                # Committed, and then refused: raising in here would undo it.
                await self._end_family_of(session, token)
                found = None
            else:
                found = await sessions.with_user(used)
            if found and found[0].revoked_at is None and found[0].expires_at > now:
                opened, user = found
                if user.is_active:
                    opened.last_used_at = now
                    await tokens.forget_expired(opened.id, now)
                    return await self._continue(session, opened)
                refusal: Exception = Forbidden("This account is deactivated.", "account_deactivated")
            else:
                refusal = Unauthorized("The session has ended: sign in again.")
        raise refusal

    async def log_out(self, token: str) -> None:
        """End the session of a refresh token, whether it has been used or not. Who has none is out already."""
        async with self.database.session() as session:
            if found := await RefreshTokenRepository(session).by_hash(hash_of(token)):
                await SessionRepository(session).revoke(clock.now(), col(LoginSession.id) == found.session_id)

    async def page(self, me: Caller, page: PageRequest) -> Page[SessionItem]:
        """List the caller's sessions, the newest first."""
        found = await SESSIONS.fetch(self.database, page, user_id=me.user_id, now=clock.now())
        current = session_id(me.token)
        items = [SessionItem(**item.model_dump(), current=item.id == current) for item in found.items]
        return Page[SessionItem](**{**found.model_dump(), "items": items})

    async def end(self, me: Caller, id: UUID) -> None:
        """End one of the caller's sessions. Raises SessionNotFound."""
        async with self.database.session() as session:
            mine = col(LoginSession.id) == id, col(LoginSession.user_id) == me.user_id
            if not await SessionRepository(session).revoke(clock.now(), *mine):
                raise SessionNotFound

    async def end_others(self, me: Caller) -> None:
        """End all sessions of the caller but this one."""
        async with self.database.session() as session:
            others = col(LoginSession.id) != session_id(me.token), col(LoginSession.user_id) == me.user_id
            await SessionRepository(session).revoke(clock.now(), *others)

    async def _continue(self, session: AsyncSession, opened: LoginSession) -> Tokens:
        token = new_token()
        unused = clock.now() + timedelta(days=self.settings.auth_refresh_token_days)
        row = RefreshToken(session_id=opened.id, token_hash=hash_of(token), expires_at=min(unused, opened.expires_at))
        await RefreshTokenRepository(session).add(row)
        access = self.access_tokens.issue(user_id=opened.user_id, session_id=opened.id)
        return Tokens(access_token=access, refresh_token=token, expires_in=self.access_tokens.lifetime)

    async def _end_family_of(self, session: AsyncSession, token: str) -> None:
        """End the session of a token that was used before: one of those who have it has stolen it."""
        found = await RefreshTokenRepository(session).by_hash(hash_of(token))
        if found is None or found.used_at is None:
            return
        if await SessionRepository(session).revoke(clock.now(), col(LoginSession.id) == found.session_id):
            log.warning("refresh token used twice; its session has been ended", session=str(found.session_id))

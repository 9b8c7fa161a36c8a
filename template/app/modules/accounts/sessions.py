"""Rules for sessions: they begin with a sign-in, go on with refresh tokens, and end when one of those comes back."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit import clock
from app.kit.errors import AppError, NotFound
from app.kit.logging import get_logger
from app.kit.pagination import Page, PageRequest
from app.modules.access.service import Caller
from app.modules.accounts.models import LoginSession, RefreshToken
from app.modules.accounts.repository import SESSIONS, RefreshTokenRepository, SessionRepository
from app.modules.accounts.schemas import SessionItem, Tokens
from app.modules.accounts.settings import AccountSettings
from app.modules.accounts.tokens import hash_of, new_token, token_after
from app.ports.db.database import Database
from app.ports.identity.bearer import Forbidden, Unauthorized
from app.ports.identity.local import PASSWORD, AccessTokens, session_id

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

    async def open(
        self, session: AsyncSession, user_id: UUID, *, user_agent: str | None, amr: Sequence[str] = (PASSWORD,)
    ) -> Tokens:
        """Begin a session for a user who has shown who they are, and how."""
        now = clock.now()
        sessions = SessionRepository(session)
        await sessions.forget_ended(user_id, now)
        expires = now + timedelta(days=self.settings.auth_session_days)
        opened = LoginSession(
            user_id=user_id, user_agent=user_agent, amr=" ".join(amr), last_used_at=now, expires_at=expires
        )
        await sessions.add(opened)
        token = new_token()
        await self._store(session, opened, token)
        return self._tokens(opened, token)

    async def refresh(self, token: str) -> Tokens:
        """Take a refresh token and give the next one. Raises Unauthorized, and Forbidden for who is deactivated."""
        now, following = clock.now(), token_after(token, self.access_tokens.refresh_key)
        refusal: AppError = Unauthorized("The session has ended: sign in again.")
        async with self.database.session() as session:
            tokens, sessions = RefreshTokenRepository(session), SessionRepository(session)
            used = await tokens.use(hash_of(token), now)
            # Committed, and then refused: raising in here would undo it.
            id = used or await self._came_again(session, token, following, now)
            found = await sessions.with_user(id) if id else None
            if found and not found[1].is_active:
                refusal = Forbidden("This account is deactivated.", "account_deactivated")
            elif found and found[0].revoked_at is None and found[0].expires_at > now:
                opened = found[0]
                opened.last_used_at = now
                if used:
                    await tokens.forget_expired(opened.id, now)
                    await self._store(session, opened, following)
                return self._tokens(opened, following)
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

    async def _store(self, session: AsyncSession, opened: LoginSession, token: str) -> None:
        unused = clock.now() + timedelta(days=self.settings.auth_refresh_token_days)
        row = RefreshToken(session_id=opened.id, token_hash=hash_of(token), expires_at=min(unused, opened.expires_at))
        await RefreshTokenRepository(session).add(row)

    def _tokens(self, opened: LoginSession, token: str) -> Tokens:
        access = self.access_tokens.issue(user_id=opened.user_id, session_id=opened.id, amr=opened.amr.split())
        return Tokens(access_token=access, refresh_token=token, expires_in=self.access_tokens.lifetime)

    async def _came_again(self, session: AsyncSession, token: str, following: str, now: datetime) -> UUID | None:
        """Return the session of a token that another tab has just used. If it was not just now, a thief has: end it.

        Whoever comes again gets the very token that came first, so that there are never two ways on: of a thief and an
        owner who both have it, the second to use it later is found out.
        """
        tokens = RefreshTokenRepository(session)
        found = await tokens.by_hash(hash_of(token))
        if found is None or found.used_at is None:
            return None
        latest = await tokens.by_hash(hash_of(following))
        grace = timedelta(seconds=self.settings.auth_refresh_grace_seconds)
        if latest and latest.used_at is None and now - found.used_at < grace:
            log.warning("refresh token used again at once", session=str(found.session_id))
            return found.session_id
        if await SessionRepository(session).revoke(clock.now(), col(LoginSession.id) == found.session_id):
            log.warning("refresh token used twice; its session has been ended", session=str(found.session_id))
        return None

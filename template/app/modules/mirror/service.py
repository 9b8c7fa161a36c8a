"""Rules for users of a provider elsewhere: they have a row here from their first request on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit.logging import get_logger
from app.modules.access.schemas import UserDetail
from app.modules.access.service import Caller, is_self_care, let_in
from app.modules.mirror.repository import CALLER, MirrorRepository
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.identity.bearer import Role, VerifiedToken, Verifier, read_token

log = get_logger(__name__)


class Gate:
    """Lets callers in. Their row is made at their first request, and kept in step with what their tokens say.

    Where roles are the provider's, nobody has more than both the row and the token of the request say.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    async def admit(self, token: VerifiedToken, method: str, *, self_care: bool = False) -> Caller:
        """Return the caller of a request. Raises Forbidden for who is deactivated, or may only read."""
        rows = await self.database.fetch(CALLER, {"subject": token.subject})
        user = UserDetail.model_construct(**rows[0]._mapping) if rows else None
        if user is None or changes(user, token):
            user = await self._write(token)
        if token.role is not None:
            # A row that its owner has changed since looks newer, whatever role it has.
            user.role = max(user.role, token.role, key=list(Role).index)
        return let_in(user, token, method, self_care=self_care)

    async def _write(self, token: VerifiedToken) -> UserDetail:
        """Make the caller's row, or change it; requests that race for it make one."""
        async with self.database.session() as session:
            users = MirrorRepository(session)
            user = await users.by_subject(token.subject)
            await self.notice(session, token, new=user is None)
            if user is None:
                user = User(subject=token.subject, display_name=token.name, role=token.role or Role.USER)
                user.email, user.email_verified = token.email, bool(token.email_verified)
                user = await join(users, user)
            user.sqlmodel_update(changes(user, token))
            await session.flush()
            return UserDetail.model_validate(user, from_attributes=True)

    async def notice(self, session: AsyncSession, token: VerifiedToken, *, new: bool) -> None:
        """Look at a token that makes a row or changes one. Raises Forbidden where it may not."""


async def join(users: MirrorRepository, user: User) -> User:
    """Add a user, or find the row that somebody else has made for them at the same time."""
    try:
        async with users.session.begin_nested():
            await users.add(user)
    except IntegrityError:
        found = await users.by_subject(user.subject)
        if found is None:
            raise
        return found
    log.info("user joined", user=str(user.id))
    return user


def changes(user: User | UserDetail, token: VerifiedToken) -> dict[str, object]:
    """Tell what a token says otherwise than the row. An older token does not undo what has changed since."""
    if token.issued_at is not None and token.issued_at <= user.updated_at:
        return {}
    said: dict[str, object] = {}
    if token.email is not None:
        said["email"] = token.email
        if token.email_verified is not None or token.email != user.email:
            said["email_verified"] = bool(token.email_verified)
    if token.role is not None:
        said["role"] = token.role
    return {field: value for field, value in said.items() if getattr(user, field) != value}


async def identify(connection: HTTPConnection) -> Caller:
    """Verify the token of a request and let its owner in."""
    verifier: Verifier = connection.app.state.verifier
    token = await verifier.verify(read_token(connection))
    gate: Gate = connection.app.state.gate(connection.app.state.database)
    return await gate.admit(token, connection.scope.get("method", ""), self_care=is_self_care(connection))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Let nobody in without a token that the provider of identity vouches for."""
    app.state.identify, app.state.gate = identify, Gate
    yield

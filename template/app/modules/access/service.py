"""Rules for access: who is let in, what they may do, and who may change that."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends
from fastapi.security import HTTPBearer
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit.errors import AppError, NotFound
from app.kit.logging import get_logger
from app.kit.module import LockOut, Module
from app.kit.pagination import Page, PageRequest
from app.modules.access.repository import USER_BY_ID, USERS, AccessRepository
from app.modules.access.schemas import UserChange, UserDetail
from app.modules.users.models import User
from app.ports.db.database import Database, Session, with_reads
from app.ports.db.pages import like_pattern
from app.ports.identity.bearer import Forbidden, Role, VerifiedToken
from app.ports.identity.identity import Identity, authenticate

READING = {"GET", "HEAD", "OPTIONS"}
# Marks a route, in the document as well, that changes nothing but how its caller signs in. Readers may use it.
SELF_CARE = {"x-self-care": True}
log = get_logger(__name__)


class BearerScheme(HTTPBearer):
    """For the OpenAPI document only: the token itself is read by the port."""

    async def __call__(self) -> None:  # type: ignore[override]
        """Leave the request alone."""


bearer_scheme = BearerScheme(scheme_name="HTTPBearer", bearerFormat="JWT", description="A token, or an API key.")


class UserNotFound(NotFound):
    """There is no such user."""

    def __init__(self) -> None:
        super().__init__("There is no such user.")


class Conflict(AppError):
    """The change goes against a rule that the users keep together."""

    status = 409


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller(Identity):
    """A caller who has been let in."""

    role: Role
    token: VerifiedToken
    # Of who has come with an API key: what it is for. None of who has signed in.
    scopes: frozenset[str] | None = None
    # Of an admin who is let in as a user only: what they have to do first.
    withheld: str | None = None


def is_self_care(connection: HTTPConnection) -> bool:
    """Tell whether the route of a request is marked with SELF_CARE."""
    return bool((getattr(connection.scope.get("route"), "openapi_extra", None) or {}).get("x-self-care"))


def let_in(user: UserDetail, token: VerifiedToken, method: str, *, self_care: bool = False) -> Caller:
    """Let the owner of a verified token in. Raises Forbidden for who is deactivated, or may only read.

    Readers may use the routes that are marked with SELF_CARE, and change nothing else.
    """
    if not user.is_active:
        raise Forbidden("This account is deactivated.", "account_deactivated")
    if user.role == Role.READONLY and method not in READING and not self_care:
        raise Forbidden("This account may only read.", "read_only")
    return Caller(
        user_id=user.id,
        subject=token.subject,
        email=user.email,
        name=user.display_name,
        role=user.role,
        token=token,
        row=dict(user),
    )


CurrentCaller = Annotated[Caller, Depends(authenticate)]


async def require_admin(me: CurrentCaller) -> None:
    """Let nobody but admins through. Raises Forbidden."""
    if me.withheld:
        raise Forbidden(me.withheld, "admin_withheld")
    if me.role != Role.ADMIN:
        raise Forbidden("This is for admins.", "admins_only")


async def require_sign_in(me: CurrentCaller) -> None:
    """Let nobody through who has come with a key: it could make itself more of them. Raises Forbidden."""
    if me.scopes is not None:
        raise Forbidden("An API key will not do for this: sign in.", "sign_in_required")


class AccessService:
    """Changes users, for admins."""

    def __init__(self, session: AsyncSession, on_lock_out: Sequence[LockOut] = ()) -> None:
        self.session, self.on_lock_out = session, on_lock_out
        self.users = AccessRepository(session)

    async def change(self, id: UUID, change: UserChange, *, by: Caller) -> User:
        """Change what is given. Raises UserNotFound, and Conflict for the last admin and for roles of the provider."""
        user = await self._find(id)
        if change.role is not None and change.role != user.role:
            await require_sign_in(by)
            if by.token.role is not None:
                raise Conflict("Roles come from the provider of identity: change them there.")
            await self._keep_an_admin(user)
            log.warning("role changed", user=str(id), role=change.role, by=str(by.user_id))
        user.sqlmodel_update(change.model_dump(exclude_none=True))
        await self.session.flush()
        return user

    async def set_active(self, id: UUID, active: bool, *, by: Caller) -> User:
        """Let a user in again, or no more: what let them in before has ended. Raises UserNotFound and Conflict."""
        user = await self._find(id)
        if user.is_active != active:
            await self._keep_an_admin(user)
            user.is_active = active
            log.warning("user activated" if active else "user deactivated", user=str(id), by=str(by.user_id))
            await self.session.flush()
        if not active:
            for end in self.on_lock_out:
                await end(self.session, id)
        return user

    async def make_admin(self, name: str) -> User | None:
        """Make the one user with this subject, id or verified address an admin who may sign in."""
        found = await self.users.named(name)
        if len(found) != 1:
            return None
        found[0].role, found[0].is_active = Role.ADMIN, True
        await self.session.flush()
        return found[0]

    async def _find(self, id: UUID) -> User:
        user = await self.users.find(id)
        if user is None:
            raise UserNotFound
        return user

    async def _keep_an_admin(self, user: User) -> None:
        if await self.users.active_admins() == {user.id}:
            raise Conflict("This is the last admin: make somebody else one first.")


class AccessReader:
    """Reads users without a transaction, for admins."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def page(
        self, page: PageRequest, *, role: Role | None, is_active: bool | None, matching: str | None
    ) -> Page[UserDetail]:
        """List users, the newest first; `matching` searches name, address and subject."""
        pattern = like_pattern(matching) if matching else None
        return await USERS.fetch(self.database, page, role=role, is_active=is_active, pattern=pattern)

    async def get(self, id: UUID) -> UserDetail:
        """Get one user. Raises UserNotFound."""
        rows = await self.database.fetch(USER_BY_ID, {"user_id": id})
        if not rows:
            raise UserNotFound
        return UserDetail.model_validate(rows[0])


async def _access(connection: HTTPConnection, session: Session) -> AccessService:
    modules: Sequence[Module] = connection.app.state.modules
    return AccessService(session, [hook for module in modules for hook in module.on_lock_out])


UserAccess = Annotated[AccessService, Depends(_access)]
UserAccessReads = Annotated[AccessReader, with_reads(AccessReader)]

"""Rules for what a provider tells of its users on its own: changes are followed, and who has gone stays away."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit.logging import get_logger
from app.kit.module import LockOut, Module
from app.modules.directory.repository import DirectoryRepository
from app.modules.mirror.repository import MirrorRepository
from app.modules.mirror.service import Gate, join
from app.modules.users.models import User
from app.ports.db.database import Session
from app.ports.identity.bearer import Forbidden, Role, VerifiedToken

Erase = Callable[[AsyncSession, UUID], Awaitable[None]]
log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What a provider says that a user is, as of a time. `role` is None where it says nothing of that."""

    subject: str
    as_of: datetime
    email: str | None
    email_verified: bool
    name: str | None
    role: Role | None
    banned: bool = False


@dataclass(frozen=True, slots=True)
class Departure:
    """A provider has deleted a user."""

    subject: str


class DirectoryService:
    """Follows what a provider tells, in whatever order it comes."""

    def __init__(self, session: AsyncSession, erasers: Sequence[Erase], on_lock_out: Sequence[LockOut] = ()) -> None:
        self.session, self.erasers, self.on_lock_out = session, erasers, on_lock_out
        self.users, self.entries = MirrorRepository(session), DirectoryRepository(session)

    async def apply(self, told: Person | Departure) -> None:
        """Follow a change, or a departure."""
        await (self.follow(told) if isinstance(told, Person) else self.remove(told.subject))

    async def follow(self, person: Person) -> None:
        """Make the user's row, or bring it up to date, unless something newer is known."""
        entry = await self.entries.locked(person.subject)
        if entry.gone or (entry.as_of is not None and person.as_of < entry.as_of):
            log.info("a change came late", as_of=person.as_of.isoformat())
            return
        user = await self.users.by_subject(person.subject)
        if user is None:
            user = await join(self.users, User(subject=person.subject, display_name=person.name))
        elif user.display_name == entry.display_name:
            # Else they have chosen a name here, and it is their own.
            user.display_name = person.name
        user.email, user.email_verified = person.email, person.email_verified
        user.role = person.role or user.role
        if person.banned and user.is_active:
            # The end of a ban lets nobody in: who was deactivated here cannot be told from who was there.
            user.is_active = False
            for end in self.on_lock_out:
                await end(self.session, user.id)
            log.warning("user banned by the provider", user=str(user.id))
        entry.as_of, entry.display_name = person.as_of, person.name
        await self.session.flush()

    async def remove(self, subject: str) -> None:
        """Remove a user with all that is theirs. Nothing that is told of them later brings them back."""
        entry = await self.entries.locked(subject)
        entry.gone, entry.display_name = True, None
        user = await self.users.by_subject(subject)
        if user is not None:
            for erase in self.erasers:
                await erase(self.session, user.id)
            await self.users.delete(user)
            log.warning("user deleted by the provider", user=str(user.id))
        await self.session.flush()


async def erase(session: AsyncSession, user_id: UUID) -> None:
    """Forget the name of a user who is going. What is known as of when stays, under a hash, and names nobody."""
    user = await session.get_one(User, user_id)
    (await DirectoryRepository(session).locked(user.subject)).display_name = None
    await session.flush()


async def export(session: AsyncSession, user_id: UUID) -> dict[str, Any]:
    """Return what the provider has told of a user beside what their row holds."""
    user = await session.get_one(User, user_id)
    entry = await DirectoryRepository(session).known(user.subject)
    return entry.model_dump(include={"display_name", "as_of"}) if entry else {}


class DirectoryGate(Gate):
    """Lets callers in who have not gone, and notes what their tokens say beside what the provider tells."""

    async def notice(self, session: AsyncSession, token: VerifiedToken, *, new: bool) -> None:
        """Look at a token that makes a row or changes one. Raises Forbidden for who has gone."""
        entry = await DirectoryRepository(session).locked(token.subject)
        if entry.gone:
            raise Forbidden("This account was deleted.", "account_deleted")
        if new and entry.as_of is None:
            entry.display_name = token.name
        # A token without an address says too little to be taken for the whole.
        if token.email and token.issued_at and (entry.as_of is None or entry.as_of < token.issued_at):
            entry.as_of = token.issued_at


async def _directory(session: Session, connection: HTTPConnection) -> DirectoryService:
    modules: Sequence[Module] = connection.app.state.modules
    hooks = [hook for module in modules for hook in module.on_lock_out]
    return DirectoryService(session, [module.erase for module in modules if module.erase], hooks)


Directory = Annotated[DirectoryService, Depends(_directory)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Let nobody in who has gone."""
    app.state.gate = DirectoryGate
    yield

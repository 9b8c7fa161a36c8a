"""Rules for one's own data: its owner gets a copy of it, and can have it deleted, at once and for good."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI
from pydantic import SecretStr
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit import clock
from app.kit.errors import NotFound
from app.kit.logging import get_logger
from app.modules.access.service import Caller
from app.modules.privacy import contents
from app.modules.privacy.tasks import export
from app.modules.users.models import User
from app.ports.jobs.queue import enqueue

log = get_logger(__name__)


class ExportNotFound(NotFound):
    """The user has asked for no export, it is not ready, or it has expired."""

    def __init__(self) -> None:
        super().__init__("There is no export of yours to fetch: ask for one, or wait until its task has succeeded.")


# Called in the transaction that deletes a user; returns what to tell them.
Parting = Callable[[AsyncSession], Awaitable[str]]
# Finds out whether it is the owner who asks. Raises an error when it is not.
Confirm = Callable[[HTTPConnection, Caller, SecretStr | None], Awaitable[Parting]]


async def confirm_by_token(connection: HTTPConnection, me: Caller, password: SecretStr | None) -> Parting:
    """Let a token do. Who keeps the account is elsewhere, and keeps it."""

    async def part(session: AsyncSession) -> str:
        return (
            "All that is yours here is deleted. Your account at the provider that you sign in with is not: delete it "
            "there. If you sign in here again, you begin anew."
        )

    return part


@dataclass(frozen=True, slots=True)
class PrivacyService:
    """Hands out copies of what belongs to a user, and deletes it."""

    app: FastAPI

    async def begin_export(self, user_id: UUID) -> UUID:
        """Have an export made, one at a time, and return the id of its task."""
        async with self.app.state.database.session() as session:
            return await enqueue(session, export(user_id), owner=user_id, key=str(user_id))

    async def find_export(self, user_id: UUID) -> AsyncIterator[bytes]:
        """Return the newest export in blocks; the first is there when this returns. Raises ExportNotFound."""
        blocks = contents.read(self.app, user_id, clock.now())
        first = await anext(blocks, None)
        if first is None:
            raise ExportNotFound

        async def all_blocks() -> AsyncIterator[bytes]:
            yield first
            async for block in blocks:
                yield block

        return all_blocks()

    async def erase(self, user_id: UUID, part: Parting) -> str:
        """Delete a user with all that is theirs, and return what to tell them."""
        async with self.app.state.database.session() as session:
            told = await part(session)
            user = await session.get(User, user_id)
            if user is not None:
                for module in self.app.state.modules:
                    if module.erase:
                        await module.erase(session, user_id)
                await session.delete(user)
                log.warning("user erased at their own wish", user=str(user_id))
            return told


async def _privacy(connection: HTTPConnection) -> PrivacyService:
    return PrivacyService(connection.app)


Privacy = Annotated[PrivacyService, Depends(_privacy)]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Let a token do, unless a module that opens later asks for more."""
    app.state.confirm_erasure = confirm_by_token
    yield

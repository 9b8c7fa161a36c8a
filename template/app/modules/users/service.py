"""Rules for users."""

from typing import Annotated

from fastapi import Depends
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import make_transient_to_detached
from sqlmodel.ext.asyncio.session import AsyncSession

from app.modules.users.models import User
from app.modules.users.repository import USER_BY_ID, UserRepository
from app.modules.users.schemas import UserRead, UserUpdate
from app.ports.db.database import Database, with_reads, with_session
from app.ports.identity.identity import CurrentIdentity, Identity


class UserService:
    """Keeps a row for everybody whom the identity provider vouches for."""

    def __init__(self, session: AsyncSession) -> None:
        self.session, self.users = session, UserRepository(session)

    async def current(self, identity: Identity) -> User:
        """Find the caller's row, or make it at their first request. Requests that race for it make one row."""
        if identity.row:
            known = User(**identity.row)
            make_transient_to_detached(known)
            self.session.add(known)
            return known
        user = await self.users.find(identity.user_id)
        if user is None:
            user = User(id=identity.user_id, subject=identity.subject, email=identity.email, display_name=identity.name)
            try:
                async with self.session.begin_nested():
                    await self.users.add(user)
            except IntegrityError:
                user = await self.users.find(identity.user_id)
                if user is None:
                    raise
        return user

    async def update(self, user: User, change: UserUpdate) -> User:
        """Change what users may change about themselves."""
        user.display_name = change.display_name
        await self.session.flush()
        return user


class UserReader:
    """Reads the caller without a transaction; only their first request needs one, of its own."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def current(self, identity: Identity) -> UserRead:
        """Read the caller's row, which is made at their first request."""
        rows = [identity.row] if identity.row else await self.database.fetch(USER_BY_ID, {"user_id": identity.user_id})
        if rows:
            return UserRead.model_validate(rows[0])
        async with self.database.session() as session:
            return UserRead.model_validate(await UserService(session).current(identity))


Users = Annotated[UserService, with_session(UserService)]
UserReads = Annotated[UserReader, with_reads(UserReader)]


async def current_user(users: Users, identity: CurrentIdentity) -> User:
    """Load the caller's row into the session of the request."""
    return await users.current(identity)


CurrentUser = Annotated[User, Depends(current_user)]

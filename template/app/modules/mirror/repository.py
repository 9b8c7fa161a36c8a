"""Queries for users by what their provider calls them."""

from sqlalchemy import bindparam
from sqlmodel import col, select

from app.modules.access.schemas import UserDetail
from app.modules.users.models import User
from app.ports.db.records import Repository, select_fields

CALLER = select_fields(User, UserDetail).where(col(User.subject) == bindparam("subject"))


class MirrorRepository(Repository[User]):
    """Finds and adds users of a provider."""

    table = User

    async def by_subject(self, subject: str) -> User | None:
        """Find the user whom an issuer calls so."""
        return (await self.session.exec(select(User).where(User.subject == subject))).one_or_none()

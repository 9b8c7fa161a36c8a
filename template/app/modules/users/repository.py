"""Queries for users."""

from sqlalchemy import bindparam
from sqlmodel import col

from app.modules.users.models import User
from app.modules.users.schemas import UserRead
from app.ports.db.records import Repository, select_fields

USER_BY_ID = select_fields(User, UserRead).where(col(User.id) == bindparam("user_id"))


class UserRepository(Repository[User]):
    """Finds and adds users."""

    table = User

"""The projects table."""

from uuid import UUID

from sqlalchemy import Index
from sqlmodel import Field

from app.ports.db.soft_delete import SoftDeletedRecord


class Project(SoftDeletedRecord, table=True):
    """A project of one user."""

    __tablename__ = "projects"
    # Ids sort by time, so this is also the order of the list: the newest project first.
    __table_args__ = (Index(None, "owner_id", "id"),)

    owner_id: UUID = Field(foreign_key="users.id", ondelete="CASCADE")
    name: str = Field(max_length=200)
    description: str = ""

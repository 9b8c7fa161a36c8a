"""Queries for projects. Every one is for one owner."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import String, bindparam, delete, func
from sqlmodel import col, select

from app.modules.projects.models import Project
from app.modules.projects.schemas import ProjectRead
from app.ports.db.pages import PagedQuery
from app.ports.db.records import select_fields
from app.ports.db.soft_delete import SoftDeletingRepository

_MINE = select_fields(Project, ProjectRead).where(
    col(Project.owner_id) == bindparam("owner_id"), col(Project.deleted_at).is_(None)
)
_NEWEST_FIRST = _MINE.order_by(col(Project.id).desc())

PROJECT_BY_ID = _MINE.where(col(Project.id) == bindparam("project_id"))
ALL_PROJECTS = PagedQuery(_NEWEST_FIRST, ProjectRead)
# The database lowers both sides, so that they always agree. SQLite only knows the case of A to Z.
_TEXT = func.lower(Project.name + " " + Project.description)
_PATTERN = func.lower(bindparam("pattern", type_=String))
MATCHING_PROJECTS = PagedQuery(_NEWEST_FIRST.where(_TEXT.like(_PATTERN, escape="\\")), ProjectRead)


class ProjectRepository(SoftDeletingRepository[Project]):
    """Finds, adds and deletes projects."""

    table = Project

    async def owned(self, owner: UUID) -> Sequence[Project]:
        """List all that somebody owns, also what is marked as deleted."""
        return (await self.session.exec(select(Project).where(Project.owner_id == owner))).all()

    async def erase(self, owner: UUID) -> None:
        """Remove all that somebody owns, also what is marked as deleted."""
        await self.session.exec(delete(Project).where(col(Project.owner_id) == owner))

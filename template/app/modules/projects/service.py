"""Rules for projects: only their owner sees them, and nobody else learns that they exist."""

from typing import Annotated
from uuid import UUID

from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit.errors import NotFound
from app.kit.pagination import Page, PageRequest
from app.modules.projects.models import Project
from app.modules.projects.repository import ALL_PROJECTS, MATCHING_PROJECTS, PROJECT_BY_ID, ProjectRepository
from app.modules.projects.schemas import ProjectCreate, ProjectRead, ProjectUpdate
from app.ports.db.database import Database, with_reads, with_session
from app.ports.db.pages import like_pattern


class ProjectNotFound(NotFound):
    """There is no such project, or it is somebody else's."""

    def __init__(self) -> None:
        super().__init__("There is no such project.")


class ProjectService:
    """Changes projects."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.projects = ProjectRepository(session)

    async def create(self, new: ProjectCreate, *, owner: UUID) -> Project:
        """Add a project for its owner, whose row must be there."""
        return await self.projects.add(Project(owner_id=owner, name=new.name, description=new.description))

    async def update(self, id: UUID, change: ProjectUpdate, *, owner: UUID) -> Project:
        """Change what is given. Raises ProjectNotFound."""
        project = await self._mine(id, owner)
        project.sqlmodel_update(change.model_dump(exclude_unset=True))
        await self.session.flush()
        return project

    async def delete(self, id: UUID, *, owner: UUID) -> None:
        """Mark a project as deleted. Raises ProjectNotFound, also when it has been deleted before."""
        await self.projects.delete(await self._mine(id, owner))

    async def _mine(self, id: UUID, owner: UUID) -> Project:
        project = await self.projects.find(id, col(Project.owner_id) == owner)
        if project is None:
            raise ProjectNotFound
        return project


async def erase(session: AsyncSession, user_id: UUID) -> None:
    """Remove the projects of a user who is going."""
    await ProjectRepository(session).erase(user_id)


async def export(session: AsyncSession, user_id: UUID) -> list[ProjectRead]:
    """Return the projects of a user, also those that are marked as deleted."""
    rows = await ProjectRepository(session).owned(user_id)
    return [ProjectRead.model_validate(row) for row in rows]


class ProjectReader:
    """Reads projects without a transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def page(self, page: PageRequest, *, owner: UUID, matching: str | None = None) -> Page[ProjectRead]:
        """List an owner's projects, the newest first; `matching` searches name and description."""
        if matching:
            return await MATCHING_PROJECTS.fetch(self.database, page, owner_id=owner, pattern=like_pattern(matching))
        return await ALL_PROJECTS.fetch(self.database, page, owner_id=owner)

    async def get(self, id: UUID, *, owner: UUID) -> ProjectRead:
        """Get one project. Raises ProjectNotFound."""
        rows = await self.database.fetch(PROJECT_BY_ID, {"project_id": id, "owner_id": owner})
        if not rows:
            raise ProjectNotFound
        return ProjectRead.model_validate(rows[0])


Projects = Annotated[ProjectService, with_session(ProjectService)]
ProjectReads = Annotated[ProjectReader, with_reads(ProjectReader)]

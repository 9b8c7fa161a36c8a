"""Routes for projects."""

from uuid import UUID

from fastapi import APIRouter

from app.kit.errors import responses
from app.kit.pagination import Page, PageQuery, SearchQuery
from app.modules.projects.models import Project
from app.modules.projects.schemas import ProjectCreate, ProjectRead, ProjectUpdate
from app.modules.projects.service import ProjectReads, Projects
from app.modules.users.service import CurrentUser
from app.ports.identity.identity import CurrentIdentity

router = APIRouter(prefix="/projects", tags=["projects"])


@router.get("", summary="List my projects")
async def list_projects(
    reads: ProjectReads, me: CurrentIdentity, page: PageQuery, q: SearchQuery = None
) -> Page[ProjectRead]:
    """List the caller's projects, the newest first."""
    return await reads.page(page, owner=me.user_id, matching=q)


@router.post("", status_code=201, summary="Create a project", response_model=ProjectRead)
async def create_project(new: ProjectCreate, projects: Projects, me: CurrentUser) -> Project:
    """Create a project that the caller owns."""
    return await projects.create(new, owner=me.id)


@router.get("/{id}", summary="Show a project", responses=responses(404))
async def read_project(id: UUID, reads: ProjectReads, me: CurrentIdentity) -> ProjectRead:
    """Show one of the caller's projects."""
    return await reads.get(id, owner=me.user_id)


@router.patch("/{id}", summary="Change a project", response_model=ProjectRead, responses=responses(404))
async def update_project(id: UUID, change: ProjectUpdate, projects: Projects, me: CurrentIdentity) -> Project:
    """Change one of the caller's projects; what is left out stays as it is."""
    return await projects.update(id, change, owner=me.user_id)


@router.delete("/{id}", status_code=204, summary="Delete a project", responses=responses(404))
async def delete_project(id: UUID, projects: Projects, me: CurrentIdentity) -> None:
    """Delete one of the caller's projects. Its row is kept, marked as deleted."""
    await projects.delete(id, owner=me.user_id)

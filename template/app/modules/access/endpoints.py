"""Routes for admins about users."""

from uuid import UUID

from fastapi import APIRouter

from app.kit.errors import responses
from app.kit.pagination import Page, PageQuery, SearchQuery
from app.modules.access.schemas import ActiveQuery, RoleQuery, UserChange, UserDetail
from app.modules.access.service import CurrentCaller, UserAccess, UserAccessReads
from app.modules.users.models import User

router = APIRouter(prefix="/users", tags=["users"])


@router.get("", summary="List users")
async def list_users(
    reads: UserAccessReads,
    page: PageQuery,
    role: RoleQuery = None,
    is_active: ActiveQuery = None,
    q: SearchQuery = None,
) -> Page[UserDetail]:
    """List all users, the newest first."""
    return await reads.page(page, role=role, is_active=is_active, matching=q)


@router.get("/{id}", summary="Show a user", responses=responses(404))
async def read_user(id: UUID, reads: UserAccessReads) -> UserDetail:
    """Show one user."""
    return await reads.get(id)


@router.patch("/{id}", summary="Change a user", response_model=UserDetail, responses=responses(404, 409))
async def update_user(id: UUID, change: UserChange, access: UserAccess, me: CurrentCaller) -> User:
    """Change the name or the role of a user; what is left out stays as it is. The last admin stays one."""
    return await access.change(id, change, by=me)


@router.post("/{id}/activate", summary="Let a user in", response_model=UserDetail, responses=responses(404))
async def activate_user(id: UUID, access: UserAccess, me: CurrentCaller) -> User:
    """Let a user in again."""
    return await access.set_active(id, True, by=me)


@router.post("/{id}/deactivate", summary="Lock a user out", response_model=UserDetail, responses=responses(404, 409))
async def deactivate_user(id: UUID, access: UserAccess, me: CurrentCaller) -> User:
    """Lock a user out, from their next request on. The last admin stays in."""
    return await access.set_active(id, False, by=me)

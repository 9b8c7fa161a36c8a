"""Routes for users."""

from fastapi import APIRouter

from app.modules.users.models import User
from app.modules.users.schemas import UserRead, UserUpdate
from app.modules.users.service import CurrentUser, UserReads, Users
from app.ports.identity.identity import CurrentIdentity

router = APIRouter(prefix="/users", tags=["users"])


@router.get("/me", summary="Show me")
async def read_me(me: CurrentIdentity, reads: UserReads) -> UserRead:
    """Show the calling user, whose record is made at the first request."""
    return await reads.current(me)


@router.patch("/me", summary="Change me", response_model=UserRead)
async def update_me(change: UserUpdate, me: CurrentUser, users: Users) -> User:
    """Change the calling user's display name."""
    return await users.update(me, change)

"""Routes for jobs."""

from uuid import UUID

from fastapi import APIRouter

from app.kit.errors import responses
from app.modules.tasks.schemas import TaskRead
from app.modules.tasks.service import TaskReads
from app.ports.identity.identity import CurrentIdentity

router = APIRouter(prefix="/tasks", tags=["tasks"])


@router.get("/{id}", summary="Show a task of mine", responses=responses(404))
async def read_task(id: UUID, reads: TaskReads, me: CurrentIdentity) -> TaskRead:
    """Show how one of the caller's jobs is, and what it came to."""
    return await reads.get(id, owner=me.user_id)

"""Rules for jobs: only their owner sees them, and nobody else learns that they exist."""

from typing import Annotated
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit.errors import NotFound
from app.modules.tasks.repository import ALL_TASKS, TASK_BY_ID
from app.modules.tasks.schemas import TaskRead
from app.ports.db.database import Database, with_reads


class TaskNotFound(NotFound):
    """There is no such job, it is somebody else's, or it ended too long ago."""

    def __init__(self) -> None:
        super().__init__("There is no such task.")


class TaskReader:
    """Reads jobs without a transaction."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def get(self, id: UUID, *, owner: UUID) -> TaskRead:
        """Get one job. Raises TaskNotFound."""
        rows = await self.database.fetch(TASK_BY_ID, {"job_id": id, "owner_id": owner})
        if not rows:
            raise TaskNotFound
        return TaskRead.model_validate(rows[0]._mapping)


async def export(session: AsyncSession, user_id: UUID) -> list[TaskRead]:
    """Return the jobs of a user as they see them, without arguments and tracebacks: those may open something."""
    rows = await (await session.connection()).execute(ALL_TASKS, {"owner_id": user_id})
    return [TaskRead.model_validate(row._mapping) for row in rows]


TaskReads = Annotated[TaskReader, with_reads(TaskReader)]

"""What projects let go of, where there are jobs to do so."""

from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlmodel import col

from app.kit.settings import load
from app.modules.projects.models import Project
from app.modules.projects_retention.settings import ProjectRetentionSettings
from app.modules.retention.rules import lets_go
from app.ports.jobs.tasks import Running


@lets_go("deleted projects")
async def forget(job: Running, now: datetime) -> int:
    """Remove the rows of projects that were deleted long ago."""
    before = now - timedelta(days=load(ProjectRetentionSettings).projects_keep_deleted_days)
    async with job.database.session() as session:
        return (await session.exec(delete(Project).where(col(Project.deleted_at) < before))).rowcount

"""What comes again: one process at a time moves a schedule on, and enqueues the job in the same transaction."""

from datetime import datetime

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from app.kit.logging import get_logger
from app.ports.db.database import Database
from app.ports.jobs.models import JobSchedule
from app.ports.jobs.queue import enqueue
from app.ports.jobs.tasks import TASKS, Task

log = get_logger(__name__)


class Schedule:
    """Enqueues crons when their time has come. What was missed while nothing ran is made up for once."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def tick(self, now: datetime) -> datetime | None:
        """Enqueue what is due, and return when the next one is."""
        crons = {task.name: task for task in TASKS.values() if task.cron}
        if not crons:
            return None
        rows = await self.database.fetch(select(JobSchedule.task, JobSchedule.cron, JobSchedule.next_at))
        known: dict[str, tuple[str, datetime]] = {row.task: (row.cron, row.next_at) for row in rows}
        moments: list[datetime] = []
        for name, task in crons.items():
            cron, next_at = known.get(name, ("", now))
            if cron != spelled(task):
                next_at = await self._set(task, cron, now)
            elif next_at <= now:
                next_at = await self._fire(task, next_at, now)
            moments.append(next_at)
        return min(moments)

    async def _set(self, task: Task[[]], before: str, now: datetime) -> datetime:
        """Note when a cron comes next that is new, or was changed."""
        next_at = task.next_after(now)
        try:
            async with self.database.session() as session:
                if before:
                    changed = {"cron": spelled(task), "next_at": next_at}
                    await session.exec(update(JobSchedule).where(col(JobSchedule.task) == task.name).values(**changed))
                else:
                    session.add(JobSchedule(task=task.name, cron=spelled(task), next_at=next_at))
        except IntegrityError:
            log.debug("another process has noted the cron", task=task.name)
        return next_at

    async def _fire(self, task: Task[[]], due: datetime, now: datetime) -> datetime:
        """Move the schedule on, and enqueue the job, unless another process has done so."""
        next_at = task.next_after(now)
        async with self.database.session() as session:
            mine = (col(JobSchedule.task) == task.name) & (col(JobSchedule.next_at) == due)
            moved = await session.exec(update(JobSchedule).where(mine).values(next_at=next_at))
            if moved.rowcount:
                await enqueue(session, task())
        return next_at


def spelled(task: Task[[]]) -> str:
    """Return the expression of a cron with its zone."""
    return f"{task.cron} {task.zone}"

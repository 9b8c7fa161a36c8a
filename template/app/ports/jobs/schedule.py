"""What comes again: one process at a time moves a schedule on, and enqueues the job in the same transaction."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from app.kit.logging import get_logger
from app.ports.db.database import Database
from app.ports.jobs.models import JobSchedule
from app.ports.jobs.queue import enqueue
from app.ports.jobs.tasks import TASKS, Task

# Each process looks more often than that.
OVERLAP = timedelta(minutes=1)
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
        wanted = select(JobSchedule.task, JobSchedule.cron, JobSchedule.next_at, JobSchedule.updated_at)
        known = {row.task: row for row in await self.database.fetch(wanted)}
        moments: list[datetime] = []
        for name, task in crons.items():
            next_at = task.next_after(now)
            if (row := known.get(name)) is None:
                await self._begin(task, next_at, now)
            elif (is_due := _due(task, row, now) <= now) or row.cron != spelled(task):
                await self._move(task, row, next_at, now, fires=is_due)
            else:
                next_at = row.next_at
            moments.append(next_at)
        return min(moments)

    async def _begin(self, task: Task[[]], next_at: datetime, now: datetime) -> None:
        """Note when a cron comes that is new."""
        try:
            async with self.database.session() as session:
                session.add(JobSchedule(task=task.name, cron=spelled(task), next_at=next_at, updated_at=now))
        except IntegrityError:
            log.debug("another process has noted the cron", task=task.name)

    async def _move(self, task: Task[[]], row: Any, next_at: datetime, now: datetime, *, fires: bool) -> None:
        """Note when a cron comes next, and enqueue the job if it is due, unless another process has done so."""
        seen = {"task": task.name, "cron": row.cron, "next_at": row.next_at}
        async with self.database.session() as session:
            changed = {"cron": spelled(task), "next_at": next_at, "updated_at": now}
            moved = await session.exec(update(JobSchedule).filter_by(**seen).values(**changed))
            if moved.rowcount and fires:
                await enqueue(session, task())


def _due(task: Task[[]], row: Any, now: datetime) -> datetime:
    """Return when a cron is due. Two versions may run side by side, and set what each of them has in turn.

    The moments of both come then. What another version has left behind earlier begins anew.
    """
    if row.cron == spelled(task):
        return row.next_at  # type: ignore[no-any-return]
    recent = now - OVERLAP
    return row.next_at if recent < row.next_at <= now else task.next_after(max(row.updated_at, recent))


def spelled(task: Task[[]]) -> str:
    """Return the expression of a cron with its zone."""
    return f"{task.cron} {task.zone}"

"""Queries for reports: what has been reported, whom to tell, and what can be counted without asking a module."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date

from sqlalchemy import delete, func
from sqlmodel import col, select

from app.modules.reports.figures import Period
from app.modules.reports.models import DailyReport
from app.modules.users.models import User
from app.ports.db.records import Repository
from app.ports.identity.bearer import Role
from app.ports.jobs.models import Job, State


class ReportRepository(Repository[DailyReport]):
    """Keeps the newest report, and counts."""

    table = DailyReport

    async def newest(self) -> DailyReport | None:
        """Find the last report."""
        return (await self.session.exec(select(DailyReport).order_by(col(DailyReport.day).desc()).limit(1))).first()

    async def forget(self, before: date) -> None:
        """Remove the reports of earlier days."""
        await self.session.exec(delete(DailyReport).where(col(DailyReport.day) < before))

    async def admins(self) -> Sequence[str]:
        """List the addresses of active admins that are known to be theirs, each once."""
        theirs = col(User.email_verified) & col(User.is_active) & (col(User.role) == Role.ADMIN)
        found = await self.session.exec(select(User.email).where(theirs, col(User.email).is_not(None)))
        return sorted({email.lower() for email in found if email})

    async def new_users(self, period: Period) -> int:
        """Count the users who came in a period and are still there."""
        came = (col(User.created_at) >= period.since) & (col(User.created_at) < period.until)
        return (await self.session.exec(select(func.count()).select_from(User).where(came))).one()

    async def ended(self, state: State, period: Period) -> Mapping[str, int]:
        """Count the jobs that ended so in a period, by their tasks."""
        ended = (col(Job.finished_at) >= period.since) & (col(Job.finished_at) < period.until)
        counted = select(Job.task, func.count()).where(col(Job.state) == state, ended).group_by(Job.task)
        return dict((await self.session.exec(counted.order_by(Job.task))).all())

    async def tried_again(self) -> Mapping[str, int]:
        """Count the jobs that have failed and wait for their next attempt, by their tasks."""
        waiting = (col(Job.state) == State.QUEUED) & col(Job.error).is_not(None)
        counted = select(Job.task, func.count()).where(waiting).group_by(Job.task)
        return dict((await self.session.exec(counted.order_by(Job.task))).all())

    async def results(self, task: str, period: Period) -> Counter[str]:
        """Add up what the jobs of a task came to in a period, which are counts by names."""
        ended = (col(Job.finished_at) >= period.since) & (col(Job.finished_at) < period.until)
        found = select(Job.result).where(Job.task == task, col(Job.state) == State.SUCCEEDED, ended)
        total = Counter[str]()
        for result in (await self.session.exec(found)).all():
            total.update(json.loads(result or "{}"))
        return total

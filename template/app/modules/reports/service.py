"""Rules for the daily report: once a day, in numbers, and in one line when there is nothing to look at."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession

from app.kit.settings import load
from app.modules.reports.figures import Count, Figure, Period
from app.modules.reports.models import DailyReport
from app.modules.reports.repository import ReportRepository
from app.modules.reports.settings import ReportSettings
from app.modules.retention.tasks import clean_up
from app.ports.email.message import Message
from app.ports.email.outbox import Outbox
from app.ports.email.templates import MailTemplates
from app.ports.jobs.models import State
from app.ports.jobs.tasks import TASKS

FIRST = timedelta(days=1)
templates = MailTemplates("reports", Path(__file__).parent / "mails")


def _named(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in counts.items())


async def count_users(session: AsyncSession, period: Period) -> Sequence[Figure]:
    """Count who is new."""
    return [Figure("New users", await ReportRepository(session).new_users(period))]


async def count_jobs(session: AsyncSession, period: Period) -> Sequence[Figure]:
    """Count jobs, and name the tasks of those that fail. What comes by itself is left out where all is well."""
    reports = ReportRepository(session)
    done, dead = await reports.ended(State.SUCCEEDED, period), await reports.ended(State.DEAD, period)
    failed = await reports.tried_again()
    asked_for = [count for name, count in done.items() if name not in TASKS or TASKS[name].cron is None]
    return [
        Figure("Jobs done", sum(asked_for), routine=True),
        Figure("Jobs that failed and are tried again", sum(failed.values()), _named(failed)),
        Figure("Jobs that failed for good", sum(dead.values()), _named(dead)),
    ]


async def count_retention(session: AsyncSession, period: Period) -> Sequence[Figure]:
    """Count what was kept long enough and has gone."""
    gone = await ReportRepository(session).results(clean_up.name, period)
    return [Figure(f"Let go: {what}", count) for what, count in gone.items()]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Count what every service has. Modules that open later add their own."""
    figures: list[Count] = [count_users, count_jobs, count_retention]
    app.state.figures = figures
    yield


class ReportService:
    """Writes reports, in the transaction in which they are noted and mailed."""

    def __init__(self, session: AsyncSession, figures: Sequence[Count]) -> None:
        self.session, self.figures = session, figures
        self.reports, self.settings = ReportRepository(session), load(ReportSettings)

    async def send(self, outbox: Outbox, now: datetime) -> int:
        """Mail what has happened since the last report, unless it is too early or done. Returns how many mails."""
        local = self.settings.local(now)
        if not self.settings.report_enabled or local.hour < self.settings.report_hour:
            return 0
        newest = await self.reports.newest()
        if newest is not None and newest.day >= local.date():
            return 0
        recipients = await self.recipients()
        if not recipients:
            return 0
        # Of two at once the second fails here, and finds the day reported when it is tried again.
        await self.reports.add(DailyReport(day=local.date(), until=now))
        period = Period(newest.until if newest else now - FIRST, now)
        for recipient in recipients:
            await outbox.send_later(self.session, await self.write(recipient, period))
        await self.reports.forget(local.date())
        return len(recipients)

    async def recipients(self) -> Sequence[str]:
        """List the addresses that get reports."""
        return [self.settings.report_to] if self.settings.report_to else await self.reports.admins()

    async def write(self, to: str, period: Period) -> Message:
        """Write the report of a period."""
        found = [figure for count in self.figures for figure in await count(self.session, period) if figure.count]
        return templates.compose(
            "daily",
            to=to,
            since=f"{self.settings.local(period.since):%Y-%m-%d %H:%M}",
            until=f"{self.settings.local(period.until):%Y-%m-%d %H:%M %Z}",
            day=f"{self.settings.local(period.until):%Y-%m-%d}",
            figures=found,
            eventful=not all(figure.routine for figure in found),
        )


async def check(app: FastAPI) -> str:
    """Tell how many get reports, and which one was the last."""
    async with app.state.database.session() as session:
        service = ReportService(session, ())
        recipients, newest = await service.recipients(), await service.reports.newest()
    if not service.settings.report_enabled:
        return "not sent: REPORT_ENABLED is false"
    if not recipients:
        return "nobody gets it: no active admin has a verified address, and REPORT_TO is empty"
    last = f"the last one was of {newest.day}" if newest else "none was sent yet"
    return f"goes to {len(recipients)} from {service.settings.report_hour}:00 {service.settings.report_zone} on; {last}"

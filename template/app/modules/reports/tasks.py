"""The job of the daily report."""

from app.kit import clock
from app.modules.reports.service import ReportService
from app.ports.jobs.tasks import Running, task


# Each hour, because which one is meant is a setting, and what has been missed is made up for on the same day.
@task(cron="0 * * * *")
async def send_daily(job: Running) -> None:
    """Mail the report of the day, once, when its hour has come."""
    async with job.ending() as session:
        await ReportService(session, job.app.state.figures).send(job.app.state.outbox, clock.now())

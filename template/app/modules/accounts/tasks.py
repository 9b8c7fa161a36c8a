"""What accounts let go of."""

from datetime import datetime

from app.modules.accounts.repository import MailTokenRepository, SessionRepository
from app.modules.retention.rules import lets_go
from app.ports.jobs.tasks import Running


@lets_go("sessions that have ended")
async def forget(job: Running, now: datetime) -> int:
    """Remove sessions that have ended, with their tokens, and links of mails that have expired. Counts the sessions."""
    async with job.database.session() as session:
        await MailTokenRepository(session).forget_expired(now)
        return await SessionRepository(session).forget_all_ended(now)

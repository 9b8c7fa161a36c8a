"""The one job that follows the rules."""

from datetime import timedelta

from app.kit import clock
from app.kit.logging import get_logger
from app.modules.retention.rules import RULES
from app.ports.jobs.tasks import Running, task

log = get_logger(__name__)


class RulesFailed(Exception):
    """Some rules could not be followed; the others were."""


@task(cron="23 * * * *", attempts=3, timeout=timedelta(minutes=30))
async def clean_up(job: Running) -> dict[str, int]:
    """Let go of what is too old, and count it by its name. Raises RulesFailed, after all that can be done."""
    counts, failed, now = {}, [], clock.now()
    for done, (what, rule) in enumerate(RULES.items()):
        job.report(done / len(RULES), what)
        try:
            counts[what] = await rule(job, now)
        except Exception:
            log.exception("retention failed", of=what)
            failed.append(what)
    if gone := {what: count for what, count in counts.items() if count}:
        log.info("retention", gone=gone)
    if failed:
        raise RulesFailed(", ".join(failed))
    return counts

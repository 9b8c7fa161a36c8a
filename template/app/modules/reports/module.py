"""The daily report, as a part of the service."""

from app.kit.module import HealthCheck, Module
from app.modules.reports import tasks  # noqa: F401
from app.modules.reports.commands import commands
from app.modules.reports.models import DailyReport
from app.modules.reports.service import check, lifespan
from app.modules.reports.settings import ReportSettings

reports = Module(
    name="reports",
    tables=[DailyReport],
    settings=[ReportSettings],
    lifespan=lifespan,
    health_checks=[HealthCheck("reports", check, advice="Look at the database.", critical=False)],
    commands=commands,
)

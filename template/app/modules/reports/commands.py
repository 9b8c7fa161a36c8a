"""Commands about the daily report."""

import asyncio
from collections.abc import Callable
from pkgutil import resolve_name

import typer
from fastapi import FastAPI

from app.kit import clock
from app.kit.logging import LogSettings, configure_logging
from app.kit.settings import load
from app.modules.reports.figures import Period
from app.modules.reports.service import FIRST, ReportService
from app.ports.email.email import EmailSettings

commands = typer.Typer(name="reports", no_args_is_help=True, help="Look at the daily report.")


@commands.callback()
def reports() -> None:
    """Be a group, also with one command."""


@commands.command()
def show(context: typer.Context) -> None:
    """Write what the report would say now, and send nothing."""
    create_app: Callable[[], FastAPI] = resolve_name(context.obj)
    app = create_app()
    app.state.works = False
    configure_logging(LogSettings(log_level="ERROR"), production=False)

    async def write() -> str:
        async with app.router.lifespan_context(app), app.state.database.session() as session:
            service, now = ReportService(session, app.state.figures), clock.now()
            newest = await service.reports.newest()
            period = Period(newest.until if newest else now - FIRST, now)
            return (await service.write(load(EmailSettings).email_from, period)).text

    typer.echo(asyncio.run(write()))

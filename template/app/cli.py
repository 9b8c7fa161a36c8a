"""The command line: serve the service, and look into it."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from rich.console import Console
from rich.table import Table

from app.kit.logging import LogSettings, configure_logging
from app.kit.settings import CoreSettings, SettingsError, describe, env_file, load, write_secrets

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Run the service.")
console = Console()
errors = Console(stderr=True)


def _create_app() -> FastAPI:
    """Import the application when a command needs it, so that `app --help` answers at once."""
    from app.main import create_app

    return create_app()


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on. Default: PORT.")] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when a file changes.")] = False,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C; requests that are running may end."""
    import uvicorn

    settings = load(CoreSettings)
    if not reload:
        _create_app()
        # uvicorn raises the signal again when it has shut down in good order; that is no failure.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=host or settings.host,
        port=port or settings.port,
        reload=reload,
        log_config=None,
        access_log=False,
        server_header=False,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_graceful_shutdown=settings.graceful_shutdown_seconds,
    )


@cli.command()
def doctor() -> None:
    """Check the settings and everything that the service needs, and say what to do. Exits with 1 for a problem."""
    from app.installed import MODULES
    from app.modules.health.service import probe

    app = _create_app()
    configure_logging(LogSettings(log_level="WARNING"), production=False)
    console.print("[green]ok[/]    settings")

    console.print(f"[green]ok[/]    modules: {', '.join(module.name for module in MODULES)}")

    async def examine() -> bool:
        async with app.router.lifespan_context(app):
            found = [(await probe(check, app), check.advice) for check in app.state.health_checks]
            for dependency, advice in found:
                state = "[green]ok[/]  " if dependency.status == "up" else "[red]away[/]"
                hint = f"{dependency.latency_ms} ms" if dependency.status == "up" else f"{dependency.error}. {advice}"
                console.print(f"{state}  {dependency.name}: {hint}")
            if any(dependency.status == "down" for dependency, _ in found):
                return False
            status = await app.state.database.migration_status()
            if status != "up_to_date":
                console.print(f"[red]{status}[/]  migrations: run `alembic upgrade head`.")
                return False
            console.print("[green]ok[/]    migrations")
            return True

    if not asyncio.run(examine()):
        raise typer.Exit(1)


@cli.command()
def routes() -> None:
    """List every route with its operation id."""
    table = Table("Methods", "Path", "Operation", box=None)
    for route in iter_route_contexts(_create_app().routes):
        if isinstance(route.original_route, APIRoute):
            table.add_row(",".join(sorted(route.methods or ())), route.path, route.unique_id)
    console.print(table)


@cli.command()
def settings(
    env_example: Annotated[bool, typer.Option("--env-example", help="Print what .env.example holds.")] = False,
    write_env: Annotated[bool, typer.Option("--write-env", help="Make .env, or add the secrets it lacks.")] = False,
) -> None:
    """Show every setting, its default and whether it is set. Secrets are never shown."""
    from app.main import settings_classes

    classes = settings_classes()
    if write_env:
        return write_secrets(Path(".env"), classes)
    if env_example:
        return typer.echo(env_file(classes), nl=False)
    table = Table("Setting", "Value", "Set", "What it is", box=None)
    for cls in classes:
        values = load(cls)
        for field, setting in zip(cls.model_fields, describe(cls), strict=True):
            value = getattr(values, field)
            shown = "" if value is None else "***" if setting.secret else str(value)
            table.add_row(setting.name, shown, "yes" if field in values.model_fields_set else "", setting.description)
    return console.print(table)


def main() -> None:
    """Run the command line. Wrong settings end with one sentence for each, and exit status 2."""
    from app.installed import MODULES

    for module in MODULES:
        if module.commands is not None:
            cli.add_typer(module.commands, name=module.name)
    try:
        cli()
    except SettingsError as error:
        errors.print(f"The settings are not right:\n{error}", style="red", markup=False, highlight=False)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

"""The command line: serve the service, and look into it. A command imports the application when it needs it."""

import asyncio
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from fastapi.routing import APIRoute, iter_route_contexts
from rich.console import Console
from rich.table import Column, Table

from app.kit.logging import LogSettings, configure_logging, redact_text
from app.kit.settings import CoreSettings, SettingsError, describe, env_file, load, strangers, write_secrets, written

cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Run the service.")
# In a pipe, lines are as long as they need to be.
console = Console(width=None if sys.stdout.isatty() else 10_000, markup=False, emoji=False, highlight=False)


def _tell(state: str, text: str) -> None:
    """Print one finding."""
    console.print(f"{state:8}{text}", style="green" if state == "ok" else "red")


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on. Default: PORT.")] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew when a file changes.")] = False,
) -> None:
    """Serve the API until SIGTERM or Ctrl-C; requests that are running may end."""
    import uvicorn

    from app.installed import WEBSOCKETS
    from app.main import create_app

    # Wrong settings end here and not in another process, and uvicorn's own lines go where the logs go.
    create_app()
    settings = load(CoreSettings)
    host, port = host or settings.host, port or settings.port
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        raise SettingsError(f"PORT: something listens on {host}:{port} already. Stop it, or take another with --port.")
    if not reload:
        # uvicorn raises the signal again when it has shut down in good order; that is no failure.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=host,
        port=port,
        reload=reload,
        log_config=None,
        lifespan="on",  # "auto" would serve on without it when a middleware fails there.
        ws=WEBSOCKETS,
        server_header=False,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_graceful_shutdown=settings.graceful_shutdown_seconds,
    )


@cli.command()
def doctor() -> None:
    """Check the settings and everything that the service needs, and say what to do. Exits with 1 for a problem."""
    from app.installed import MODULES
    from app.main import create_app, settings_classes
    from app.modules.health.service import CHECK_TIMEOUT_SECONDS

    if unknown := strangers(Path(".env"), settings_classes()):
        _tell("unknown", f".env: no setting is called {', '.join(unknown)}. `app settings` lists them all.")
    app = create_app()
    app.state.works = False  # It only looks: what a process does beside serving is left to others.
    configure_logging(LogSettings(log_level="ERROR"), production=False)
    _tell("ok", f"settings of {', '.join(module.name for module in MODULES)}")

    async def examine() -> bool:
        problems: list[str] = []
        async with app.router.lifespan_context(app):
            for check in app.state.health_checks:
                try:
                    async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
                        remark = await check.check(app)
                    _tell("ok", f"{check.name}: {remark if isinstance(remark, str) else 'up'}")
                except Exception as error:
                    while isinstance(error.__cause__, Exception):
                        error = error.__cause__
                    reason = redact_text(" ".join(f"{type(error).__name__}: {error}".split())).rstrip(":. ")
                    advice = "See above." if reason in problems else check.advice
                    problems.append(reason)
                    _tell("problem", f"{check.name}: {reason}. {advice}")
            return not problems

    raise typer.Exit(int(not asyncio.run(examine())))


@cli.command()
def routes() -> None:
    """List every route with its operation id."""
    from app.main import create_app, operation_id

    table = Table("Methods", "Path", "Operation", box=None)
    for route in iter_route_contexts(create_app().routes):
        if isinstance(route.original_route, APIRoute):
            table.add_row(",".join(sorted(route.methods or ())), route.path, operation_id(route.original_route))
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
    table = Table(Column("Setting", no_wrap=True), "Value", "Default", "Set", "What it is", box=None)
    for cls in classes:
        values = load(cls)
        for field, setting in zip(cls.model_fields, describe(cls), strict=True):
            is_set = "yes" if field in values.model_fields_set else ""
            table.add_row(setting.name, written(getattr(values, field)), setting.default, is_set, setting.description)
    return console.print(table)


def main() -> None:
    """Run the command line. Wrong settings end with one sentence for each, and exit status 2."""
    from app.installed import MODULES

    for module in MODULES:
        if module.commands is not None:
            cli.add_typer(module.commands, name=module.commands.info.name or module.name)
    try:
        cli(obj="app.main:create_app")
    except SettingsError as error:
        typer.secho("\n".join(dict.fromkeys(f"The settings are not right:\n{error}".splitlines())), fg="red", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()

"""Commands about jobs: look at them, try again what has failed for good, and remove what nobody wants."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, TypeVar
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from app.kit.settings import load
from app.ports.db.database import Database, DatabaseSettings
from app.ports.jobs.models import State
from app.ports.jobs.store import JobStore

SHOWN = (
    *("id", "task", "queue", "owner_id", "unique_key", "state", "attempts", "most_attempts", "created_at", "run_at"),
    *("lease_until", "finished_at", "progress", "note", "result", "error"),
)
commands = typer.Typer(name="jobs", no_args_is_help=True, help="Look at jobs, try them again, or remove them.")
Found = TypeVar("Found")


def _ask(question: Callable[[JobStore], Awaitable[Found]]) -> Found:
    async def answer() -> Found:
        database = Database.open(load(DatabaseSettings))
        try:
            return await question(JobStore(database, timedelta()))
        finally:
            await database.close()

    return asyncio.run(answer())


def _refuse(sentence: str) -> typer.Exit:
    typer.secho(sentence, fg="red", err=True)
    return typer.Exit(1)


def _how_it_is(id: UUID | None) -> str:
    job = _ask(lambda store: store.find(id)) if id else None
    return f"This job is {job.state}." if job else "There is no such job."


@commands.command("list")
def list_jobs(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    most: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
) -> None:
    """List jobs, the newest first."""
    table = Table("Id", "Task", "Queue", "State", "Attempts", "Made", "Error", box=None)
    for row in _ask(lambda store: store.newest(state, most)):
        made = f"{row.created_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(str(row.id), row.task, row.queue, row.state, str(row.attempts), made, row.error or "")
    Console(width=200, markup=False, emoji=False, highlight=False).print(table)


@commands.command()
def show(id: Annotated[UUID, typer.Argument(help="The id of a job.")]) -> None:
    """Show a job, with the traceback of its last failure. Its arguments are not shown."""
    job = _ask(lambda store: store.find(id))
    if job is None:
        raise _refuse("There is no such job.")
    for name in SHOWN:
        if (value := getattr(job, name)) is not None:
            typer.echo(f"{name:15}{value}")
    if job.traceback:
        typer.echo(f"\n{job.traceback}")


@commands.command()
def retry(
    id: Annotated[UUID | None, typer.Argument(help="The id of a dead job.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All dead jobs.")] = False,
) -> None:
    """Queue a dead job again, with all its attempts before it."""
    if (id is None) != every:
        raise _refuse("Name a job, or say --all.")
    done = _ask(lambda store: store.retry(id))
    if not done and not every:
        raise _refuse(_how_it_is(id))
    typer.echo(f"{done} queued again.")


@commands.command()
def drop(
    id: Annotated[UUID | None, typer.Argument(help="The id of a job.")] = None,
    task: Annotated[str | None, typer.Option(help="All jobs of a task, such as one that is no longer there.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a queued or dead job, or all of a task, for good. One that runs stays."""
    if (id is None) == (task is None):
        raise _refuse("Name a job, or a task with --task.")
    if not yes:
        typer.confirm(f"Remove {'this job' if id else f'the queued and dead jobs of {task}'} for good?", abort=True)
    done = _ask(lambda store: store.drop(id, task))
    if not done:
        raise _refuse(_how_it_is(id) if id else "There is no such job that is queued or dead.")
    typer.echo(f"{done} removed.")

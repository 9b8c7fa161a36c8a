"""Commands about messages of the contact form: read them, and delete what somebody wants deleted."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from app.kit.settings import load
from app.modules.contact.repository import ContactRepository
from app.ports.db.database import Database, DatabaseSettings

commands = typer.Typer(name="contact", no_args_is_help=True, help="Read what the contact form has brought.")
Found = TypeVar("Found")


def _ask(question: Callable[[ContactRepository], Awaitable[Found]]) -> Found:
    async def answer() -> Found:
        database = Database.open(load(DatabaseSettings))
        try:
            async with database.session() as session:
                return await question(ContactRepository(session))
        finally:
            await database.close()

    return asyncio.run(answer())


@commands.command("list")
def list_messages(most: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20) -> None:
    """List messages, the newest first."""
    table = Table("Id", "Came", "Name", "E-mail", "Subject", box=None)
    for row in _ask(lambda messages: messages.newest(most)):
        came = f"{row.created_at:%Y-%m-%d %H:%M}"
        table.add_row(str(row.id), came, row.name or "", row.email or "", row.subject or "")
    Console(width=200, markup=False, emoji=False, highlight=False).print(table)


@commands.command()
def show(id: Annotated[UUID, typer.Argument(help="The id of a message.")]) -> None:
    """Show a message."""
    row = _ask(lambda messages: messages.find(id))
    if row is None:
        typer.secho("There is no such message.", fg="red", err=True)
        raise typer.Exit(1)
    own = {"came": row.created_at, "name": row.name, "email": row.email, "subject": row.subject}
    for name, value in {**own, **json.loads(row.more)}.items():
        if value is not None:
            typer.echo(f"{name}: {value}")
    typer.echo(f"\n{row.message}")


@commands.command()
def erase(email: Annotated[str, typer.Argument(help="The address that messages give.")]) -> None:
    """Delete all messages that give an address, as its owner may ask. Mails that were sent are not touched."""
    typer.echo(f"{_ask(lambda messages: messages.erase(email))} deleted.")

"""Commands about API keys: one that has leaked is taken back, whoever found it."""

import asyncio
from typing import Annotated

import typer

from app.kit.settings import load
from app.modules.api_keys.models import ApiKey
from app.modules.api_keys.service import ApiKeyService
from app.ports.db.database import Database, DatabaseSettings

commands = typer.Typer(name="api-keys", no_args_is_help=True, help="Take API keys back.")


@commands.callback()
def group() -> None:
    """Take API keys back."""


@commands.command()
def revoke(
    key: Annotated[
        str,
        typer.Option(prompt="The key or its id", hide_input=True, help="Left out, it is asked for: shells keep it."),
    ],
) -> None:
    """Revoke a key that was found where it should not be."""

    async def change() -> ApiKey | None:
        database = Database.open(load(DatabaseSettings))
        try:
            async with database.session() as session:
                return await ApiKeyService(session).revoke_found(key.strip())
        finally:
            await database.close()

    row = asyncio.run(change())
    if row is None:
        typer.secho("There is no such key, or it has been revoked.", fg="red", err=True)
        raise typer.Exit(1)
    typer.echo(f"{row.hint}... ({row.name}) of the user {row.user_id} is revoked.")

"""The command for who has lost everything but the password."""

import asyncio
from typing import Annotated

import typer

from app.kit.settings import load
from app.modules.accounts.repository import CREDENTIALS_BY_ADDRESS, Credentials
from app.modules.mfa.service import reset_factors
from app.ports.db.database import Database, DatabaseSettings

commands = typer.Typer(name="mfa", no_args_is_help=True, help="Take second factors away.")


@commands.callback()
def group() -> None:
    """Take second factors away."""


@commands.command()
def reset(
    email: Annotated[str, typer.Argument(help="The address of the account. Be sure that it is its owner who asks.")],
) -> None:
    """Remove the second factor of an account whose owner has lost it, and end its sessions."""

    async def change() -> bool:
        database = Database.open(load(DatabaseSettings))
        try:
            rows = await database.fetch(CREDENTIALS_BY_ADDRESS, {"address": email.lower()})
            for row in rows:
                async with database.session() as session:
                    await reset_factors(session, Credentials.model_validate(row, from_attributes=True))
            return bool(rows)
        finally:
            await database.close()

    if not asyncio.run(change()):
        typer.secho(f"There is no account of {email}.", fg="red", err=True)
        raise typer.Exit(1)
    typer.echo(f"{email} signs in with the password alone, until a second factor is added again.")

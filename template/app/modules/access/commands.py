"""Commands about access: somebody has to be the first admin."""

import asyncio
from typing import Annotated

import typer

from app.kit.settings import load
from app.modules.access.service import AccessService
from app.modules.users.models import User
from app.ports.db.database import Database, DatabaseSettings

commands = typer.Typer(no_args_is_help=True, help="Say who may do what.")


@commands.callback()
def group() -> None:
    """Say who may do what."""


@commands.command()
def make_admin(
    who: Annotated[str, typer.Argument(help="The subject of a user, their id, or their verified e-mail address.")],
) -> None:
    """Make a user an admin. They must have signed in once."""

    async def change() -> User | None:
        database = Database.open(load(DatabaseSettings))
        try:
            async with database.session() as session:
                return await AccessService(session).make_admin(who)
        finally:
            await database.close()

    user = asyncio.run(change())
    if user is None:
        told = f"There is no such user: {who}. Give the id, the subject or the verified address of one user."
        typer.secho(told, fg="red", err=True)
        raise typer.Exit(1)
    typer.echo(f"{user.email or user.subject} is an admin.")

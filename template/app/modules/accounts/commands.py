"""Commands about users: somebody has to be the first admin, and nobody is one by default."""

import asyncio
from typing import Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from app.kit.errors import AppError
from app.kit.settings import load
from app.modules.accounts.passwords import Passwords
from app.modules.accounts.schemas import EmailRequest, NewAccount
from app.modules.accounts.service import AccountExists, AccountService, secret
from app.modules.accounts.settings import AccountSettings
from app.ports.db.database import Database, DatabaseSettings
from app.ports.identity.bearer import Role

Typed = TypeVar("Typed", bound=BaseModel)


class NewAdmin(NewAccount, EmailRequest):
    """Who is to be an admin."""


commands = typer.Typer(name="users", no_args_is_help=True, help="Make users.")


@commands.callback()
def group() -> None:
    """Make users."""


@commands.command()
def create_admin(
    email: Annotated[str, typer.Argument(help="The address that they sign in with.")],
    name: Annotated[str | None, typer.Option(help="Their name.")] = None,
) -> None:
    """Make a user who is an admin. The password is asked for, and is never an argument that others could see."""
    valid(EmailRequest, email=email)
    password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)

    new = valid(NewAdmin, email=email, password=password, display_name=name)

    async def create() -> None:
        address = new.email.lower()
        password_hash = await Passwords(load(AccountSettings)).hash(secret(new.password), known=(address, name))
        database = Database.open(load(DatabaseSettings))
        try:
            async with database.session() as session:
                await AccountService.create(session, address, password_hash, name=new.display_name, role=Role.ADMIN)
        finally:
            await database.close()

    try:
        asyncio.run(create())
    except AccountExists:
        raise refusal(f"There is an account of {email}. To make it an admin's: app access make-admin {email}") from None
    except AppError as error:
        raise refusal(error.detail) from None
    typer.echo(f"{email} is an admin.")


def valid(schema: type[Typed], **values: str | None) -> Typed:
    """Check what was typed. Raises typer.Exit with a line for each mistake."""
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        lines = (f"{it['loc'][0]}: {it['msg'].removeprefix('Value error, ')}" for it in error.errors())
        raise refusal("\n".join(lines)) from None


def refusal(sentence: str) -> typer.Exit:
    """Say why nothing was made."""
    typer.secho(sentence, fg="red", err=True)
    return typer.Exit(1)

"""Commands about Supabase: a project has to be told where this service is."""

import base64
import secrets
from typing import Annotated

import typer

from app.modules.supabase.service import trigger_sql
from app.modules.supabase.settings import signing_secret
from app.ports.identity.provider import is_address

commands = typer.Typer(no_args_is_help=True, help="Connect a project of Supabase.")


@commands.callback()
def group() -> None:
    """Connect a project of Supabase."""


@commands.command()
def trigger(
    url: Annotated[str, typer.Argument(help="Where the project reaches this service: https://api.example.com")],
) -> None:
    """Print the SQL for the project's editor that makes it tell of users who change. It holds the signing secret."""
    # Two dollars would end the text of the function.
    if not is_address(url, https=False) or "$" in url:
        typer.secho(f"{url} is not an address that starts with https:// or http:// and has no $.", fg="red", err=True)
        raise typer.Exit(1)
    known = signing_secret()
    secret = known.get_secret_value() if known else f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    if known is None:
        typer.secho(f"Put this into .env first:\nSUPABASE_WEBHOOK_SECRET={secret}\n", err=True)
    typer.echo(trigger_sql(f"{url.rstrip('/')}/api/v1/public/webhooks/supabase", secret), nl=False)

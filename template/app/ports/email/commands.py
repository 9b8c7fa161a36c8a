"""Commands about mails: send one to oneself, and look at those there are."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from app.kit.settings import load
from app.ports.email.email import EmailSettings, open_email
from app.ports.email.message import EmailFailed, Message
from app.ports.email.templates import MailTemplates, mails

commands = typer.Typer(no_args_is_help=True, help="Try the mails that this service sends.")


def _refuse(sentence: str) -> typer.Exit:
    typer.secho(sentence, fg="red", err=True)
    return typer.Exit(1)


@commands.command()
def test(to: Annotated[str, typer.Argument(help="An address of yours.")]) -> None:
    """Send a test mail as EMAIL_PROVIDER says, and tell whether it was taken. Exits with 1 when it was not."""
    settings = load(EmailSettings)
    try:
        message = mails.compose("test", to=to, provider=settings.email_provider)
    except ValueError:
        raise _refuse(f"{to} is no e-mail address.") from None

    async def send(message: Message) -> None:
        provider = open_email(settings)
        try:
            await provider.send(message)
        finally:
            await provider.close()

    try:
        asyncio.run(send(message))
    except EmailFailed as error:
        raise _refuse(f"{settings.email_provider} did not take it: {error}") from None
    if settings.email_provider == "console":
        typer.echo("Nothing was sent: EMAIL_PROVIDER is console.")
    else:
        typer.echo(f"{settings.email_provider} took it for {to}. Whether it arrives, only the mailbox tells.")


@commands.command()
def preview(
    name: Annotated[str | None, typer.Argument(help="A mail, such as email/test. Default: all of them.")] = None,
    value: Annotated[list[str] | None, typer.Option(help="What to fill in, as name=value.")] = None,
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path("data/mails"),
) -> None:
    """Write mails as files to look at: the HTML, and the text beside it. What is not filled in stands in braces."""
    values = dict(pair.partition("=")[::2] for pair in value or [])
    known = {
        f"{module}/{mail}": templates for module, templates in MailTemplates.known.items() for mail in templates.names
    }
    if name is not None and name not in known:
        raise _refuse(f"There is no mail {name}. There are {', '.join(known)}.")
    for full, templates in known.items():
        if name in {None, full}:
            message = templates.preview(full.partition("/")[2], values)
            path = folder / full
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".html").write_text(message.html or "", encoding="utf-8")
            path.with_suffix(".txt").write_text(f"Subject: {message.subject}\n\n{message.text}", encoding="utf-8")
            typer.echo(f"{path}.html and .txt: {message.subject}")

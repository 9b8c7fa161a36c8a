"""Rules for who deletes an account of the service: they know its password, and its address is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from pydantic import SecretStr
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.modules.access.service import Caller
from app.modules.accounts.service import WrongPassword, accounts_for, sessions_for, throttle_for
from app.modules.privacy.service import Parting
from app.ports.email.templates import MailTemplates

templates = MailTemplates("privacy", Path(__file__).parent / "mails")


async def confirm_by_password(connection: HTTPConnection, me: Caller, password: SecretStr | None) -> Parting:
    """Let only who knows the password delete the account. Raises WrongPassword."""
    if password is None:
        raise WrongPassword
    accounts = await accounts_for(connection, await sessions_for(connection), await throttle_for(connection))
    known = await accounts.confirmed(me, password)

    async def part(session: AsyncSession) -> str:
        await accounts.unchanged(session, known, WrongPassword())
        await accounts.outbox.send_later(session, templates.compose("account_deleted", to=known.address))
        return "Your account is deleted, with all that was yours."

    return part


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Ask for the password, also of who is signed in."""
    app.state.confirm_erasure = confirm_by_password
    yield

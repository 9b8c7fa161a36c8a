"""E-mail, as a part of the service."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.kit.module import HealthCheck, Module
from app.kit.sealing import Sealing, SealingSettings
from app.kit.settings import load
from app.ports.email.commands import commands
from app.ports.email.email import EmailSettings, open_email
from app.ports.email.message import Email, EmailFailed
from app.ports.email.outbox import PURPOSE, Outbox

GOOD_FOR_SECONDS = 300.0
BAD_FOR_SECONDS = 30.0


class ProviderCheck:
    """Asks the provider, and remembers what it says: readiness is asked often, and should not ask others as often."""

    def __init__(self, provider: Email) -> None:
        self.provider = provider
        self._turn = asyncio.Lock()
        self._until = 0.0
        self._found: str | None = None
        self._failed: str | None = None

    def forget(self) -> None:
        """Ask again next time."""
        self._until = 0.0

    async def __call__(self) -> str | None:
        """Return the provider's remark, or raise EmailFailed."""
        async with self._turn:
            if time.monotonic() >= self._until:
                # Until there is an answer: who asks may give up before it comes.
                self._failed, self._until = "no answer in time", time.monotonic() + BAD_FOR_SECONDS
                try:
                    self._found = await self.provider.check()
                    self._failed, self._until = None, time.monotonic() + GOOD_FOR_SECONDS
                except EmailFailed as error:
                    self._failed = str(error)
        if self._failed is not None:
            raise EmailFailed(self._failed)
        return self._found


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the provider, and the outbox that jobs send with."""
    provider = open_email(load(EmailSettings))
    app.state.outbox = Outbox(provider, Sealing(load(SealingSettings).secrets, PURPOSE))
    app.state.email_check = ProviderCheck(provider)
    try:
        yield
    finally:
        await provider.close()


async def check(app: FastAPI) -> str | None:
    """Find out whether the provider would take mails."""
    found: str | None = await app.state.email_check()
    return found


email = Module(
    name="email",
    settings=(EmailSettings, SealingSettings),
    lifespan=lifespan,
    health_checks=(
        HealthCheck("email", check, advice="Check EMAIL_PROVIDER and the settings that it needs.", critical=False),
    ),
    commands=commands,
)

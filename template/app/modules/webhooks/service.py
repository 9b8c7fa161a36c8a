"""Rules for webhooks: they are signed by who they say, have just been sent, and are taken once."""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, NoReturn

from fastapi import FastAPI, Request
from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError
from sqlmodel.ext.asyncio.session import AsyncSession
from standardwebhooks import Webhook, WebhookVerificationError

from app.kit import clock
from app.kit.errors import AppError
from app.kit.limits import RateLimiter, client_key
from app.kit.logging import get_logger
from app.kit.module import HealthCheck, Tier
from app.modules.webhooks.models import WebhookReceipt
from app.modules.webhooks.repository import ReceiptRepository
from app.ports.db.database import with_session

KEPT = timedelta(days=30)
# What the document says of a body that is read as it comes: its signature is over these very bytes.
BODY = {"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}}
_sane_id = re.compile(r"[\x21-\x7e]{1,255}").fullmatch
log = get_logger(__name__)


class SignatureRefused(AppError):
    """The message is not known to be from who should have sent it."""

    status = 401
    code = "invalid_signature"
    headers: Mapping[str, str] = {"WWW-Authenticate": "Webhook"}


class TooManyRefused(AppError):
    """Somebody sends what is not signed, or with a secret that is no good any more."""

    status = 429

    def __init__(self, reset: float) -> None:
        super().__init__("Too many messages from this address were refused. Check the secret, and wait a while.")
        self.headers = {"Retry-After": str(max(1, round(reset - time.time())))}


class NoEvent(AppError):
    """The message is signed, and does not say what it should."""

    status = 400
    code = "no_event"


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody has sent, verified and not read yet."""

    id: str
    body: bytes


async def refuse(request: Request, sentence: str, reason: str = "") -> NoReturn:
    """Refuse a message, and count it for its address. What is signed is taken from there all the same."""
    limiter: RateLimiter = request.app.state.limiter
    if limiter.enabled:
        address = client_key(request.client.host) if request.client else "unknown"
        verdict = await limiter.count(limiter.default, limiter.default.key_for("webhooks", address))
        if verdict.used > verdict.limit:
            raise TooManyRefused(verdict.reset)
    log.warning("webhook refused", path=request.url.path, reason=reason or sentence)
    raise SignatureRefused(sentence)


def verified(
    secret: Callable[[], SecretStr | None], *, headers: str = "webhook"
) -> Callable[[Request], Awaitable[Message]]:
    """Make the dependency that reads a message and its signature, whose headers begin in some way."""

    async def read(request: Request) -> Message:
        signing = secret()
        if signing is None:
            await refuse(request, "No message can be verified here: no signing secret is set.")
        given = {name: request.headers.getlist(f"{headers}-{name}") for name in ("id", "timestamp", "signature")}
        if any(len(values) != 1 for values in given.values()) or not _sane_id(given["id"][0]):
            await refuse(request, f"A message has one header each {headers}-id, -timestamp and -signature.")
        body = await request.body()
        try:
            Webhook(signing.get_secret_value()).verify(
                body, {f"webhook-{name}": values[0] for name, values in given.items()}, json_parse=False
            )
        except (WebhookVerificationError, ValueError) as error:
            await refuse(request, "The signature is wrong, or was made more than five minutes ago.", str(error))
        return Message(given["id"][0], body)

    return read


def secret_check(setting: str, secret: Callable[[], SecretStr | None]) -> HealthCheck:
    """Make the check that says when nothing can be taken, because there is no secret."""

    async def check(app: FastAPI) -> str | None:
        return None if secret() else f"no event is taken yet: {setting} is empty"

    return HealthCheck("webhooks", check, advice=f"Set {setting}.", critical=False)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Let messages come as fast as they are sent: some are sent once, and users can make their provider send many."""
    limiter: RateLimiter = app.state.limiter
    covers = limiter.covers
    limiter.covers = lambda path: covers(path) and not path.startswith(f"{Tier.PUBLIC}/webhooks/")
    yield


class ReceiptService:
    """Remembers what has come, in the transaction in which it takes effect."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self.receipts = ReceiptRepository(session)

    async def is_new(self, source: str, message: Message) -> bool:
        """Tell whether a message comes for the first time. Of two that come at once, the second one waits."""
        try:
            async with self.session.begin_nested():
                await self.receipts.add(WebhookReceipt(source=source, message_id=message.id))
        except IntegrityError:
            log.info("webhook came again", source=source, message=message.id)
            return False
        await self.receipts.forget(source, clock.now() - KEPT)
        return True


Receipts = Annotated[ReceiptService, with_session(ReceiptService)]

"""Rules for the contact form: anybody may send one, so everything is counted and nothing that is given is believed."""

import json
import time
from datetime import timedelta
from hashlib import sha256
from typing import Annotated

from fastapi import Depends, FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from app.kit import clock
from app.kit.errors import AppError
from app.kit.limits import RateLimiter, client_key
from app.kit.logging import get_logger
from app.kit.settings import CoreSettings, load
from app.modules.contact import mail
from app.modules.contact.form import Form, split
from app.modules.contact.models import ContactMessage
from app.modules.contact.repository import ContactRepository
from app.modules.contact.schemas import ContactForm, FieldRead, FormRead
from app.modules.contact.settings import ContactSettings
from app.modules.contact.stamps import FormNotGood, Stamps
from app.modules.contact.tasks import tell
from app.ports.db.database import Session
from app.ports.email.outbox import CurrentOutbox, Outbox
from app.ports.jobs.queue import enqueue

log = get_logger(__name__)


class TooManyMessages(AppError):
    """Somebody has sent too many messages, or somebody else with their address."""

    status = 429

    def __init__(self, reset: float) -> None:
        super().__init__("Too many messages. Wait a while.")
        self.headers = {"Retry-After": str(max(1, round(reset - time.time())))}


def current_stamps() -> Stamps:
    """Return what makes and reads the stamps of forms."""
    settings = load(ContactSettings)
    return Stamps(
        load(CoreSettings).secret_key.get_secret_value(),
        minimum=timedelta(seconds=settings.contact_minimum_seconds),
        good_for=timedelta(hours=settings.contact_form_hours),
    )


def show_form() -> FormRead:
    """Describe the form, with a stamp for one message."""
    form = Form(load(ContactSettings))
    stamp, expires_at = current_stamps().issue()
    fields = [
        FieldRead(name=it.name, kind=it.kind, required=it.required, max_length=it.max_length)
        for it in form.fields.values()
    ]
    minimum = load(ContactSettings).contact_minimum_seconds
    return FormRead(fields=fields, honeypot=form.honeypot, stamp=stamp, minimum_seconds=minimum, expires_at=expires_at)


def mailbox_key(email: str) -> str:
    """Name the mailbox of an address: most providers ignore case, dots and what follows a plus."""
    local, _, domain = email.lower().rpartition("@")
    return f"{local.partition('+')[0].replace('.', '')}@{domain}"


class Quota:
    """Counts messages with the limiter of the service: in memory, or where all processes count."""

    def __init__(self, limiter: RateLimiter) -> None:
        self.limiter, self.limits = limiter, load(ContactSettings).limits

    async def use(self, kind: str, name: str) -> None:
        """Count a message. Raises TooManyMessages."""
        if not self.limiter.enabled:
            return
        # Hashed, so that no store of counters lists who has written.
        key = self.limits[kind].key_for("contact", kind, sha256(name.encode()).hexdigest()[:32])
        verdict = await self.limiter.count(self.limits[kind], key)
        if verdict.used > verdict.limit:
            if verdict.used == verdict.limit + 1:
                log.warning("too many messages", of=kind)
            raise TooManyMessages(verdict.reset)


class ContactService:
    """Takes messages: first the row, and in its transaction whatever else is to be done."""

    def __init__(self, session: AsyncSession, outbox: Outbox, quota: Quota) -> None:
        self.session, self.outbox, self.quota = session, outbox, quota
        self.messages = ContactRepository(session)

    async def take(self, given: ContactForm) -> None:
        """Take a message. Raises FormNotGood, FormTooSoon, WrongFields and TooManyMessages.

        Who fell into the trap is refused what everybody is, and else gets everybody's answer.
        """
        stamp, form = current_stamps().read(given.stamp), Form(load(ContactSettings))
        filled_in = given.given()
        values = form.read(filled_in)
        if email := values.get("email"):
            await self.quota.use("email", mailbox_key(email))
        if form.is_trapped(filled_in):
            log.info("a bot has filled in the contact form")
            return
        own, more = split(values)
        message = ContactMessage.model_validate({**own, "stamp": stamp, "more": json.dumps(more)})
        present = await self.messages.add_once(message)
        if present is None:
            await self._tell(message, more)
        elif any(getattr(present, name) != getattr(message, name) for name in (*own, "more")):
            raise FormNotGood

    async def _tell(self, message: ContactMessage, more: dict[str, str]) -> None:
        settings = load(ContactSettings)
        if settings.contact_to:
            try:
                await self.outbox.send_later(self.session, mail.notice(settings.contact_to, message, more))
            except ValueError:
                # It is too long for a mail; the command line shows all of it.
                await self.outbox.send_later(self.session, mail.pointer(settings.contact_to, message))
        if settings.contact_confirm and message.email and await self._may_confirm(message, message.email):
            await self.outbox.send_later(self.session, mail.confirmation(message.email, message))
        if settings.receiver:
            await enqueue(self.session, tell(message.id))
        log.info("message received", message=str(message.id))

    async def _may_confirm(self, message: ContactMessage, email: str) -> bool:
        """Let a mailbox get one confirmation a day, and the service send so many: nobody is pestered with its help."""
        key = sha256(f"{mailbox_key(email)} {clock.now():%Y-%m-%d}".encode()).hexdigest()
        if not await self.messages.confirm_once(message, key):
            return False
        try:
            await self.quota.use("confirm", "")
        except TooManyMessages:
            return False
        return True


async def check(app: FastAPI) -> str | None:
    """Say when nobody is told of messages."""
    settings = load(ContactSettings)
    if settings.contact_to or settings.receiver:
        return None
    return "messages are kept, and nobody is told of them: CONTACT_TO is empty"


async def _quota(connection: HTTPConnection) -> Quota:
    return Quota(connection.app.state.limiter)


CurrentQuota = Annotated[Quota, Depends(_quota)]


async def count_client(connection: HTTPConnection, quota: CurrentQuota) -> None:
    """Count a message of the client. Raises TooManyMessages."""
    await quota.use("client", client_key(connection.client.host) if connection.client else "unknown")


async def _contact(session: Session, outbox: CurrentOutbox, quota: CurrentQuota) -> ContactService:
    return ContactService(session, outbox, quota)


Contact = Annotated[ContactService, Depends(_contact)]

"""SMTP through aiosmtplib: any mail server, with STARTTLS or TLS, certificates that are verified, and AUTH."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.policy import Policy
from pathlib import Path
from typing import Literal

import aiosmtplib
from pydantic import Field, SecretStr, field_validator, model_validator

from app.kit.module import Module
from app.kit.settings import CoreSettings, ModuleSettings, SettingsError, load
from app.ports.email.message import HEADERS, Email, EmailDelayed, EmailFailed, Mailbox, Message

PORTS = {"starttls": 587, "tls": 465, "none": 25}
GOODBYE_SECONDS = 0.5
HERE = {"localhost", "127.0.0.1", "::1"}


class SmtpSettings(ModuleSettings):
    """Mail through SMTP."""

    smtp_host: str | None = Field(None, description="The mail server.")
    smtp_port: int | None = Field(
        None, ge=1, le=65535, description="Its port. Empty: 587 for starttls, 465 for tls, 25 for none."
    )
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="starttls, tls from the first byte, or none, as for a mail catcher in development."
    )
    smtp_username: str | None = Field(None, description="Whom to sign in as. Empty: the server asks nobody.")
    smtp_password: SecretStr | None = Field(None, description="The password that goes with it.")
    smtp_ca_file: Path | None = Field(
        None, description="Certificates to trust in place of the system's, for a server with a CA of its own."
    )

    @field_validator("smtp_ca_file")
    @classmethod
    def holds_certificates(cls, value: Path | None) -> Path | None:
        """Refuse a file that no certificate can be read from."""
        try:
            ssl.create_default_context(cafile=value)
        except (OSError, ValueError):
            raise ValueError("must be a file of certificates in PEM format") from None
        return value

    @model_validator(mode="after")
    def guard_password(self) -> "SmtpSettings":
        """Refuse half of a sign-in, and a password that anybody on the way could read."""
        if (self.smtp_username is None) != (self.smtp_password is None):
            raise ValueError("SMTP_USERNAME and SMTP_PASSWORD go together: set both or none.")
        if self.smtp_security == "none" and self.smtp_host not in {None, *HERE}:
            if self.smtp_password is not None:
                raise ValueError("SMTP_SECURITY: with none, anybody on the way could read the password.")
            with suppress(SettingsError):  # What is wrong there is told there.
                if load(CoreSettings).production:
                    raise ValueError("SMTP_SECURITY: production needs starttls or tls, but on localhost.")
        return self


class _AsItIs(UnstructuredHeader, BaseHeader):
    """A header that is not folded: it is shorter than a line may be, and in pieces some programs would not read it."""

    def fold(self, *, policy: Policy) -> str:
        """Write it on one line."""
        return f"{self.name}: {self}{policy.linesep}"


_headers = HeaderRegistry()
for _name in HEADERS:
    _headers.map_to_type(_name, _AsItIs)
# Seven bits, so that every server on the way takes it.
POLICY = SMTP_POLICY.clone(header_factory=_headers, cte_type="7bit")


def _address(mailbox: Mailbox) -> Address:
    return Address(display_name=mailbox.name or "", addr_spec=mailbox.address)


def write(message: Message, sender: Mailbox) -> bytes:
    """Write a mail as it goes over the wire (RFC 5322)."""
    mail = EmailMessage(policy=POLICY)
    mail["From"], mail["To"], mail["Subject"] = _address(sender), _address(message.to), message.subject
    if message.reply_to:
        mail["Reply-To"] = _address(message.reply_to)
    mail["Date"] = message.written_at
    mail["Message-ID"] = f"<{message.id}@{sender.address.partition('@')[2]}>"
    for name, value in message.headers.items():
        mail[name] = value
    mail.set_content(message.text)
    if message.html is not None:
        mail.add_alternative(message.html, subtype="html")
    for file in message.attachments:
        kind, subtype = file.content_type.split("/")
        mail.add_attachment(file.content, maintype=kind, subtype=subtype, filename=file.name)
    return mail.as_bytes()


class SmtpEmail(Email):
    """Sends each mail on a connection of its own."""

    def __init__(self, sender: Mailbox, *, timeout: float) -> None:
        super().__init__(sender, timeout=timeout)
        self.settings = load(SmtpSettings)
        # Read once: the system's certificates take a while.
        self._trusted = ssl.create_default_context(cafile=self.settings.smtp_ca_file)

    @classmethod
    def problems(cls) -> list[str]:
        """Without a host there is nobody to talk to."""
        return [] if load(SmtpSettings).smtp_host else ["SMTP_HOST: smtp needs the name of the mail server."]

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[aiosmtplib.SMTP]:
        settings = self.settings
        client = aiosmtplib.SMTP(
            hostname=settings.smtp_host,
            port=settings.smtp_port or PORTS[settings.smtp_security],
            username=settings.smtp_username,
            password=settings.smtp_password.get_secret_value() if settings.smtp_password else None,
            # What the server is told of this machine: its own name may be one that servers refuse.
            local_hostname=self.sender.address.partition("@")[2],
            timeout=self.timeout,
            use_tls=settings.smtp_security == "tls",
            start_tls=settings.smtp_security == "starttls",
            tls_context=self._trusted,
        )
        try:
            await client.connect()
            yield client
            # What was taken is taken, however the server says goodbye.
            with suppress(aiosmtplib.SMTPException):
                await client.quit(timeout=GOODBYE_SECONDS)
        except ssl.SSLError as error:
            raise EmailFailed(f"TLS failed: {error.reason or error}") from None
        except aiosmtplib.SMTPException as error:
            raise _failure(error) from None
        except OSError as error:
            raise EmailDelayed(f"{type(error).__name__}: {error}") from None
        finally:
            client.close()

    async def hand_over(self, message: Message) -> None:
        """Send one mail, to the envelope that its fields name and no other."""
        # Seven million bytes of files take a fifth of a second.
        mail = await asyncio.to_thread(write, message, self.sender)
        async with self._connected() as client:
            await client.sendmail(self.sender.address, [message.to.address], mail)

    async def look(self) -> None:
        """Connect, change to TLS and sign in, as for a mail."""
        async with self._connected() as client:
            await client.noop()


def _failure(error: aiosmtplib.SMTPException) -> EmailFailed:
    """Tell whether trying again makes sense: after a reply of 4xx, and when there was none (RFC 5321, 4.2.1)."""
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused) and error.recipients:
        error = error.recipients[0]
    if isinstance(error.__cause__, ssl.SSLError):
        return EmailFailed(f"TLS failed: {error.__cause__.reason or error.__cause__}")
    if isinstance(error, aiosmtplib.SMTPResponseException):
        told = f"{error.code} {error.message}"
        return EmailDelayed(told) if 400 <= error.code < 500 else EmailFailed(told)
    told = f"{type(error).__name__}: {error}"
    return EmailDelayed(told) if isinstance(error, (ConnectionError, TimeoutError)) else EmailFailed(told)


smtp = Module(name="smtp", settings=(SmtpSettings,))

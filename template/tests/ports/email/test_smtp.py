import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from email import message_from_bytes
from email.headerregistry import AddressHeader
from email.policy import default
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from app.kit.settings import SettingsError, load
from app.ports.email.message import Attachment, EmailFailed, Mailbox, Message
from app.ports.email.smtp import SmtpEmail, SmtpSettings, write
from tests.ports.email.contract import ADA, SENDER, TIMEOUT_SECONDS, RemoteContract, Seen

# It does not see that a connection was in TLS from its first byte on.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
Configure = Callable[..., None]
OPEN = {"smtp_host": "mail.example.com", "smtp_security": "none"}
PASSWORD = "correct horse battery staple"
SECRET = "a secret of these tests alone, and of no service"


class MailServer:
    """Takes mails over TLS only and from whom it knows, or fails as it is told to."""

    def __init__(self, authority: trustme.CA, *, starttls: bool) -> None:
        self.starttls = starttls
        self.failure = ""
        self.envelopes: list[Any] = []
        self.connections: list[SMTP] = []
        self.listening: asyncio.Server | None = None
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.tls)

    def protocol(self) -> SMTP:
        tls = {"tls_context": self.tls, "require_starttls": True} if self.starttls else {"auth_require_tls": False}
        made = SMTP(self, hostname="mail", authenticator=self.authenticate, auth_required=True, **tls)
        self.connections.append(made)
        return made

    async def open(self) -> int:
        at_once = None if self.starttls else self.tls
        self.listening = await asyncio.get_running_loop().create_server(self.protocol, "127.0.0.1", 0, ssl=at_once)
        port: int = self.listening.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        if self.listening is not None:
            self.listening.close()
        for connection in self.connections:
            if connection.transport is not None:
                connection.transport.close()
        # Aborted connections are closed in the next turns of the loop.
        await asyncio.sleep(0.01)

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, given: Any) -> AuthResult:
        right = LoginPassword(b"service", PASSWORD.encode())
        return AuthResult(success=given == right and self.failure != "credentials", handled=False)

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        if self.failure in {"busy", "refused"}:
            return f"{451 if self.failure == 'busy' else 550} <{address}>: not now"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.failure == "silent":
            await asyncio.sleep(60)
        self.envelopes.append(envelope)
        return "250 OK"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=["starttls", "tls"])
async def server(
    request: pytest.FixtureRequest, authority: trustme.CA, tmp_path: Path, configure: Configure
) -> AsyncIterator[MailServer]:
    server = MailServer(authority, starttls=request.param == "starttls")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    configure(
        smtp_host="localhost",
        smtp_port=str(await server.open()),
        smtp_security=request.param,
        smtp_username="service",
        smtp_password=PASSWORD,
        smtp_ca_file=str(tmp_path / "ca.pem"),
    )
    yield server
    await server.close()


def mailbox(header: AddressHeader) -> Mailbox:
    [address] = header.addresses
    return Mailbox(address=address.addr_spec, name=address.display_name or None)


def read(envelope: Any) -> Seen:
    assert max(map(len, envelope.content.split(b"\r\n"))) <= 998
    mail = message_from_bytes(envelope.content, policy=default)
    to = mailbox(mail["To"])
    assert envelope.rcpt_tos == [to.address]
    assert envelope.mail_from == SENDER.address
    assert [mail["Message-ID"].count("@"), mail["Date"].datetime.tzinfo is not None] == [1, True]
    assert {"Bcc", "Cc", "Content-Disposition"}.isdisjoint(mail)
    text, html = mail.get_body(["plain"]), mail.get_body(["html"])
    return Seen(
        to=to,
        subject=mail["Subject"],
        text=text.get_content().replace("\r\n", "\n") if text else "",
        sender=mailbox(mail["From"]),
        html=html.get_content().replace("\r\n", "\n") if html else None,
        reply_to=mailbox(mail["Reply-To"]) if mail["Reply-To"] else None,
        headers=tuple((name, str(value)) for name, value in mail.items()),
        attachments=tuple(
            Attachment(
                name=part.get_filename(),
                content_type=part.get_content_type(),
                content=cast("bytes", part.get_payload(decode=True)),
            )
            for part in mail.iter_attachments()
        ),
    )


class TestSmtp(RemoteContract):
    @pytest.fixture
    def email(self, server: MailServer) -> SmtpEmail:
        return SmtpEmail(SENDER, timeout=TIMEOUT_SECONDS)

    @pytest.fixture
    def seen(self, server: MailServer) -> Callable[[], list[Seen]]:
        return lambda: [read(envelope) for envelope in server.envelopes]

    @pytest.fixture
    def fail(self, server: MailServer) -> Callable[[str], None]:
        def fail(failure: str) -> None:
            server.failure = failure
            if failure == "away" and server.listening is not None:
                server.listening.close()

        return fail

    async def test_a_certificate_that_nobody_vouches_for_is_refused(
        self, server: MailServer, tmp_path: Path, configure: Configure
    ) -> None:
        trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
        configure(smtp_ca_file=str(tmp_path / "other.pem"))
        with pytest.raises(EmailFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await SmtpEmail(SENDER, timeout=TIMEOUT_SECONDS).check()

    async def test_a_certificate_of_another_host_is_refused(self, server: MailServer, configure: Configure) -> None:
        configure(smtp_host="127.0.0.1")
        with pytest.raises(EmailFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await SmtpEmail(SENDER, timeout=TIMEOUT_SECONDS).send(Message(to=ADA, subject="Hi", text="Hi\n"))
        assert server.envelopes == []


async def test_a_server_without_starttls_gets_neither_password_nor_mail(configure: Configure) -> None:
    said: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail\r\n")
        while line := await reader.readline():
            said.append(line)
            writer.write(b"250-mail\r\n250 AUTH PLAIN LOGIN\r\n" if line.startswith(b"EHLO") else b"221 Bye\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "localhost", 0)
    port = str(server.sockets[0].getsockname()[1])
    configure(smtp_host="localhost", smtp_port=port, smtp_username="service", smtp_password=PASSWORD)
    with pytest.raises(EmailFailed, match="STARTTLS"):
        await SmtpEmail(SENDER, timeout=TIMEOUT_SECONDS).send(Message(to=ADA, subject="Hi", text="Hi\n"))
    server.close()
    await asyncio.sleep(0.01)
    assert {line[:4] for line in said} <= {b"EHLO", b"QUIT"}


def test_a_mail_that_is_sent_again_is_the_same_to_the_last_byte() -> None:
    message = Message(to=ADA, subject="Hi", text="Hi\n")
    assert write(message, SENDER) == write(message, SENDER)
    assert f"<{message.id}@example.org>".encode() in write(message, SENDER)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"smtp_username": "service"}, "SMTP_USERNAME and SMTP_PASSWORD go together"),
        ({**OPEN, "smtp_username": "service", "smtp_password": "x"}, "SMTP_SECURITY: with none, anybody"),
        ({**OPEN, "environment": "production", "secret_key": SECRET}, "SMTP_SECURITY: production needs starttls"),
        ({"smtp_ca_file": "/dev/null"}, "SMTP_CA_FILE: must be a file of certificates"),
        ({"smtp_ca_file": "/nowhere"}, "SMTP_CA_FILE: must be a file of certificates"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(configure: Configure, values: dict[str, str], sentence: str) -> None:
    configure(**values)
    with pytest.raises(SettingsError, match=sentence):
        load(SmtpSettings)


def test_a_mail_catcher_in_development_needs_no_tls(configure: Configure) -> None:
    configure(**OPEN)
    assert load(SmtpSettings).smtp_host == "mail.example.com"

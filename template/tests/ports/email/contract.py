"""What every provider has to do. A class of tests for each says how mails are sent, and what came of them."""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import pytest

from app.ports.email.message import Attachment, Email, EmailDelayed, EmailFailed, Mailbox, Message

SENDER = Mailbox(address="service@example.org", name='Größe & Söhne, "Ltd"')
ADA = Mailbox(address="ada@example.com", name="Ada Lovelace")
TIMEOUT_SECONDS = 1.5
ANY_BYTES = bytes(range(256)) * 40
HOSTILE = {
    "name that looks like two addresses": Message(
        to=Mailbox(address="ada@example.com", name='Ada, "x" <eve@example.net>'), subject="Hi", text="Hi\n"
    ),
    "foreign name with a comma": Message(
        to=Mailbox(address="ada@example.com", name="Ö, eve@example.net; (x)"), subject="Hi", text="Hi\n"
    ),
    "encoded word with a line break": Message(
        to=Mailbox(address="ada@example.com", name="=?utf-8?q?Ada=0D=0ABcc:eve@example.net?="),
        subject="=?utf-8?q?Hi=0D=0ABcc:eve@example.net?=",
        text="Hi\n",
    ),
    "headers in the text": Message(
        to=ADA, subject="Bcc: eve@example.net", text="Bcc: eve@example.net\nTo: eve@example.net\n\nHi\n"
    ),
    "end of the mail in the text": Message(
        to=ADA, subject="Hi", text="Hi\r\n.\r\nMAIL FROM:<eve@example.net>\r\n.\n\rQUIT\n..\n.\n"
    ),
    "lines that are too long": Message(to=ADA, subject="x" * 200, text="x" * 5000 + "\n" + "ü" * 5000 + "\n"),
    "boundary in the text": Message(to=ADA, subject="Hi", text="--===============0==--\n", html="<p>--=</p>\n"),
    "letters of everywhere": Message(
        to=Mailbox(address="ada@münchen.de", name="爱达"), subject="Grüße 🚀", text="日本語\n"
    ),
}


class Seen(NamedTuple):
    """A mail as its receiver reads it."""

    to: Mailbox
    subject: str
    text: str
    sender: Mailbox = SENDER
    html: str | None = None
    reply_to: Mailbox | None = None
    headers: tuple[tuple[str, str], ...] = ()
    attachments: tuple[Attachment, ...] = ()


class Contract:
    """A class has the fixtures `email`, a provider that sends from SENDER, and `seen`, which lists what it sent."""

    async def test_a_mail_arrives_as_it_was_written(self, email: Email, seen: Callable[[], list[Seen]]) -> None:
        await email.send(Message(to="ada@example.com", subject="Hello, Ada", text="Dear Ada\n"))
        [mail] = seen()
        assert (mail.sender, mail.to, mail.subject) == (SENDER, Mailbox(address="ada@example.com"), "Hello, Ada")
        assert mail.text == "Dear Ada\n"

    @pytest.mark.parametrize("case", HOSTILE)
    async def test_what_is_hostile_stays_what_it_is(
        self, email: Email, seen: Callable[[], list[Seen]], case: str
    ) -> None:
        message = HOSTILE[case]
        await email.send(message)
        [mail] = seen()
        assert (mail.to, mail.subject, mail.text) == (message.to, message.subject, message.text)

    async def test_the_provider_can_be_checked(self, email: Email, seen: Callable[[], list[Seen]]) -> None:
        await email.check()
        assert seen() == []


class RemoteContract(Contract):
    """What providers do that talk to a server: `fail` makes the server go wrong in a way that it is given by name."""

    async def test_parts_and_headers_arrive_as_well(self, email: Email, seen: Callable[[], list[Seen]]) -> None:
        link = "<https://example.com/unsubscribe?token=" + "a" * 200 + ">"
        message = Message(
            to=ADA,
            subject="Hello",
            text="Dear Ada\n",
            html="<p>Dear <b>Ada</b></p>\n",
            reply_to=Mailbox(address="help@example.org", name="Hilfe, für alle"),
            headers={"list-unsubscribe": link},
        )
        await email.send(message)
        [mail] = seen()
        assert (mail.to, mail.html, mail.reply_to) == (message.to, message.html, message.reply_to)
        assert {("Auto-Submitted", "auto-generated"), ("List-Unsubscribe", link)} <= set(mail.headers)

    async def test_files_arrive_to_the_last_byte(self, email: Email, seen: Callable[[], list[Seen]]) -> None:
        files = (
            Attachment(name="Rechnung für Größe & Söhne; x=1.pdf", content_type="application/pdf", content=ANY_BYTES),
            Attachment(name="日本語.txt", content_type="text/plain", content=b"a\r\n.\r\nb\x00\xff"),
            Attachment(name="empty.ics", content_type="text/calendar", content=b""),
        )
        for html in (None, "<p>Hi</p>\n"):
            await email.send(Message(to=ADA, subject="Hi", text="Hi\n", html=html, attachments=files))
            mail = seen()[-1]
            assert (mail.text, mail.html, mail.attachments) == ("Hi\n", html, files)

    @pytest.mark.parametrize(
        ("failure", "kind"), [("busy", EmailDelayed), ("refused", EmailFailed), ("credentials", EmailFailed)]
    )
    async def test_a_refusal_is_for_now_or_for_good(
        self, email: Email, seen: Callable[[], list[Seen]], fail: Callable[[str], None], failure: str, kind: type
    ) -> None:
        fail(failure)
        with pytest.raises(EmailFailed) as caught:
            await email.send(Message(to=ADA, subject="Hi", text="Hi\n"))
        assert type(caught.value) is kind
        assert "ada@" not in str(caught.value)
        assert seen() == []

    @pytest.mark.parametrize("failure", ["away", "silent"])
    async def test_a_server_that_does_not_answer_delays_a_mail_and_nothing_else(
        self, email: Email, fail: Callable[[str], None], failure: str
    ) -> None:
        fail(failure)
        async with asyncio.timeout(30):
            with pytest.raises(EmailDelayed):
                await email.send(Message(to=ADA, subject="Hi", text="Hi\n"))

    async def test_the_check_finds_wrong_credentials(self, email: Email, fail: Callable[[str], None]) -> None:
        fail("credentials")
        with pytest.raises(EmailFailed):
            await email.check()

"""The mails of the contact form, as a mail server gets them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP
from fastapi import FastAPI
from sqlmodel import select

from app.ports.db.database import Database
from app.ports.email.message import Mailbox
from app.ports.email.smtp import SmtpEmail
from app.ports.jobs.models import Job
from app.ports.jobs.tasks import TASKS, Call, run_here
from tests.modules.contact.conftest import ADMIN, Stranger


class MailServer:
    """Takes every mail."""

    def __init__(self) -> None:
        self.envelopes: list[Any] = []
        self.connections: list[SMTP] = []

    def protocol(self) -> SMTP:
        made = SMTP(self, hostname="mail")
        self.connections.append(made)
        return made

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.envelopes.append(envelope)
        return "250 OK"


@pytest.fixture
async def server(configure: Callable[..., None]) -> AsyncIterator[MailServer]:
    server = MailServer()
    listening = await asyncio.get_running_loop().create_server(server.protocol, "127.0.0.1", 0)
    port = str(listening.sockets[0].getsockname()[1])
    configure(smtp_host="127.0.0.1", smtp_port=port, smtp_security="none")
    yield server
    listening.close()
    for connection in server.connections:
        if connection.transport is not None:
            connection.transport.close()
    await asyncio.sleep(0.01)


async def test_what_a_stranger_writes_stays_where_it_belongs(
    app: FastAPI, database: Database, stranger: Stranger, server: MailServer
) -> None:
    given = {
        "name": 'Ada", <everybody@example.com>',
        "subject": "=?utf-8?q?a=0d=0aBcc:_everybody@example.com?=",
        "message": "Hi\n.\nRCPT TO:<everybody@example.com>\n\nFrom: boss@example.org\n\n--boundary\n",
    }
    answer = await stranger.send(**given, email="ada@example.com")
    assert answer.status_code == 202
    async with database.session() as session:
        waiting = (await session.exec(select(Job))).all()
    email = SmtpEmail(Mailbox(address="service@example.org", name="Shop"), timeout=5)
    before = app.state.outbox.provider
    app.state.outbox.provider = email
    try:
        for job in waiting:
            await run_here(app, Call(TASKS[job.task], job.arguments))
    finally:
        app.state.outbox.provider = before
        await email.close()
    mails = {tuple(it.rcpt_tos): message_from_bytes(it.content, policy=default) for it in server.envelopes}
    assert set(mails) == {(ADMIN,), ("ada@example.com",)}
    notice, confirmation = mails[(ADMIN,)], mails[("ada@example.com",)]
    assert (notice["Bcc"], notice["Cc"], notice.get_all("From")) == (None, None, ["Shop <service@example.org>"])
    [reply_to] = notice["Reply-To"].addresses
    assert (reply_to.addr_spec, reply_to.display_name) == ("ada@example.com", given["name"])
    text, html = notice.get_body(["plain"]), notice.get_body(["html"])
    assert text is not None
    assert html is not None
    assert given["message"].strip() in text.get_content().replace("\r\n", "\n")
    assert "<everybody@example.com>" not in html.get_content()
    whole = confirmation.as_string()
    assert not any(word in whole for word in ("everybody", "Ada", "boss", "Hi\n"))
    assert confirmation["Auto-Submitted"] == "auto-generated"

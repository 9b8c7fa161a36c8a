from collections.abc import AsyncIterator

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from sqlalchemy import text

from app.ports.db.database import Database
from app.ports.email.message import MOST_ATTACHED_BYTES, Attachment, EmailDelayed, Message
from app.ports.email.outbox import Outbox
from app.ports.email.stored import StoredFile, send_with_files
from app.ports.storage.local import LocalStorage
from app.ports.storage.storage import StorageUnavailable
from tests.ports.email.conftest import Post, Working
from tests.ports.jobs.contract import count, until
from tests.storage import storage

__all__ = ["storage"]
ROWS = text("SELECT state, error FROM jobs")
NOTE = Attachment(name="note.txt", content_type="text/plain", content=b"\xfe\xff\x00T")
MAIL = Message(to="ada@example.com", subject="Your invoice", text="Dear Ada\n", attachments=(NOTE,))
INVOICE = StoredFile(key="invoices/2026-17", name="Rechnung.pdf", content_type="application/pdf")


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(content), 100_000):
        yield content[at : at + 100_000]


@pytest.fixture
async def invoices(storage: LocalStorage, service: FastAPI) -> LocalStorage:
    service.state.storage = storage
    await storage.write(INVOICE.key, pieces(b"%PDF" * 100_000), content_type="application/pdf")
    return storage


async def send(jobs: Database, outbox: Outbox, *files: StoredFile) -> None:
    async with jobs.session() as session:
        await send_with_files(session, outbox, MAIL, files)


async def outcome(jobs: Database) -> tuple[str, str | None]:
    async def ended() -> bool:
        return await count(jobs, "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')") == 0

    await until(ended)
    [job] = await jobs.fetch(ROWS)
    return job.state, job.error


async def test_a_mail_takes_what_the_storage_has(
    jobs: Database, outbox: Outbox, post: Post, working: Working, invoices: LocalStorage
) -> None:
    post.failures = [EmailDelayed("busy")]
    async with working():
        await send(jobs, outbox, INVOICE)
        assert (await outcome(jobs))[0] == "succeeded"
    [mail] = post.sent
    sent = Attachment(name=INVOICE.name, content_type=INVOICE.content_type, content=b"%PDF" * 100_000)
    assert (mail.id, mail.to, mail.attachments) == (MAIL.id, MAIL.to, (NOTE, sent))


async def test_a_file_that_is_gone_ends_the_mail(
    jobs: Database, outbox: Outbox, post: Post, working: Working, invoices: LocalStorage
) -> None:
    await send(jobs, outbox, INVOICE)
    await invoices.delete(INVOICE.key)
    async with working():
        state, error = await outcome(jobs)
    assert (state, post.sent) == ("dead", [])
    assert "A file of this mail is not in the storage any more." in str(error)


async def test_files_that_no_server_would_take_are_not_read_to_the_end(
    jobs: Database, outbox: Outbox, post: Post, working: Working, invoices: LocalStorage
) -> None:
    large = INVOICE.model_copy(update={"key": "invoices/large"})
    await invoices.write(large.key, pieces(bytes(MOST_ATTACHED_BYTES - 400_000)), content_type="application/pdf")
    async with working():
        await send(jobs, outbox, INVOICE, large)
        state, error = await outcome(jobs)
    assert (state, post.sent) == ("dead", [])
    assert "mail a link to them" in str(error)


async def test_a_storage_that_is_away_delays_the_mail(
    jobs: Database,
    outbox: Outbox,
    post: Post,
    working: Working,
    invoices: LocalStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened, tried = invoices.open, []

    def away_at_first(key: str) -> object:
        tried.append(key)
        if len(tried) == 1:
            raise StorageUnavailable
        return opened(key)

    monkeypatch.setattr(invoices, "open", away_at_first)
    async with working():
        await send(jobs, outbox, INVOICE)
        assert (await outcome(jobs))[0] == "succeeded"
    assert (len(tried), len(post.sent)) == (2, 1)


async def test_what_is_no_file_for_a_mail_is_refused_at_once(jobs: Database, outbox: Outbox) -> None:
    for wrong in ({"key": "../etc/passwd"}, {"name": "a/b"}, {"content_type": "message/rfc822"}):
        with pytest.raises(ValidationError):
            StoredFile(**INVOICE.model_dump() | wrong)
    with pytest.raises(ValueError, match="20 files at most"):
        await send(jobs, outbox, *[INVOICE] * 20)
    assert await count(jobs, "SELECT count(*) FROM jobs") == 0

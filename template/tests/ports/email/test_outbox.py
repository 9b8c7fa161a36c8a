from datetime import timedelta
from secrets import token_urlsafe

import pytest
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from structlog.testing import capture_logs

from app.kit import clock
from app.kit.sealing import Sealing
from app.ports.db.database import Database, Session
from app.ports.email.message import EmailDelayed, EmailFailed, Message
from app.ports.email.outbox import ATTEMPTS, PURPOSE, CurrentOutbox, Outbox
from app.ports.jobs.models import Job, State
from app.ports.jobs.store import JobStore
from tests.ports.email.conftest import Post, Working
from tests.ports.jobs.contract import become, count, until

SECRET = "hunter2"


def mail(subject: str = "Hi") -> Message:
    return Message(to="ada@example.com", subject=subject, text=f"https://example.com/reset?token={SECRET}\n")


async def put(jobs: Database, outbox: Outbox, message: Message, *, wanted: bool = True) -> Job:
    async with jobs.session() as session:
        await outbox.send_later(session, message, wanted=wanted)
    rows = await jobs.fetch(Job.__table__.select().order_by(Job.__table__.c.created_at.desc()))  # type: ignore[attr-defined]
    return Job(**rows[0]._mapping)


async def test_a_mail_goes_out_when_its_transaction_is_there_to_stay(
    service: FastAPI, jobs: Database, post: Post, working: Working
) -> None:
    @service.post("/{name}")
    async def write(name: str, session: Session, outbox: CurrentOutbox) -> None:
        await outbox.send_later(session, mail(name))
        if name == "bad":
            raise ZeroDivisionError

    async with working(), AsyncClient(transport=ASGITransport(service), base_url="http://test") as client:
        with pytest.raises(ZeroDivisionError):
            await client.post("/bad")
        # It is answered while the provider still has the mail in hand, and though it refuses the first one.
        post.open.clear()
        post.failures = [EmailFailed("no")]
        assert (await client.post("/refused")).status_code == 200
        assert (await client.post("/good")).status_code == 200
        assert post.sent == []
        post.open.set()
        await until(lambda: _all_ended(jobs))
    assert len(post.sent) == 1
    assert await count(jobs, "SELECT count(*) FROM jobs") == 2


def stored(job: Job) -> str:
    return str({name: getattr(job, name) for name in Job.model_fields})


async def _all_ended(jobs: Database) -> bool:
    return await count(jobs, "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running')") == 0


async def test_what_waits_can_be_read_by_the_service_alone(
    jobs: Database, outbox: Outbox, post: Post, working: Working
) -> None:
    job = await put(jobs, outbox, mail())
    assert not [word for word in (SECRET, "ada@", "example") if word in stored(job)]
    async with working():
        sent = await become(jobs, job.id, State.SUCCEEDED)
    assert [(one.subject, one.text) for one in post.sent] == [("Hi", mail().text)]
    assert sent.arguments == "{}"
    assert str(post.sent[0].id) in job.arguments


async def test_nobody_sees_which_mail_was_not_wanted(
    jobs: Database, outbox: Outbox, post: Post, working: Working
) -> None:
    wanted, other = await put(jobs, outbox, mail()), await put(jobs, outbox, mail(), wanted=False)
    assert abs(len(wanted.arguments) - len(other.arguments)) < 16
    assert (wanted.task, wanted.queue, wanted.owner_id) == (other.task, other.queue, other.owner_id)
    async with working():
        for job in (wanted, other):
            ended = await become(jobs, job.id, State.SUCCEEDED)
            assert (ended.arguments, ended.result) == ("{}", "null")
    assert len(post.sent) == 1


async def test_what_is_delayed_is_tried_again_and_what_is_refused_is_not(
    jobs: Database, outbox: Outbox, post: Post, working: Working
) -> None:
    post.failures = [EmailDelayed("451 later", after=0.01), EmailDelayed("429", after=7200)]
    job = await put(jobs, outbox, mail())
    async with working():
        await until(lambda: _waits_again(jobs, job))
        later = await become(jobs, job.id, State.QUEUED)
        assert (later.attempts, later.most_attempts, later.error) == (2, ATTEMPTS, "429")
        assert timedelta(minutes=55) < later.run_at - clock.now() < timedelta(minutes=61)
        post.failures = [EmailFailed(f"550 <ada@example.com>: {SECRET}@example.com is nobody")]
        with capture_logs() as logs:
            refused = await become(jobs, (await put(jobs, outbox, mail())).id, State.DEAD)
    assert (refused.attempts, refused.error) == (1, "550 <a***@example.com>: h***@example.com is nobody")
    assert any(entry["log_level"] == "error" for entry in logs)
    assert SECRET not in str(logs) + stored(refused)
    # By hand it is sent after all.
    async with working():
        assert await JobStore(jobs, timedelta(seconds=60)).retry(refused.id) == 1
        await become(jobs, refused.id, State.SUCCEEDED)
    assert len(post.sent) == 1


async def _waits_again(jobs: Database, job: Job) -> bool:
    return await count(jobs, "SELECT coalesce(max(attempts), 0) FROM jobs WHERE state = 'queued'") == 2


async def test_a_provider_that_breaks_says_nothing_secret(
    jobs: Database, outbox: Outbox, post: Post, working: Working
) -> None:
    post.failures = [RuntimeError(SECRET)]
    with capture_logs() as logs:
        job = await put(jobs, outbox, mail())
        async with working():
            await until(lambda: _failed_once(jobs))
    async with jobs.session() as session:
        failed = await session.get_one(Job, job.id)
    assert (failed.state, failed.error) == (State.QUEUED, "RuntimeError")
    assert SECRET not in str(logs) + stored(failed)


async def _failed_once(jobs: Database) -> bool:
    return await count(jobs, "SELECT count(*) FROM jobs WHERE error IS NOT NULL") == 1


async def test_a_new_secret_key_loses_no_mail_that_waits(
    service: FastAPI, jobs: Database, outbox: Outbox, post: Post, working: Working
) -> None:
    job = await put(jobs, outbox, mail())
    service.state.outbox = Outbox(post, Sealing(["new"], PURPOSE))
    async with working():
        dead = await become(jobs, job.id, State.DEAD)
        assert "SECRET_KEY_FALLBACKS" in (dead.error or "")
        service.state.outbox = Outbox(post, Sealing(["new", "ours"], PURPOSE))
        assert await JobStore(jobs, timedelta(seconds=60)).retry(job.id) == 1
        await become(jobs, job.id, State.SUCCEEDED)
    assert len(post.sent) == 1


async def test_a_mail_is_no_book(jobs: Database, outbox: Outbox) -> None:
    with pytest.raises(ValueError, match="mail a link"):
        await put(jobs, outbox, Message(to="ada@example.com", subject="Hi", text=token_urlsafe(60_000)))
    await put(jobs, outbox, Message(to="ada@example.com", subject="Hi", text="A line of many.\n" * 10_000))

import asyncio
import base64
import json
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from alembic.config import Config
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from pydantic import ValidationError
from sqlmodel import col, delete, select
from typer.testing import CliRunner

from app.kit.limits import memory_counter
from app.kit.settings import SecretURL, SettingsError, forget, load
from app.modules.contact.commands import commands
from app.modules.contact.models import ContactMessage
from app.modules.contact.schemas import ContactForm
from app.modules.contact.service import ContactService, Quota, check
from app.modules.contact.settings import ContactSettings
from app.modules.contact.stamps import Stamps
from app.modules.contact.tasks import tell
from app.modules.retention.tasks import clean_up
from app.ports.db.database import Database, DatabaseSettings
from app.ports.jobs.models import Job
from app.ports.jobs.tasks import TASKS, Call, GiveUp, Retry, run_here
from tests.modules.contact.conftest import ADMIN, CONTACT, MESSAGE, Postman, Stranger, messages
from tests.ports.outgoing.receiver import SECRET, receiving

Configure = Callable[..., None]
EVIL = "Ada\r\nBcc: everybody@example.com"
OVERRIDE = "Ada \u202egnp.exe"


@pytest.fixture
def limited(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.state.limiter, "enabled", True)
    monkeypatch.setattr(app.state.limiter, "count", memory_counter())


async def jobs(database: Database) -> list[Job]:
    async with database.session() as session:
        return list((await session.exec(select(Job))).all())


async def test_a_message_is_kept_and_told(stranger: Stranger, database: Database, postman: Postman) -> None:
    answer = await stranger.send(**MESSAGE, subject="Engine")
    assert (answer.status_code, answer.json()) == (202, {"detail": "Thank you. We have your message."})
    [row] = await messages(database)
    assert (row.name, row.email, row.subject, row.message) == (
        *list(MESSAGE.values())[:2],
        "Engine",
        MESSAGE["message"],
    )
    notice, confirmation = postman.take()
    assert (notice.to.address, notice.subject) == (ADMIN, "Contact form: Engine")
    assert str(notice.reply_to) == "Ada Lovelace <ada@example.com>"
    assert MESSAGE["message"] in notice.text
    assert (confirmation.to.address, confirmation.reply_to) == ("ada@example.com", None)
    assert str(row.id) in confirmation.text


async def test_the_form_says_what_it_asks_for(stranger: Stranger, configure: Configure) -> None:
    configure(contact_fields="company:100, phone:30", contact_required="message,phone", contact_honeypot="fax")
    form = await stranger.load()
    assert [(it["name"], it["kind"], it["required"], it["max_length"]) for it in form["fields"]] == [
        ("name", "line", False, 200),
        ("email", "email", False, 320),
        ("subject", "line", False, 200),
        ("message", "text", True, 5000),
        ("company", "line", False, 100),
        ("phone", "line", True, 30),
    ]
    assert (form["honeypot"], form["minimum_seconds"]) == ("fax", 3)
    assert form["expires_at"].startswith("2026-11-29T12:00:0")


async def test_fields_of_ones_own_are_kept_and_mailed(
    stranger: Stranger, database: Database, configure: Configure, postman: Postman
) -> None:
    configure(contact_fields="company:10,phone:30", contact_required="message,company")
    assert (await stranger.send(message="Hi", company="Analytics", email="")).status_code == 202
    [row] = await messages(database)
    assert (row.name, row.email, row.more) == (None, None, '{"company": "Analytics"}')
    [notice] = postman.take()
    assert notice.reply_to is None
    assert "company: Analytics" in notice.text
    answer = await stranger.send(message="Hi", company="x" * 11)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "body.company")
    answer = await stranger.send(message="Hi", phone="1")
    assert answer.json()["errors"] == [{"field": "body.company", "code": "missing", "message": "Field required"}]


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"name": EVIL}, "name"),
        ({"name": OVERRIDE}, "name"),
        ({"name": "Ada\x00"}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"subject": "Hi\r\n\r\n<b>there</b>"}, "subject"),
        ({"subject": "Hi\u2028there"}, "subject"),
        ({"email": "ada@example.com\r\nBcc: everybody@example.com"}, "email"),
        ({"email": "ada@example.com, everybody@example.com"}, "email"),
        ({"email": "Ada <ada@example.com>"}, "email"),
        ({"email": "=?utf-8?q?ada?=@example.com"}, "email"),
        ({"email": "ada"}, "email"),
        ({"email": f"{'a' * 400}@example.com"}, "email"),
        ({"message": "x" * 5001}, "message"),
        ({"message": "\x1b[2Jgone"}, "message"),
        ({"message": "a\x00b"}, "message"),
        ({"message": "\u200b\u202e"}, "message"),
        ({"message": " \n "}, "message"),
        ({"name": None}, "name"),
        ({"name": 5}, "name"),
        ({"message": ["Hi"]}, "message"),
        ({"message": "\ud800"}, "message"),
        ({"name": "\ud800"}, "name"),
        ({"is_admin": "true"}, "is_admin"),
        ({"model_config": "x"}, "model_config"),
        ({"id": str(uuid4())}, "id"),
        ({"confirmed": "x"}, "confirmed"),
        ({"more": {"deep": "er"}}, "more"),
    ],
)
async def test_what_no_form_brings_is_refused(
    stranger: Stranger, database: Database, postman: Postman, fields: dict[str, Any], place: str
) -> None:
    body = {**MESSAGE, **fields}
    answer = await stranger.send(**body)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, f"body.{place}"), answer.text
    assert await messages(database) == []
    assert postman.take() == []


async def test_of_a_form_with_thousands_of_fields_a_few_are_looked_at(stranger: Stranger, configure: Configure) -> None:
    configure(contact_fields="company:10")
    await stranger.load()
    many: dict[str, Any] = {f"field{number}": number for number in range(1000)}
    body = {**many, **MESSAGE, "stamp": "x"}
    with pytest.raises(ValidationError) as caught:
        ContactForm.model_validate(body)
    assert 10 <= caught.value.error_count() < 50
    assert (await stranger.send(**many, **MESSAGE)).status_code == 422
    assert (await stranger.send(**MESSAGE, **dict.fromkeys(many, "x"), company="Ada")).status_code == 422


async def test_what_is_too_long_is_told_in_characters(stranger: Stranger) -> None:
    answer = await stranger.send(**{**MESSAGE, "message": "x" * 5001})
    assert answer.json()["errors"][0]["message"] == "String should have at most 5000 characters"


async def test_a_body_that_is_none_is_refused(stranger: Stranger, database: Database) -> None:
    many = {f"field_{number}": "x" for number in range(50_000)}
    answer = await stranger.send(**MESSAGE, **many)
    assert (answer.status_code, len(answer.json()["errors"])) == (422, 10)
    assert (await stranger.send(**MESSAGE, **{"\ud800": "x"})).status_code == 422
    answer = await stranger.send(message="x" * 1_048_576)
    assert answer.status_code == 413
    for body in (b"[]", b"{", b'"text"', b"\xff", b""):
        answer = await stranger.client.post(CONTACT, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 422}, answer.text
    answer = await stranger.client.post(CONTACT, data={"stamp": await stranger.stamp(), **MESSAGE})
    assert answer.status_code == 422
    assert await messages(database) == []


async def test_html_stays_text_and_the_unseen_is_left_out(
    stranger: Stranger, database: Database, postman: Postman
) -> None:
    sum_in_braces = "{" + "{ 7 * 7 }" + "}"
    text = f"<script>alert(1)</script> {sum_in_braces}\r\n\u202eevil\u202c \U0001f469\u200d\U0001f680 \u05d0\u200f!"
    await stranger.send(name="<img src=x onerror=alert(1)>", email="ada@example.com", message=text)
    [row] = await messages(database)
    assert row.message == f"<script>alert(1)</script> {sum_in_braces}\nevil \U0001f469\u200d\U0001f680 \u05d0\u200f!"
    html = str(postman.take()[0].html)
    assert "<script" not in html
    assert "<img" not in html
    assert f"&lt;script&gt;alert(1)&lt;/script&gt; {sum_in_braces}" in html


async def test_a_stranger_puts_no_word_into_the_mail_to_an_address(stranger: Stranger, postman: Postman) -> None:
    words = {"name": "Cheap pills", "subject": "Buy now", "message": "https://pills.example"}
    await stranger.send(**words, email="victim@example.com")
    confirmation = postman.take()[1]
    for part in (confirmation.text, str(confirmation.html), confirmation.subject, str(confirmation.to)):
        assert not any(word in part for word in words.values())


async def test_a_mailbox_gets_one_confirmation_a_day(
    stranger: Stranger, database: Database, postman: Postman, clock: time_machine.Traveller
) -> None:
    for email in ("ada@example.com", "ADA@example.com", "a.d.a@example.com", "ada+1@example.com"):
        assert (await stranger.send(**{**MESSAGE, "email": email})).status_code == 202
    assert [mail.to.address for mail in postman.take()] == [ADMIN, "ada@example.com", ADMIN, ADMIN, ADMIN]
    assert len(await messages(database)) == 4
    clock.shift(timedelta(days=1))
    await stranger.send(**MESSAGE)
    assert [mail.to.address for mail in postman.take()] == [ADMIN, "ada@example.com"]


async def test_mails_can_be_left_out(
    stranger: Stranger, database: Database, postman: Postman, configure: Configure
) -> None:
    configure(contact_to="", contact_confirm="false")
    assert (await stranger.send(**MESSAGE)).status_code == 202
    assert (len(await messages(database)), postman.take()) == (1, [])


async def test_who_falls_into_the_trap_sees_what_everybody_sees(
    stranger: Stranger, database: Database, postman: Postman, configure: Configure
) -> None:
    configure(contact_webhook_url="https://example.org/hook", contact_webhook_secret=SECRET)
    person = await stranger.send(**MESSAGE, website=" ")
    [row], sent, told = await messages(database), postman.take(), await jobs(database)
    bot = await stranger.send(**MESSAGE, website="https://pills.example")
    assert (bot.status_code, bot.json()) == (person.status_code, person.json())
    assert bot.headers.keys() == person.headers.keys()
    assert (await messages(database), postman.take(), await jobs(database)) == ([row], [], told)
    assert (len(sent), len(told)) == (2, 1)
    assert (await stranger.send(website="x")).status_code == 422


async def test_a_form_that_comes_back_at_once_is_told_to_wait(stranger: Stranger, database: Database) -> None:
    stamp = await stranger.stamp(1.5)
    answer = await stranger.send(stamp, **MESSAGE)
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (409, "form_too_soon", "2")
    stranger.clock.shift(timedelta(seconds=2))
    assert (await stranger.send(stamp, **MESSAGE)).status_code == 202
    assert len(await messages(database)) == 1


async def test_a_form_is_good_for_one_message_and_a_day(
    stranger: Stranger, database: Database, postman: Postman
) -> None:
    stamp = await stranger.stamp()
    # Sent again because the answer was lost, it is the same message.
    for _ in range(2):
        assert (await stranger.send(stamp, **MESSAGE)).status_code == 202
    assert len(postman.take()) == 2
    answer = await stranger.send(stamp, **{**MESSAGE, "message": "Another"})
    assert (answer.status_code, answer.json()["code"]) == (409, "form_not_good")
    answer = await stranger.send(await stranger.stamp(86_401), **MESSAGE)
    assert (answer.status_code, answer.json()["code"]) == (409, "form_not_good")
    assert len(await messages(database)) == 1


async def test_nobody_makes_stamps_of_their_own(stranger: Stranger, database: Database) -> None:
    good = await stranger.stamp()
    other = Stamps("another secret", minimum=timedelta(), good_for=timedelta(days=1)).issue()[0]
    changed = ("A" if good[3] != "A" else "B").join((good[:3], good[4:]))
    for stamp in ("x", good[:-2], f"{good}AAAA", changed, other, "é", "=" * 100, "A" * 50_000, good.swapcase()):
        answer = await stranger.send(stamp, **MESSAGE)
        assert (answer.status_code, answer.json()["code"]) == (409, "form_not_good"), stamp
    assert (await stranger.client.post(CONTACT, json=MESSAGE)).status_code == 422
    assert await messages(database) == []


@pytest.mark.usefixtures("limited")
async def test_an_address_sends_so_many_messages(stranger: Stranger, app: FastAPI, configure: Configure) -> None:
    configure(contact_limit_client="2/hour", contact_limit_email="100/hour")
    answers = [await stranger.send(**MESSAGE) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert int(answers[2].headers["retry-after"]) > 0
    # What is refused for another reason counts as well, and so does what a bot sends.
    async with AsyncClient(transport=ASGITransport(app, client=("203.0.113.7", 1)), base_url="http://test") as client:
        stranger.client = client
        assert (await stranger.send(message="")).status_code == 422
        assert (await stranger.send(**MESSAGE, website="x")).status_code == 202
        assert (await stranger.send(**MESSAGE)).status_code == 429


@pytest.mark.usefixtures("limited")
async def test_an_e_mail_address_is_given_so_often(stranger: Stranger, configure: Configure, postman: Postman) -> None:
    configure(contact_limit_client="100/hour", contact_limit_email="2/day")
    given = ("ada@example.com", "ADA+x@example.com", "a.da@example.com", "bob@example.com")
    answers = [await stranger.send(**{**MESSAGE, "email": email}) for email in given]
    assert [answer.status_code for answer in answers] == [202, 202, 429, 202]


@pytest.mark.usefixtures("limited")
async def test_the_service_confirms_so_many(stranger: Stranger, configure: Configure, postman: Postman) -> None:
    configure(contact_limit_client="100/hour", contact_limit_confirm="1/hour")
    for email in ("ada@example.com", "bob@example.com"):
        assert (await stranger.send(**{**MESSAGE, "email": email})).status_code == 202
    assert [mail.to.address for mail in postman.take()] == [ADMIN, "ada@example.com", ADMIN]


async def test_somebody_else_is_told_by_a_signed_webhook(
    stranger: Stranger, app: FastAPI, database: Database, configure: Configure
) -> None:
    async with receiving() as server:
        configure(contact_webhook_url=server.url, contact_webhook_secret=SECRET, contact_fields="phone:30")
        await stranger.send(**MESSAGE, phone="1")
        [row] = await messages(database)
        job = next(job for job in await jobs(database) if job.task == "contact.tell")
        # A secret or what somebody wrote has no place in a job.
        assert json.loads(job.arguments) == {"message_id": str(row.id)}
        server.answers = ["503 Busy"]
        call = Call(TASKS[job.task], job.arguments)
        with pytest.raises(Retry, match="answers 503"):
            await run_here(app, call)
        await server.stop()
        with pytest.raises(Retry, match="cannot be reached"):
            await run_here(app, call)
        await server.start()
        await run_here(app, call)
        assert server.ids == [f"msg_{row.id}"] * 2
    [event] = server.events
    assert (event["type"], event["timestamp"]) == ("contact.message.created", row.created_at.isoformat())
    assert event["data"] == {"id": str(row.id), **MESSAGE, "subject": None, "fields": {"phone": "1"}}


async def test_nobody_is_told_of_what_has_been_deleted(
    stranger: Stranger, app: FastAPI, database: Database, configure: Configure
) -> None:
    async with receiving() as server:
        configure(contact_webhook_url=server.url, contact_webhook_secret=SECRET)
        await run_here(app, tell(uuid4()))
        assert server.ids == []
    configure(contact_webhook_url="", contact_webhook_secret="")
    with pytest.raises(GiveUp, match="CONTACT_WEBHOOK_URL is empty"):
        await run_here(app, tell(uuid4()))


async def test_a_message_that_fails_to_be_stored_is_told_to_nobody(
    stranger: Stranger, app: FastAPI, database: Database, configure: Configure
) -> None:
    configure(contact_webhook_url="https://example.org/hook", contact_webhook_secret=SECRET)
    async with database.session() as session:
        service = ContactService(session, app.state.outbox, Quota(app.state.limiter))
        await service.take(ContactForm(stamp=await stranger.stamp(), **MESSAGE))
        await session.rollback()
    assert (await messages(database), await jobs(database)) == ([], [])
    await stranger.send(**MESSAGE)
    assert sorted(job.task for job in await jobs(database)) == ["contact.tell", "email.send", "email.send"]


async def test_what_is_too_long_for_a_mail_is_pointed_to(
    stranger: Stranger, database: Database, configure: Configure
) -> None:
    configure(contact_message_length="100000", contact_confirm="false")
    text = base64.b64encode(random.Random(1).randbytes(75_000)).decode()
    assert (await stranger.send(**{**MESSAGE, "message": text})).status_code == 202
    [row] = await messages(database)
    assert row.message == text
    assert [job.task for job in await jobs(database)] == ["email.send"]


def test_settings_that_cannot_be_meant_are_refused(configure: Configure) -> None:
    for values, sentence in REFUSED:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in values.items():
                patch.setenv(name.upper(), value)
            forget()
            with pytest.raises(SettingsError, match=sentence):
                load(ContactSettings)


REFUSED: list[tuple[dict[str, str], str]] = [
    ({"contact_fields": "company"}, "CONTACT_FIELDS: 'company' is no field: write a name"),
    ({"contact_fields": "Company:10"}, "is no field"),
    ({"contact_fields": "company:0"}, "is no field"),
    ({"contact_fields": "company:1001"}, "is no field"),
    ({"contact_fields": "company:ten"}, "is no field"),
    ({"contact_fields": "email:10"}, "there is a field email already"),
    ({"contact_fields": "stamp:10"}, "there is a field stamp already"),
    ({"contact_fields": "a:1,a:2"}, "there is a field a already"),
    ({"contact_fields": ",".join(f"f{number}:1" for number in range(21))}, "names 21 fields"),
    ({"contact_required": "name"}, "message belongs to it"),
    ({"contact_required": "message,phon"}, "CONTACT_REQUIRED: the form has no field 'phon'; it has name, email"),
    ({"contact_honeypot": "email"}, "CONTACT_HONEYPOT: needs a name"),
    ({"contact_honeypot": "a b"}, "CONTACT_HONEYPOT: needs a name"),
    ({"contact_fields": "website:10"}, "CONTACT_HONEYPOT: needs a name"),
    ({"contact_limit_email": "often"}, "CONTACT_LIMIT_EMAIL: "),
    ({"contact_to": "nobody"}, "CONTACT_TO: is no e-mail address"),
    ({"contact_webhook_url": "https://example.org/hook"}, "go together"),
    ({"contact_webhook_secret": SECRET}, "go together"),
    ({"contact_webhook_url": "example.org", "contact_webhook_secret": SECRET}, "CONTACT_WEBHOOK_URL: is an address"),
    ({"contact_webhook_url": "https://example.org", "contact_webhook_secret": "short"}, "CONTACT_WEBHOOK_SECRET: is"),
]


async def test_messages_are_forgotten(
    stranger: Stranger, app: FastAPI, database: Database, configure: Configure
) -> None:
    configure(contact_keep_days="30")
    await stranger.send(**MESSAGE)
    stranger.clock.shift(timedelta(days=20))
    await stranger.send(**{**MESSAGE, "name": "Bob"})
    stranger.clock.shift(timedelta(days=11))
    assert (await run_here(app, clean_up()))["contact messages"] == 1
    assert [row.name for row in await messages(database)] == ["Bob"]


async def test_who_runs_the_service_reads_and_deletes(
    migrated: Config, database_url: str, configure: Configure
) -> None:
    database = Database.open(DatabaseSettings(database_url=SecretURL(database_url)))
    row = ContactMessage(stamp="x", name="Ada [bold]", email="ada@example.com", message="Hi", more='{"phone": "1"}')
    async with database.session() as session:
        session.add(row)
    try:
        told = await asyncio.to_thread(command, "list")
        assert "Ada [bold]" in told
        told = await asyncio.to_thread(command, "show", str(row.id))
        assert {"email: ada@example.com", "phone: 1", "Hi"} <= set(told.splitlines())
        assert await asyncio.to_thread(command, "show", str(uuid4())) == "There is no such message.\n"
        assert await asyncio.to_thread(command, "erase", "ADA@example.com") == "1 deleted.\n"
        async with database.session() as session:
            assert await session.get(ContactMessage, row.id) is None
    finally:
        async with database.session() as session:
            await session.exec(delete(ContactMessage).where(col(ContactMessage.id) == row.id))
        await database.close()


def command(*arguments: str) -> str:
    return CliRunner().invoke(commands, arguments).output


async def test_doctor_tells_when_nobody_is_told(app: FastAPI, configure: Configure) -> None:
    assert await check(app) is None
    configure(contact_to="")
    assert "CONTACT_TO is empty" in str(await check(app))

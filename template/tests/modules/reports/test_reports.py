import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from alembic.config import Config
from fastapi import FastAPI
from sqlalchemy.exc import IntegrityError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from typer.testing import CliRunner

from app.kit import clock
from app.kit.logging import LogSettings, configure_logging
from app.kit.settings import SettingsError, load
from app.modules.reports.commands import commands
from app.modules.reports.figures import Figure, Period
from app.modules.reports.models import DailyReport
from app.modules.reports.repository import ReportRepository
from app.modules.reports.service import check
from app.modules.reports.settings import ReportSettings
from app.modules.reports.tasks import send_daily
from app.modules.retention.tasks import clean_up
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.email.message import Message
from app.ports.identity.bearer import Role
from app.ports.jobs.models import Job, State
from app.ports.jobs.tasks import TASKS, run_here

Configure = Callable[..., None]
HOUR = timedelta(hours=1)


@pytest.fixture
def now() -> Iterator[time_machine.Traveller]:
    with time_machine.travel("2026-11-28T06:00:00+00:00", tick=False) as traveller:
        yield traveller


@pytest.fixture
def sent(app: FastAPI, database: Database, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    mails: list[Message] = []

    async def take(session: AsyncSession, message: Message) -> None:
        mails.append(message)

    monkeypatch.setattr(app.state.outbox, "send_later", take)
    return mails


@pytest.fixture
async def admin(database: Database, now: time_machine.Traveller) -> None:
    """Know several people for long, of whom one is an admin with an address of their own."""
    people: dict[str, dict[str, Any]] = {
        "ada": {"role": Role.ADMIN},
        "gone": {"role": Role.ADMIN, "is_active": False},
        "anybody": {"role": Role.ADMIN, "email_verified": False},
        "user": {},
        "reader": {"role": Role.READONLY},
    }
    async with database.session() as session:
        for name, fields in people.items():
            known: dict[str, Any] = {"email": f"{name}@example.com", "email_verified": True}
            known["created_at"] = clock.now() - 99 * HOUR
            session.add(User(subject=name, **(known | fields)))
        session.add(User(subject="nowhere", role=Role.ADMIN, email_verified=True, created_at=clock.now() - 99 * HOUR))


def job(task: str, state: State, *, minutes: int = 1, **fields: Any) -> Job:
    ended = None if state is State.QUEUED else clock.now() - timedelta(minutes=minutes)
    values: dict[str, Any] = {"queue": "default", "arguments": "{}", "most_attempts": 5, "finished_at": ended, **fields}
    return Job(task=task, state=state, **values)


async def add(database: Database, rows: Sequence[object]) -> None:
    async with database.session() as session:
        session.add_all(rows)


async def test_a_day_is_mailed_once_and_to_admins_alone(
    app: FastAPI, database: Database, admin: None, sent: list[Message], now: time_machine.Traveller
) -> None:
    await run_here(app, send_daily())
    assert sent == []
    now.shift(HOUR)
    for _ in range(3):
        await run_here(app, send_daily())
        now.shift(HOUR)
    assert [mail.to.address for mail in sent] == ["ada@example.com"]
    now.shift(21 * HOUR)
    await run_here(app, send_daily())
    assert [mail.to.address for mail in sent] == 2 * ["ada@example.com"]
    # The next one begins where the last one ended, and only the newest is kept.
    assert "2026-11-28 07:00" in sent[1].text
    async with database.session() as session:
        [row] = (await session.exec(select(DailyReport))).all()
    assert (row.day.isoformat(), row.until) == ("2026-11-29", clock.now())


async def test_the_second_of_two_at_once_fails(database: Database, now: time_machine.Traveller) -> None:
    today = clock.now().date()
    async with database.session() as session:
        await ReportRepository(session).add(DailyReport(day=today, until=clock.now()))
    with pytest.raises(IntegrityError):
        async with database.session() as session:
            await ReportRepository(session).add(DailyReport(day=today, until=clock.now()))


@pytest.mark.usefixtures("admin")
async def test_a_quiet_day_is_one_line(app: FastAPI, database: Database, sent: list[Message]) -> None:
    await add(database, [job("test.done", State.SUCCEEDED), job("retention.clean_up", State.SUCCEEDED, result="{}")])
    with time_machine.travel("2026-11-28T07:00:00+00:00", tick=False):
        await run_here(app, send_daily())
    [mail] = sent
    assert mail.subject.endswith("on 2026-11-28: a quiet day")
    assert mail.text.startswith("Nothing has happened since 2026-11-27 07:00 that needs a look; jobs done: 1.\n")
    assert "<table" not in (mail.html or "")


async def test_what_has_happened_is_told_in_numbers(
    app: FastAPI, database: Database, admin: None, sent: list[Message], now: time_machine.Traveller
) -> None:
    assert TASKS[clean_up.name].cron
    now.shift(HOUR)
    secret = "bob@example.com"
    await add(
        database,
        [
            User(subject="bob", email=secret, display_name="Bob", created_at=clock.now() - HOUR),
            job("test.done", State.SUCCEEDED),
            job("test.done", State.SUCCEEDED, result=f'"{secret}"'),
            job("test.done", State.SUCCEEDED, minutes=3000),
            job("test.poison", State.DEAD, error=secret, traceback=secret, arguments=json.dumps({"to": secret})),
            job("test.poison", State.DEAD),
            job("test.old", State.DEAD, minutes=3000),
            job("test.again", State.QUEUED, error=secret),
            job("test.waits", State.QUEUED),
            job(clean_up.name, State.SUCCEEDED, result='{"drafts": 2, "exports": 0}'),
            job(clean_up.name, State.SUCCEEDED, result='{"drafts": 3}'),
            job(clean_up.name, State.SUCCEEDED, result='{"drafts": 100}', minutes=3000),
        ],
    )
    await run_here(app, send_daily())
    [mail] = sent
    assert "quiet" not in mail.subject
    lines = mail.text.splitlines()
    assert lines[: lines.index("-- ")] == [
        "From 2026-11-27 07:00 to 2026-11-28 07:00 UTC:",
        "",
        "New users: 1",
        "Jobs done: 2",
        "Jobs that failed and are tried again: 1 (test.again: 1)",
        "Jobs that failed for good: 2 (test.poison: 2)",
        "Let go: drafts: 5",
        "",
    ]
    assert "test.poison: 2" in (mail.html or "")
    assert "Bob" not in mail.model_dump_json()
    assert secret not in mail.model_dump_json()


async def test_modules_add_what_they_count(
    app: FastAPI, admin: None, sent: list[Message], now: time_machine.Traveller
) -> None:
    periods: list[Period] = []

    async def count(session: AsyncSession, period: Period) -> Sequence[Figure]:
        periods.append(period)
        return [Figure("Orders <b>", 3, "& 1 & more"), Figure("Returns", 0)]

    figures, app.state.figures = app.state.figures, [count]
    now.shift(HOUR)
    try:
        await run_here(app, send_daily())
    finally:
        app.state.figures = figures
    assert periods == [Period(clock.now() - timedelta(days=1), clock.now())]
    assert "Orders <b>: 3 (& 1 & more)" in sent[0].text
    assert "Orders &lt;b&gt;" in (sent[0].html or "")
    assert "Returns" not in sent[0].text


@pytest.mark.parametrize(
    ("settings", "recipients"),
    [
        ({"report_to": "team@example.org"}, ["team@example.org"]),
        ({"report_enabled": "false"}, []),
        ({"report_hour": "8", "report_zone": "Europe/Berlin"}, ["ada@example.com"]),
        ({"report_hour": "9", "report_zone": "Europe/Berlin"}, []),
        ({"report_hour": "1", "report_zone": "America/Los_Angeles"}, ["ada@example.com"]),
    ],
)
async def test_settings_say_who_gets_it_and_when(
    app: FastAPI,
    admin: None,
    sent: list[Message],
    now: time_machine.Traveller,
    configure: Configure,
    settings: dict[str, str],
    recipients: list[str],
) -> None:
    configure(**settings)
    now.shift(HOUR)
    await run_here(app, send_daily())
    assert [mail.to.address for mail in sent] == recipients


async def test_nobody_to_tell_is_told_later(app: FastAPI, database: Database, sent: list[Message]) -> None:
    with time_machine.travel("2026-11-28T07:00:00+00:00", tick=False):
        await run_here(app, send_daily())
        fields: dict[str, Any] = {"role": Role.ADMIN, "email": "ada@example.com", "email_verified": True}
        await add(database, [User(subject="ada", **fields)])
        await run_here(app, send_daily())
    assert [mail.to.address for mail in sent] == ["ada@example.com"]


async def test_the_doctor_knows_who_gets_it(
    app: FastAPI, database: Database, sent: list[Message], configure: Configure
) -> None:
    assert await check(app) == "nobody gets it: no active admin has a verified address, and REPORT_TO is empty"
    configure(report_to="team@example.org", report_hour="0", report_zone="Europe/Berlin")
    assert await check(app) == "goes to 1 from 0:00 Europe/Berlin on; none was sent yet"
    with time_machine.travel("2026-11-28T07:00:00+00:00", tick=False):
        await run_here(app, send_daily())
    assert (await check(app)).endswith("; the last one was of 2026-11-28")
    configure(report_enabled="false")
    assert await check(app) == "not sent: REPORT_ENABLED is false"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../UTC", "/etc/passwd", "Europe"])
def test_a_zone_that_is_none_is_refused(configure: Configure, zone: str) -> None:
    configure(report_zone=zone)
    with pytest.raises(SettingsError, match="REPORT_ZONE: is no time zone"):
        load(ReportSettings)


async def test_the_command_line_shows_it_and_sends_nothing(migrated: Config) -> None:
    # It opens the service itself, and a loop.
    try:
        shown = await asyncio.to_thread(CliRunner().invoke, commands, ["show"], obj="app.main:create_app")
    finally:
        configure_logging(load(LogSettings), production=False)
    assert shown.exit_code == 0, shown.output
    assert "Nothing has happened since" in shown.output
    assert "mail sent" not in shown.output

import asyncio
import itertools
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import time_machine
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from app.main import create_app, lifespan
from app.modules.directory.models import DirectoryEntry
from app.modules.directory.repository import DirectoryRepository
from app.modules.directory.service import Departure, DirectoryService, Person, export
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.identity.bearer import Role
from tests.provider import Provider

ME = "/api/v1/app/users/me"
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
SUBJECT = "https://id.example.com|1"
SignIn = Callable[..., AsyncClient]


def told(minute: int = 0, **more: object) -> Person:
    said: dict[str, object] = {"email": "ada@example.com", "email_verified": True, "name": "Ada", "role": None, **more}
    return Person(subject=SUBJECT, as_of=NOON + timedelta(minutes=minute), **said)  # type: ignore[arg-type]


async def apply(database: Database, *news: Person | Departure) -> User | None:
    """Let the provider tell something, and return whom there is then."""
    async with database.session() as session:
        for one in news:
            await DirectoryService(session, []).apply(one)
        return (await session.exec(select(User).where(User.subject == SUBJECT))).one_or_none()


async def test_who_is_told_of_has_a_row_that_follows(database: Database) -> None:
    user = await apply(database, told())
    assert user is not None
    assert (user.email, user.email_verified, user.display_name, user.role) == ("ada@example.com", True, "Ada", "user")
    changed = await apply(database, told(1, email="new@example.com", email_verified=False, role=Role.READONLY))
    assert changed is not None
    assert (changed.id, changed.email, changed.email_verified) == (user.id, "new@example.com", False)
    assert changed.role == "readonly"
    bare = await apply(database, told(2, email=None, email_verified=False))
    assert bare is not None
    assert (bare.email, bare.role) == (None, "readonly")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_the_newest_state_stands_in_whatever_order_it_comes(database: Database, order: tuple[int, ...]) -> None:
    states = [told(minute, email=f"{minute}@example.com", name=f"Ada {minute}") for minute in range(3)]
    user = await apply(database, *(states[one] for one in order))
    assert user is not None
    assert (user.email, user.display_name) == ("2@example.com", "Ada 2")
    assert await apply(database, *states) == user


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_who_has_gone_stays_away_in_whatever_order_it_comes(database: Database, order: tuple[int, ...]) -> None:
    news: list[Person | Departure] = [told(), told(5), Departure(SUBJECT)]
    assert await apply(database, *(news[one] for one in order)) is None
    assert await apply(database, told(10), Departure(SUBJECT)) is None
    async with database.session() as session:
        entry = await DirectoryRepository(session).locked(SUBJECT)
        assert (entry.gone, entry.display_name, SUBJECT in str(entry)) == (True, None, False)


async def test_a_name_of_ones_own_is_kept(database: Database) -> None:
    user = await apply(database, told(), told(1, name="Countess"))
    assert user is not None
    assert user.display_name == "Countess"
    async with database.session() as session:
        session.add(user)
        user.display_name = "Own"
    kept = await apply(database, told(2, name="Lovelace"))
    assert kept is not None
    assert kept.display_name == "Own"


async def test_every_module_erases_what_is_theirs_before_the_user_goes(database: Database) -> None:
    user = await apply(database, told())
    assert user is not None
    erased: list[UUID] = []

    async def erase(session: AsyncSession, user_id: UUID) -> None:
        assert await session.get(User, user_id)
        erased.append(user_id)

    async with database.session() as session:
        await DirectoryService(session, [erase, erase]).apply(Departure(SUBJECT))
    assert erased == [user.id, user.id]


async def test_an_export_holds_what_the_provider_has_told(database: Database) -> None:
    user = await apply(database, told())
    assert user is not None
    async with database.session() as session:
        stranger = User(subject="nobody has told of them")
        session.add(stranger)
        await session.flush()
        found = await export(session, user.id)
        assert found == {"display_name": told().name, "as_of": told().as_of}
        assert await export(session, stranger.id) == {}


async def test_who_is_banned_is_locked_out_and_let_in_again_by_admins_alone(database: Database) -> None:
    ended: list[UUID] = []

    async def end(session: AsyncSession, user_id: UUID) -> None:
        ended.append(user_id)

    for news, active, times in (
        (told(), True, 0),
        (told(1, banned=True), False, 1),
        (told(2, banned=True), False, 1),
        (told(3), False, 1),
    ):
        async with database.session() as session:
            await DirectoryService(session, [], [end]).follow(news)
            user = (await session.exec(select(User).where(User.subject == SUBJECT))).one()
        assert (user.is_active, ended) == (active, [user.id] * times)


async def test_a_token_does_not_bring_back_who_has_gone(
    app: FastAPI, sign_in: SignIn, database: Database, provider: Provider
) -> None:
    ada, eve = (sign_in(sub=name, email=f"{name}@example.com") for name in ("ada", "eve"))
    before = (await ada.get(ME)).json()["id"]
    subject = app.state.verifier.subject_of(provider.person("ada"))
    async with database.session() as session:
        await DirectoryService(session, []).apply(Departure(subject))
    later = int(time.time()) + 20
    with time_machine.travel(later + 1):
        for client in (ada, sign_in(sub="ada", email="ada@example.com", iat=later)):
            answer = await client.get(ME)
            assert (answer.status_code, answer.json()["code"]) == (403, "account_deleted")
    assert (await eve.get(ME)).status_code == 200
    async with database.session() as session:
        assert await session.get(User, UUID(before)) is None
        assert (await session.exec(select(func.count()).select_from(User))).one() == 1


async def test_what_a_token_says_is_not_undone_by_news_of_before(
    app: FastAPI, sign_in: SignIn, database: Database, provider: Provider
) -> None:
    subject = app.state.verifier.subject_of(provider.person("ada"))
    now = datetime.now(UTC)
    assert (await sign_in(sub="ada", email="new@example.com", name="Ada").get(ME)).json()["email"] == "new@example.com"

    async def hear(at: datetime, email: str) -> str:
        person = Person(subject=subject, as_of=at, email=email, email_verified=True, name="Countess", role=None)
        async with database.session() as session:
            await DirectoryService(session, []).apply(person)
        return str((await sign_in(sub="ada").get(ME)).json()["email"])

    assert await hear(now - timedelta(minutes=1), "old@example.com") == "new@example.com"
    assert await hear(now + timedelta(minutes=1), "newest@example.com") == "newest@example.com"
    assert (await sign_in(sub="ada").get(ME)).json()["display_name"] == "Countess"


async def test_a_token_without_an_address_leaves_room_for_news_of_before(
    app: FastAPI, sign_in: SignIn, database: Database, provider: Provider
) -> None:
    assert (await sign_in(sub="ada").get(ME)).json()["email"] is None
    subject = app.state.verifier.subject_of(provider.person("ada"))
    at = datetime.now(UTC) - timedelta(minutes=1)
    async with database.session() as session:
        await DirectoryService(session, []).apply(
            Person(subject=subject, as_of=at, email="ada@example.com", email_verified=True, name="Ada", role=None)
        )
    me = (await sign_in(sub="ada").get(ME)).json()
    assert (me["email"], me["email_verified"], me["display_name"]) == ("ada@example.com", True, "Ada")


async def test_first_requests_and_news_that_race_make_one_row_or_none(migrated: object, provider: Provider) -> None:
    """Over real connections, each with its own transaction."""
    app = create_app()
    async with lifespan(app):
        app.state.verifier = provider.new_verifier()
        database: Database = app.state.database
        subject = app.state.verifier.subject_of(provider.person("racer"))
        headers = {"Authorization": f"Bearer {provider.token(sub=provider.person('racer'))}"}

        async def hear(news: Person | Departure) -> None:
            async with database.session() as session:
                await DirectoryService(session, []).apply(news)

        async def count() -> int:
            async with database.session() as session:
                return len((await session.exec(select(User).where(User.subject == subject))).all())

        person = Person(subject=subject, as_of=NOON, email=None, email_verified=False, name=None, role=None)
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test", headers=headers) as client:
            await asyncio.gather(*(part for _ in range(10) for part in (client.get(ME), hear(person))))
            assert await count() == 1
            await asyncio.gather(*(part for _ in range(10) for part in (client.get(ME), hear(Departure(subject)))))
            assert await count() == 0
            assert (await client.get(ME)).status_code == 403
        async with database.session() as session:
            for entry in (await session.exec(select(DirectoryEntry))).all():
                await session.delete(entry)

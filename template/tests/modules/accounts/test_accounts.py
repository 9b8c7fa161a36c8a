import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jwt
import pytest
import time_machine
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from pydantic import SecretStr
from sqlalchemy import event
from sqlmodel import func, select
from structlog.testing import capture_logs
from typer.testing import CliRunner

from app.kit.errors import Unavailable
from app.kit.limits import memory_counter
from app.kit.settings import forget
from app.main import create_app, lifespan
from app.modules.access.service import Caller
from app.modules.accounts.commands import commands
from app.modules.accounts.models import Account, LoginSession, MailToken, RefreshToken
from app.modules.accounts.passwords import MOST_WAITING, Passwords, WeakPassword, check_strength
from app.modules.accounts.repository import Credentials
from app.modules.accounts.service import AccountService, lock_out
from app.modules.accounts.settings import AccountSettings
from app.modules.accounts.tokens import token_after
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.identity.bearer import Role
from tests.modules.accounts.conftest import AUTH, MINE, PASSWORD, Person, Postman, instead, token_in

ME = "/api/v1/app/users/me"
ADA = "ada@example.com"
JSON = {"Content-Type": "application/json"}
OTHER = "another four words entirely"


async def test_from_signing_up_to_signing_out(person: Person, postman: Postman, database: Database) -> None:
    answer = await person.post("register", email=ADA)
    assert (answer.status_code, list(answer.json())) == (202, ["detail"])
    assert (await person.post("login", email=ADA, password=PASSWORD)).status_code == 401
    async with database.session() as session:
        assert (await session.exec(select(func.count()).select_from(User))).one() == 0
    [mail] = postman.take()
    assert (mail.to.address, mail.subject) == (ADA, "Confirm your address")
    assert "http://localhost:8000/verify-email#token=" in mail.text
    assert (await person.verify(token_in(mail), display_name="Ada")).status_code == 204
    signed_in = await person.post("login", email=ADA, password=PASSWORD)
    assert signed_in.json().keys() == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert (signed_in.json()["expires_in"], signed_in.headers["cache-control"]) == (600, "no-store")
    headers = {"Authorization": f"Bearer {signed_in.json()['access_token']}"}
    me = (await person.client.get(ME, headers=headers)).json()
    assert (me["email"], me["email_verified"], me["display_name"], me["role"]) == (ADA, True, "Ada", "user")
    renewed = await person.post("refresh", refresh_token=signed_in.json()["refresh_token"])
    headers = {"Authorization": f"Bearer {renewed.json()['access_token']}"}
    assert (await person.client.get(ME, headers=headers)).json()["id"] == me["id"]
    for _ in range(2):
        assert (await person.post("logout", refresh_token=renewed.json()["refresh_token"])).status_code == 204
    assert (await person.client.get(ME, headers=headers)).status_code == 401
    assert "needs a refresh token" in (await person.client.post(f"{AUTH}/refresh")).json()["detail"]
    assert (await person.post("refresh", refresh_token=renewed.json()["refresh_token"])).status_code == 401
    assert not person.client.cookies


async def test_what_is_stored_opens_nothing(person: Person, postman: Postman, database: Database) -> None:
    await person.register(ADA)
    headers = await person.login(ADA)
    await person.post("forgot-password", email=ADA)
    link = postman.link()
    async with database.session() as session:
        rows = [
            str(row.model_dump(warnings=False))
            for table in (User, Account, LoginSession, RefreshToken, MailToken)
            for row in (await session.exec(select(table))).all()
        ]
    assert len(rows) >= 5
    for text in (PASSWORD, headers["refresh"], headers["Authorization"][7:], link):
        assert not [row for row in rows if text in row]
    [stored] = re.findall(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$", "".join(rows))
    assert int(stored[0]) >= 19_456
    assert int(stored[1]) >= 2


@contextmanager
def work(database: Database, passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Count the statements that are sent to the database, and the passwords that are hashed."""
    done: Counter[str] = Counter()
    engine = database.engine.sync_engine

    def count(_: object, __: object, statement: str, *___: object) -> None:
        if not statement.startswith(("SAVEPOINT", "RELEASE")):
            done[" ".join(statement.split()[:3])] += 1

    run = passwords._run

    async def counted(work: Any, *arguments: object) -> Any:
        done[work.__name__] += 1
        return await run(work, *arguments)

    event.listen(engine, "before_cursor_execute", count)
    with monkeypatch.context() as patch:
        patch.setattr(passwords, "_run", counted)
        try:
            yield done
        finally:
            event.remove(engine, "before_cursor_execute", count)


@pytest.mark.parametrize("path", ["register", "login", "forgot-password", "request-verification"])
async def test_neither_answer_nor_work_tells_who_has_an_account(
    app: FastAPI, person: Person, postman: Postman, database: Database, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    await person.register(ADA)
    found = []
    for email in (ADA, "nobody@example.com"):
        body = {"email": email}
        if path == "login":
            body["password"] = OTHER
        with work(database, app.state.passwords, monkeypatch) as done:
            answer = await person.post(path, **body)
        told = {name: value for name, value in answer.json().items() if name not in {"request_id", "timestamp"}}
        headers = sorted(name for name in answer.headers if name != "content-length")
        found.append((answer.status_code, told, headers, done))
    assert found[0] == found[1]
    assert sum(found[0][3].values()) >= 2
    mails = postman.take()
    to = [(mail.to.address, mail.subject) for mail in mails]
    assert to == {
        "register": [(ADA, "You have an account already"), ("nobody@example.com", "Confirm your address")],
        "forgot-password": [(ADA, "Set a new password")],
    }.get(path, [])
    assert all("token=" not in mail.text for mail in mails if mail.subject.startswith("You have"))


async def test_who_signs_up_for_somebody_else_chooses_nothing(person: Person, postman: Postman) -> None:
    """A stranger signs up with Ada's address, and waits for her to open the mail."""
    for more in ({"password": OTHER}, {"display_name": "Eve"}, {"password": OTHER, "display_name": "Eve"}):
        assert (await person.post("register", email=ADA, **more)).status_code == 422
    assert postman.take() == []
    await person.post("register", email=ADA)
    theirs = postman.link()
    await person.post("register", email=ADA)
    mine = postman.link()
    # Without a password of her own the link does nothing, and stays good.
    assert (await person.post("verify-email", token=theirs)).status_code == 422
    assert (await person.post("login", email=ADA, password=OTHER)).status_code == 401
    assert (await person.verify(theirs, display_name="Ada")).status_code == 204
    assert (await person.verify(mine, OTHER)).status_code == 404
    assert (await person.post("login", email=ADA, password=OTHER)).status_code == 401
    me = await person.client.get(ME, headers=await person.login(ADA))
    assert me.json()["display_name"] == "Ada"


async def test_nobody_lends_their_address_to_an_account_of_somebody_else(
    person: Person, postman: Postman, database: Database
) -> None:
    """Eve gives Ada's address as the new one of her own account, and waits for Ada to open the mail."""
    await person.register("eve@example.com", OTHER)
    eve = await person.login("eve@example.com", OTHER)
    body = {"email": ADA, "password": OTHER}
    assert (await person.client.post(f"{MINE}/change-email", json=body, headers=eve)).status_code == 202
    [mail] = postman.take()
    assert "/confirm-new-email#token=" in mail.text
    link = token_in(mail)
    assert (await person.post("confirm-new-email", token=link)).status_code == 422
    assert (await person.verify(link)).status_code == 404
    refused = await person.post("confirm-new-email", token=link, password=PASSWORD)
    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_password")
    assert (await person.client.get(ME, headers=eve)).json()["email"] == "eve@example.com"
    await person.register(ADA)
    await person.login(ADA)


@pytest.mark.parametrize(
    "more",
    [
        {"role": "admin"},
        {"is_active": True},
        {"email_verified": True},
        {"is_admin": True},
        {"user_id": "00000000-0000-0000-0000-000000000001"},
        {"id": "00000000-0000-0000-0000-000000000001"},
        {"subject": "local|x"},
        {"password_hash": "x"},
        {"purpose": "reset_password"},
        {"__proto__": {"role": "admin"}},
    ],
)
async def test_nobody_assigns_what_is_not_asked_for(person: Person, postman: Postman, more: dict[str, object]) -> None:
    await person.register(ADA)
    headers = await person.login(ADA)
    bodies: dict[str, dict[str, object]] = {
        "register": {"email": "eve@example.com"},
        "login": {"email": ADA, "password": PASSWORD},
        "refresh": {"refresh_token": headers["refresh"]},
        "verify-email": {"token": "x", "password": OTHER},
        "confirm-new-email": {"token": "x", "password": OTHER},
        "reset-password": {"token": "x", "new_password": OTHER},
        "forgot-password": {"email": ADA},
    }
    for path, body in bodies.items():
        assert (await person.post(path, **{**body, **more})).status_code == 422, path
    bodies = {
        "change-password": {"current_password": PASSWORD, "new_password": OTHER},
        "change-email": {"email": "eve@example.com", "password": PASSWORD},
    }
    for path, body in bodies.items():
        answer = await person.client.post(f"{MINE}/{path}", json={**body, **more}, headers=headers)
        assert answer.status_code == 422, path
    assert postman.take() == []
    assert (await person.client.get(ME, headers=headers)).json()["role"] == "user"


async def test_links_go_where_the_setting_says(person: Person, postman: Postman) -> None:
    await person.register(ADA)
    hostile = {"Host": "evil.example.com", "X-Forwarded-Host": "evil.example.com", "X-Forwarded-Proto": "https"}
    more = {
        "Forwarded": "host=evil.example.com",
        "Origin": "https://evil.example.com",
        "Referer": "https://evil.example.com/",
    }
    for path, body in {
        "forgot-password": {"email": ADA},
        "register": {"email": "bob@example.com"},
    }.items():
        answer = await person.client.post(f"{AUTH}/{path}?host=evil.example.com", json=body, headers=hostile | more)
        assert answer.status_code == 202
        [mail] = postman.take()
        assert "evil" not in mail.text + str(mail.html)
        assert re.findall(r"https?://[^/]+", mail.text) == ["http://localhost:8000"]


@pytest.mark.parametrize(
    "email",
    [
        "ada@example.com\r\nBcc: eve@example.com",
        "ada@example.com\nBcc: eve@example.com",
        "ada@example.com, eve@example.com",
        "ada@example.com;eve@example.com",
        "Ada <ada@example.com>",
        "ada@example.com\x00",
        "ada@example.com%0d%0aBcc:eve@example.com",
        "\ud800@example.com",
        "ada@exam\u200bple.com",
        "\u0430da@example.com",
        "ada@",
        "@example.com",
        "a" * 400 + "@example.com",
        "=?utf-8?q?ada?=@example.com",
        "=?utf-8?b?YWRh@example.com",
        ["ada@example.com", "eve@example.com"],
        {"$ne": None},
        "",
        None,
    ],
)
async def test_no_address_is_two_or_a_header(person: Person, postman: Postman, email: object) -> None:
    for path in ("register", "login", "forgot-password", "request-verification"):
        body: dict[str, object] = {"email": email}
        if path == "login":
            body["password"] = PASSWORD
        content = json.dumps(body)
        answer = await person.client.post(
            f"{AUTH}/{path}", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 422, path
    assert postman.take() == []


@pytest.mark.parametrize("name", ["Ada\r\nBcc: eve@example.com", "a\x00b", "\u202eada", "x" * 201, " "])
async def test_no_name_is_a_header(person: Person, postman: Postman, name: str) -> None:
    await person.post("register", email=ADA)
    assert (await person.verify(postman.link(), display_name=name)).status_code == 422
    assert (await person.post("login", email=ADA, password=PASSWORD)).status_code == 401


async def test_an_address_is_one_however_it_is_written(person: Person, postman: Postman, database: Database) -> None:
    await person.register("Ada@Example.COM")
    for email in ("ada@example.com", "ADA@EXAMPLE.COM", "aDa@eXample.com"):
        await person.login(email)
        await person.post("register", email=email)
        [mail] = postman.take()
        assert mail.subject == "You have an account already"
    assert (await person.post("login", email="ada+x@example.com", password=PASSWORD)).status_code == 401
    async with database.session() as session:
        assert (await session.exec(select(func.count()).select_from(Account))).one() == 1


async def test_a_link_is_good_once_for_one_thing_and_for_a_while(
    person: Person, postman: Postman, database: Database
) -> None:
    await person.post("register", email=ADA)
    first = postman.link()
    for path, body in {
        "reset-password": {"new_password": OTHER},
        "confirm-new-email": {"password": PASSWORD},
    }.items():
        assert (await person.post(path, token=first, **body)).status_code == 404
    with time_machine.travel(time.time() + 25 * 3600):
        assert (await person.verify(first)).status_code == 404
    for wrong in (first[:-1], first + "A", first.swapcase(), "x"):
        assert (await person.verify(wrong)).status_code == 404
    assert (await person.verify("a b")).status_code == 422
    weak = await person.verify(first, "ada@example.com")
    assert (weak.status_code, weak.json()["code"]) == (422, "weak_password")
    assert (await person.verify(first)).status_code == 204
    again = await person.verify(first)
    assert (again.status_code, again.json()["code"]) == (404, "link_not_good")

    await person.post("forgot-password", email=ADA)
    reset = postman.link()
    assert (await person.verify(reset)).status_code == 404
    assert (await person.post("confirm-new-email", token=reset, password=PASSWORD)).status_code == 404
    with time_machine.travel(time.time() + 31 * 60):
        assert (await person.post("reset-password", token=reset, new_password=OTHER)).status_code == 404
        await person.post("forgot-password", email=ADA)
        late = postman.link()
    # A password that is refused leaves the link as it was.
    weak = await person.post("reset-password", token=late, new_password="password1234")
    assert (weak.status_code, weak.json()["code"]) == (422, "weak_password")
    assert (await person.post("reset-password", token=late, new_password=OTHER)).status_code == 204
    [notice] = postman.take()
    assert (notice.to.address, notice.subject) == (ADA, "Your password was changed")
    assert (await person.post("reset-password", token=late, new_password=PASSWORD)).status_code == 404
    await person.login(ADA, OTHER)
    async with database.session() as session:
        assert (await session.exec(select(func.count()).select_from(MailToken))).one() == 0


async def test_a_reset_ends_all_sessions_and_other_links(person: Person, postman: Postman) -> None:
    await person.register(ADA)
    headers = await person.login(ADA)
    links = []
    for _ in range(2):
        await person.post("forgot-password", email=ADA)
        links.append(postman.link())
    assert (await person.post("reset-password", token=links[0], new_password=OTHER)).status_code == 204
    assert (await person.post("reset-password", token=links[1], new_password=PASSWORD)).status_code == 404
    assert (await person.client.get(ME, headers=headers)).status_code == 401
    assert (await person.post("refresh", refresh_token=headers["refresh"])).status_code == 401
    assert (await person.post("login", email=ADA, password=PASSWORD)).status_code == 401
    await person.login(ADA, OTHER)


async def test_the_link_can_be_asked_for_again(person: Person, postman: Postman) -> None:
    for _ in range(2):
        assert (await person.post("request-verification", email=ADA)).status_code == 202
    assert postman.take() == []
    await person.post("register", email=ADA)
    postman.take()
    assert (await person.post("request-verification", email="ADA@example.com")).status_code == 202
    assert (await person.verify(postman.link())).status_code == 204
    await person.login(ADA)
    await person.post("request-verification", email=ADA)
    assert postman.take() == []


async def test_signing_out_without_cookies_takes_none_away(person: Person) -> None:
    answer = await person.client.post("/api/v1/public/auth/logout", headers={"Origin": "https://evil.example"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (204, False)


async def test_addresses_of_any_length_are_refused_at_once(person: Person) -> None:
    answer = await person.post("forgot-password", email=f"{'a' * 200_000}@example.com")
    assert (answer.status_code, "it is too long" in answer.json()["detail"]) == (422, True)


async def test_a_change_of_address_does_not_outlive_the_password_that_it_began_with(
    person: Person, postman: Postman, monkeypatch: pytest.MonkeyPatch
) -> None:
    await person.register(ADA)
    headers = await person.login(ADA)
    confirmed = AccountService.confirmed

    async def meanwhile(accounts: AccountService, me: Caller, password: SecretStr) -> Credentials:
        monkeypatch.setattr(AccountService, "confirmed", confirmed)
        found = await confirmed(accounts, me, password)
        body = {"current_password": PASSWORD, "new_password": OTHER}
        assert (await person.client.post(f"{MINE}/change-password", json=body, headers=headers)).status_code == 204
        return found

    postman.take()
    monkeypatch.setattr(AccountService, "confirmed", meanwhile)
    body = {"email": "eve@example.com", "password": PASSWORD}
    assert (await person.client.post(f"{MINE}/change-email", json=body, headers=headers)).status_code == 403
    assert [mail.to.address for mail in postman.take()] == [ADA]


async def test_a_refresh_token_that_comes_back_late_ends_its_session_alone(person: Person) -> None:
    await person.register(ADA)
    stolen, other = await person.login(ADA), await person.login(ADA)
    next_one = (await person.post("refresh", refresh_token=stolen["refresh"])).json()
    assert next_one["refresh_token"] != stolen["refresh"]
    with time_machine.travel(time.time() + 11), capture_logs() as logs:
        assert (await person.post("refresh", refresh_token=stolen["refresh"])).status_code == 401
    assert [line["log_level"] for line in logs if "used twice" in line["event"]] == ["warning"]
    assert stolen["refresh"] not in str(logs)
    assert (await person.post("refresh", refresh_token=next_one["refresh_token"])).status_code == 401
    headers = {"Authorization": f"Bearer {next_one['access_token']}"}
    assert (await person.client.get(ME, headers=headers)).status_code == 401
    assert (await person.client.get(ME, headers={"Authorization": other["Authorization"]})).status_code == 200
    assert (await person.post("refresh", refresh_token=other["refresh"])).status_code == 200


async def test_two_tabs_that_refresh_at_once_go_on_with_the_same_token(person: Person) -> None:
    await person.register(ADA)
    first = (await person.login(ADA))["refresh"]
    with capture_logs() as logs:
        answers = [(await person.post("refresh", refresh_token=first)).json() for _ in range(3)]
    assert [line["log_level"] for line in logs if "used again at once" in line["event"]] == ["warning"] * 2
    assert first not in str(logs)
    [second] = {answer["refresh_token"] for answer in answers}
    for answer in answers:
        headers = {"Authorization": f"Bearer {answer['access_token']}"}
        assert (await person.client.get(ME, headers=headers)).status_code == 200
    # A thief and an owner with the same token never go separate ways: the later one is found out.
    third = (await person.post("refresh", refresh_token=second)).json()["refresh_token"]
    with time_machine.travel(time.time() + 60):
        assert (await person.post("refresh", refresh_token=second)).status_code == 401
        assert (await person.post("refresh", refresh_token=third)).status_code == 401


async def test_only_the_last_token_but_one_comes_again(app: FastAPI, person: Person) -> None:
    await person.register(ADA)
    first = (await person.login(ADA))["refresh"]
    second = (await person.post("refresh", refresh_token=first)).json()["refresh_token"]
    third = (await person.post("refresh", refresh_token=second)).json()["refresh_token"]
    assert (await person.post("refresh", refresh_token=first)).status_code == 401
    for token in (second, third):
        assert (await person.post("refresh", refresh_token=token)).status_code == 401
    # Nobody else can tell which token follows, nor does one come again after its session has ended.
    token = (await person.login(ADA))["refresh"]
    followed = (await person.post("refresh", refresh_token=token)).json()["refresh_token"]
    assert followed == token_after(token, app.state.verifier.refresh_key)
    for key in (b"", token.encode(), app.state.verifier.key.key):
        assert followed != token_after(token, key)
    await person.post("logout", refresh_token=followed)
    assert (await person.post("refresh", refresh_token=token)).status_code == 401


async def test_without_a_grace_no_token_comes_again(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    await person.register(ADA)
    first = (await person.login(ADA))["refresh"]
    with monkeypatch.context() as patch:
        patch.setenv("AUTH_REFRESH_GRACE_SECONDS", "0")
        forget()
        second = (await person.post("refresh", refresh_token=first)).json()["refresh_token"]
        for token in (first, second):
            assert (await person.post("refresh", refresh_token=token)).status_code == 401
    forget()


async def test_sessions_end_by_themselves(person: Person) -> None:
    await person.register(ADA)
    headers = await person.login(ADA)
    with time_machine.travel(time.time() + 601):
        assert (await person.client.get(ME, headers=headers)).json()["detail"] == "The token has expired."
        renewed = (await person.post("refresh", refresh_token=headers["refresh"])).json()["refresh_token"]
    with time_machine.travel(time.time() + 15 * 86_400):
        assert (await person.post("refresh", refresh_token=renewed)).status_code == 401
    start = time.time()
    token = (await person.login(ADA))["refresh"]
    for day in range(10, 100, 10):
        with time_machine.travel(start + day * 86_400 + 60):
            answer = await person.post("refresh", refresh_token=token)
            assert answer.status_code == (200 if day < 90 else 401), day
            token = answer.json().get("refresh_token")


async def test_a_token_is_no_other_token(app: FastAPI, person: Person, postman: Postman) -> None:
    await person.register(ADA)
    headers = await person.login(ADA)
    access = headers["Authorization"][7:]
    await person.post("forgot-password", email=ADA)
    reset = postman.link()
    for token in (headers["refresh"], reset):
        assert (await person.client.get(ME, headers={"Authorization": f"Bearer {token}"})).status_code == 401
    for token in (access[:200], reset, "", "x"):
        assert (await person.post("refresh", refresh_token=token)).status_code in {401, 422}
    for token in (headers["refresh"], "x" * 43):
        assert (await person.post("reset-password", token=token, new_password=OTHER)).status_code == 404
        assert (await person.verify(token)).status_code == 404
        assert (await person.post("confirm-new-email", token=token, password=PASSWORD)).status_code == 404
    # Somebody's own token with somebody else's session, or the other way round, is nobody's.
    claims = jwt.decode(access, options={"verify_signature": False})
    await person.register("eve@example.com")
    eve = jwt.decode((await person.login("eve@example.com"))["Authorization"][7:], options={"verify_signature": False})
    for mixed in ({**claims, "sid": eve["sid"]}, {**claims, "sub": eve["sub"]}):
        token = jwt.encode(mixed, app.state.verifier.key, "HS256", {"typ": "at+jwt"})
        assert (await person.client.get(ME, headers={"Authorization": f"Bearer {token}"})).status_code == 401
    assert (await person.client.get(ME, headers={"Authorization": f"Bearer {access}"})).status_code == 200


async def test_who_is_deactivated_is_out_at_once(person: Person, postman: Postman, database: Database) -> None:
    await person.register(ADA)
    headers = await person.login(ADA)
    async with database.session() as session:
        (await session.exec(select(User))).one().is_active = False
    for answer in (
        await person.client.get(ME, headers=headers),
        await person.post("login", email=ADA, password=PASSWORD),
        await person.post("refresh", refresh_token=headers["refresh"]),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "account_deactivated")
    # Only who knows the password learns that.
    assert (await person.post("login", email=ADA, password=OTHER)).json()["code"] == "wrong_credentials"
    assert (await person.post("forgot-password", email=ADA)).status_code == 202
    assert postman.take() == []


@pytest.fixture
async def admin(person: Person, postman: Postman, database: Database) -> dict[str, str]:
    """An admin's headers."""
    await person.register("root@example.com")
    await give(database, "root@example.com", role=Role.ADMIN)
    return await person.login("root@example.com")


async def give(database: Database, email: str, **fields: object) -> str:
    """Change a user, and return their id."""
    async with database.session() as session:
        user = (await session.exec(select(User).where(User.email == email))).one()
        user.sqlmodel_update(fields)
        session.add(user)
        return str(user.id)


async def test_what_has_ended_with_a_deactivation_does_not_come_back(
    person: Person, postman: Postman, database: Database, admin: dict[str, str]
) -> None:
    await person.register(ADA)
    await person.register("eve@example.com")
    ada, eve = await person.login(ADA), await person.login("eve@example.com")
    await person.post("forgot-password", email=ADA)
    reset = postman.link()
    body = {"email": "new@example.com", "password": PASSWORD}
    await person.client.post(f"{MINE}/change-email", json=body, headers=ada)
    moving = postman.link()

    async def links_do_nothing() -> None:
        for answer in (
            await person.post("reset-password", token=reset, new_password="password1234"),
            await person.post("reset-password", token=reset, new_password=OTHER),
            await person.post("confirm-new-email", token=moving, password=OTHER),
            await person.post("confirm-new-email", token=moving, password=PASSWORD),
        ):
            # As any link that is not good: nobody learns why.
            assert (answer.status_code, answer.json()["code"]) == (404, "link_not_good")

    path = f"/api/v1/admin/users/{await give(database, ADA, is_active=False)}"
    await links_do_nothing()
    await give(database, ADA, is_active=True)
    assert (await person.client.post(f"{path}/deactivate", headers=admin)).status_code == 200
    for answer in (
        await person.client.get(ME, headers=ada),
        await person.post("refresh", refresh_token=ada["refresh"]),
        await person.post("login", email=ADA, password=PASSWORD),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "account_deactivated")
    await links_do_nothing()
    assert (await person.client.post(f"{path}/activate", headers=admin)).status_code == 200
    await links_do_nothing()
    for answer in (
        await person.client.get(ME, headers=ada),
        await person.post("refresh", refresh_token=ada["refresh"]),
    ):
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    me = (await person.client.get(ME, headers=await person.login(ADA))).json()
    assert me["email"] == ADA
    assert (await person.client.get(ME, headers=eve)).status_code == 200


async def test_no_session_begins_while_its_user_is_deactivated(
    person: Person, database: Database, admin: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await person.register(ADA)
    id = await give(database, ADA)
    verify = Passwords.verify

    async def meanwhile(passwords: Passwords, stored: str | None, password: str) -> bool:
        monkeypatch.setattr(Passwords, "verify", verify)
        answer = await person.client.post(f"/api/v1/admin/users/{id}/deactivate", headers=admin)
        assert answer.status_code == 200
        return await verify(passwords, stored, password)

    monkeypatch.setattr(Passwords, "verify", meanwhile)
    assert (await person.post("login", email=ADA, password=PASSWORD)).status_code == 401
    async with database.session() as session:
        sessions = (await session.exec(select(LoginSession.user_id))).all()
    assert id not in map(str, sessions)


async def test_who_may_only_read_takes_care_of_their_own_sign_in(
    person: Person, postman: Postman, database: Database
) -> None:
    await person.register(ADA)
    await give(database, ADA, role=Role.READONLY)
    one, two, three = [await person.login(ADA) for _ in range(3)]
    refused = await person.client.patch(ME, json={"display_name": "x"}, headers=one)
    assert (refused.status_code, refused.json()["code"]) == (403, "read_only")
    for method in ("X-HTTP-Method-Override", "X-Self-Care"):
        assert (await person.client.patch(ME, json={}, headers={**one, method: "GET"})).status_code == 403
    page = (await person.client.get(f"{MINE}/sessions", headers=one)).json()
    id = next(item["id"] for item in page["items"] if not item["current"])
    assert (await person.client.delete(f"{MINE}/sessions/{id}", headers=one)).status_code == 204
    body = {"current_password": PASSWORD, "new_password": OTHER}
    assert (await person.client.post(f"{MINE}/change-password", json=body, headers=one)).status_code == 204
    assert [(await person.client.get(ME, headers=who)).status_code for who in (one, two, three)] == [200, 401, 401]
    await person.login(ADA, OTHER)
    assert (await person.client.delete(f"{MINE}/sessions", headers=one)).status_code == 204
    body = {"email": "new@example.com", "password": OTHER}
    assert (await person.client.post(f"{MINE}/change-email", json=body, headers=one)).status_code == 202
    assert (await person.post("logout", refresh_token=one["refresh"])).status_code == 204
    assert (await person.client.get(ME, headers=one)).status_code == 401


async def test_a_changed_password_ends_the_other_sessions(person: Person, postman: Postman) -> None:
    await person.register(ADA, display_name="Ada")
    mine, other = await person.login(ADA), await person.login(ADA)
    await person.post("forgot-password", email=ADA)
    reset = postman.link()

    async def change(current: str, new: str) -> tuple[int, str]:
        body = {"current_password": current, "new_password": new}
        answer = await person.client.post(f"{MINE}/change-password", json=body, headers=mine)
        return answer.status_code, answer.json()["code"] if answer.content else ""

    assert await change(OTHER, PASSWORD) == (403, "wrong_password")
    assert await change(PASSWORD, "ada@example.com") == (422, "weak_password")
    assert await change(PASSWORD, OTHER) == (204, "")
    assert [mail.subject for mail in postman.take()] == ["Your password was changed"]
    assert (await person.client.get(ME, headers=mine)).status_code == 200
    assert (await person.client.get(ME, headers=other)).status_code == 401
    assert (await person.post("refresh", refresh_token=other["refresh"])).status_code == 401
    assert (await person.post("refresh", refresh_token=mine["refresh"])).status_code == 200
    assert (await person.post("reset-password", token=reset, new_password=PASSWORD)).status_code == 404
    assert (await person.post("login", email=ADA, password=PASSWORD)).status_code == 401


async def test_an_address_changes_when_the_new_one_isconfirmed(person: Person, postman: Postman) -> None:
    await person.register(ADA)
    await person.register("bob@example.com")
    headers = await person.login(ADA)
    await person.post("forgot-password", email=ADA)
    reset = postman.link()

    async def change(email: str, password: str = PASSWORD) -> int:
        body = {"email": email, "password": password}
        return (await person.client.post(f"{MINE}/change-email", json=body, headers=headers)).status_code

    assert await change("new@example.com", OTHER) == 403
    assert await change("Bob@example.com") == 202
    [notice] = postman.take()
    assert (notice.to.address, notice.subject) == ("bob@example.com", "You have an account already")
    assert await change("new@example.com") == 202
    [asked] = postman.take()
    assert asked.subject == "Confirm the new address of your account"
    assert await change("new@example.com") == 202
    link = postman.link()
    assert (await person.client.get(ME, headers=headers)).json()["email"] == ADA
    assert (await person.post("reset-password", token=link, new_password=OTHER)).status_code == 404
    assert (await person.post("confirm-new-email", token=link, password=PASSWORD)).status_code == 204
    [notice] = postman.take()
    assert (notice.to.address, notice.subject, "new@example.com" in notice.text) == (
        ADA,
        "Your address was changed",
        True,
    )
    assert (await person.client.get(ME, headers=headers)).json()["email"] == "new@example.com"
    await person.login("new@example.com")
    assert (await person.post("login", email=ADA, password=PASSWORD)).status_code == 401
    # What went to the address that is not theirs any more opens nothing.
    assert (await person.post("reset-password", token=reset, new_password=OTHER)).status_code == 404
    # An address that somebody else has taken in the meantime is theirs.
    assert await change("late@example.com") == 202
    late = postman.link()
    await person.register("late@example.com")
    assert (await person.post("confirm-new-email", token=late, password=PASSWORD)).status_code == 404
    assert (await person.client.get(ME, headers=headers)).json()["email"] == "new@example.com"


async def test_people_see_and_end_their_own_sessions(person: Person) -> None:
    await person.register(ADA)
    await person.register("eve@example.com")
    person.client.headers["User-Agent"] = "Browser\x07 of Ada"
    one, two, three = [await person.login(ADA) for _ in range(3)]
    eve = await person.login("eve@example.com")
    page = (await person.client.get(f"{MINE}/sessions", headers=two)).json()
    assert (page["total"], [item["current"] for item in page["items"]]) == (3, [False, True, False])
    assert page["items"][0]["user_agent"] == "Browser of Ada"
    first = page["items"][2]["id"]
    assert (await person.client.delete(f"{MINE}/sessions/{first}", headers=eve)).status_code == 404
    assert (await person.client.get(ME, headers=one)).status_code == 200
    assert (await person.client.delete(f"{MINE}/sessions/{first}", headers=two)).status_code == 204
    assert (await person.client.delete(f"{MINE}/sessions/{first}", headers=two)).status_code == 404
    assert (await person.client.get(ME, headers=one)).status_code == 401
    assert (await person.client.delete(f"{MINE}/sessions", headers=two)).status_code == 204
    assert (await person.client.get(ME, headers=three)).status_code == 401
    assert [(await person.client.get(ME, headers=who)).status_code for who in (two, eve)] == [200, 200]
    assert (await person.client.get(f"{MINE}/sessions", headers=two)).json()["total"] == 1


@pytest.mark.parametrize(
    ("password", "email", "name"),
    [
        ("password1234", ADA, None),
        ("qwertyuiop12", ADA, None),
        ("123456789012", ADA, None),
        ("aaaaaaaaaaaa", ADA, None),
        ("abcabcabcabc", ADA, None),
        ("P@ssw0rd1234", ADA, None),
        ("1q2w3e4r5t6y", ADA, None),
        ("iloveyou2024", ADA, None),
        ("ada@example.com", ADA, None),
        ("AdaLovelace1815", ADA, "Ada Lovelace"),
        ("LOVELACE-ADA-12", ADA, "Ada Lovelace"),
        ("grace.hopper!1", "grace.hopper@example.com", None),
        ("\uff50assword1234", ADA, None),
        ("aaaaaaaaaaaa" * 10, ADA, None),
    ],
)
def test_passwords_that_guessers_try_are_refused(password: str, email: str, name: str | None) -> None:
    with pytest.raises(WeakPassword):
        check_strength(password, [word for word in (email, name) if word])
    check_strength(PASSWORD, [email])


async def test_passwords_of_every_script_work_and_others_are_refused(person: Person) -> None:
    good = (
        "pässwörter für Ünïcode",
        "пароль из пяти слов тут",
        "🦊🌲🏔️🌊🔥🎈🪁🧭🛶🍄🪴🪵",
        "  spaces around it all  ",
        "x7!" + "kd92;fjw" * 5,
    )
    for number, password in enumerate(good):
        await person.register(f"u{number}@example.com", password)
        await person.login(f"u{number}@example.com", password)
        answer = await person.post("login", email=f"u{number}@example.com", password=password.strip()[:-1])
        assert answer.status_code == 401
    # The same letters, as another keyboard writes them.
    await person.login("u0@example.com", "pa\u0308sswo\u0308rter fu\u0308r U\u0308ni\u0308code")
    bad: tuple[object, ...] = (
        "short",
        "x" * 129,
        f"{PASSWORD}\x00",
        f"{PASSWORD}\n",
        "",
        None,
        123456789012,
        [PASSWORD],
        {"$ne": ""},
    )
    for refused in bad:
        answer = await person.post("verify-email", token="x", password=refused)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    answer = await person.post("verify-email", token="x", password="short")
    assert answer.json()["detail"] == "body.password: has 5 characters; a password has 12 to 128"
    lone = b'"password": "three words \\ud800 and a lamp"}'
    for raw in (b'{"email": "ada@example.com", ' + lone, b'{"token": "x", ' + lone, b'{"email": 1', b"\xff"):
        headers = {"Content-Type": "application/json"}
        for path in ("verify-email", "login"):
            answer = await person.client.post(f"{AUTH}/{path}", content=raw, headers=headers)
            assert answer.status_code in {400, 422}
            assert "lamp" not in answer.text


async def test_a_hash_is_made_anew_when_the_parameters_have_changed(
    app: FastAPI, person: Person, database: Database
) -> None:
    await person.register(ADA)

    async def stored() -> str:
        async with database.session() as session:
            return (await session.exec(select(Account))).one().password_hash

    before = await stored()
    await person.login(ADA)
    assert await stored() == before
    with instead(app, passwords=Passwords(AccountSettings(auth_argon2_iterations=3))):
        assert (await person.post("login", email=ADA, password=OTHER)).status_code == 401
        assert await stored() == before
        await person.login(ADA)
        assert "t=3" in await stored()
        await person.login(ADA)


async def test_when_too_many_come_at_once_they_are_told() -> None:
    passwords = Passwords(AccountSettings(auth_argon2_at_a_time=1))
    found = await asyncio.gather(
        *(passwords.verify(None, "x") for _ in range(MOST_WAITING + 3)), return_exceptions=True
    )
    assert Counter(map(type, found)) == {bool: MOST_WAITING, Unavailable: 3}
    assert not any(one is True for one in found)
    assert await passwords.verify("no hash at all", "x") is False


@pytest.fixture
def counted(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count tries, with nothing counted yet."""
    monkeypatch.setattr(app.state.limiter, "enabled", True)
    monkeypatch.setattr(app.state.limiter, "count", memory_counter())


@pytest.mark.usefixtures("counted")
async def test_passwords_cannot_be_tried_without_end(person: Person) -> None:
    await person.register(ADA)
    for email in (ADA, "nobody@example.com"):
        found = []
        for number in range(21):
            headers = {"X-Forwarded-For": f"203.0.113.{number}", "X-Real-IP": f"203.0.113.{number}"}
            body = {"email": email.upper() if number % 2 else email, "password": OTHER}
            found.append(await person.client.post(f"{AUTH}/login", json=body, headers=headers))
        assert [answer.status_code for answer in found] == [401] * 20 + [429]
        assert 0 < int(found[-1].headers["retry-after"]) <= 3600
        assert found[-1].json()["detail"] == "Too many tries. Wait a while."
    assert (await person.post("login", email=ADA, password=PASSWORD)).status_code == 429
    with time_machine.travel(time.time() + 3601):
        await person.login(ADA)


@pytest.mark.usefixtures("counted")
async def test_a_new_password_frees_an_account_that_others_have_locked(person: Person, postman: Postman) -> None:
    await person.register(ADA)
    mine = await person.login(ADA)

    async def lock(password: str) -> None:
        answers = [await person.post("login", email=ADA, password="a guess of somebody") for _ in range(21)]
        assert answers[-1].status_code == 429
        assert (await person.post("login", email=ADA, password=password)).status_code == 429

    await lock(PASSWORD)
    body = {"current_password": PASSWORD, "new_password": OTHER}
    assert (await person.client.post(f"{MINE}/change-password", json=body, headers=mine)).status_code == 429
    await person.post("forgot-password", email=ADA)
    # Asking alone frees nothing.
    assert (await person.post("login", email=ADA, password=PASSWORD)).status_code == 429
    assert (await person.post("reset-password", token=postman.link(), new_password=OTHER)).status_code == 204
    await person.login(ADA, OTHER)
    # The new password is tried no more often than the old one was.
    await lock(OTHER)


@pytest.mark.usefixtures("counted")
async def test_one_address_cannot_try_all_accounts(person: Person) -> None:
    answers = [await person.verify(f"x{number}") for number in range(101)]
    assert [answer.status_code for answer in answers] == [404] * 100 + [429]
    for path in (
        *("login", "register", "forgot-password", "reset-password", "request-verification"),
        *("verify-email", "confirm-new-email"),
    ):
        body = {"email": "x@example.com", "password": PASSWORD, "token": "x", "new_password": PASSWORD}
        assert (await person.post(path, **body)).status_code == 429


@pytest.mark.usefixtures("counted")
async def test_nobody_is_flooded_with_mails(person: Person, postman: Postman) -> None:
    await person.register(ADA)
    for email in (ADA, "nobody@example.com"):
        already = 1 if email == ADA else 0
        answers = [await person.post("forgot-password", email=email) for _ in range(5 - already)]
        answers.append(await person.post("forgot-password", email=email))
        answers.append(await person.post("register", email=email.upper()))
        assert [answer.status_code for answer in answers] == [202] * (5 - already) + [429, 429]
    assert len(postman.take()) == 4


HERE = "https://app.example.com"
OURS: list[dict[str, str]] = [
    {"Origin": HERE, "X-Requested-With": "x"},
    {"Sec-Fetch-Site": "same-origin", "X-Requested-With": "x"},
    {"Origin": HERE, "Sec-Fetch-Site": "cross-site", "X-Requested-With": "x"},
]
THEIRS: list[dict[str, str]] = [
    {},
    {"X-Requested-With": "x"},
    {"Origin": HERE},
    {"Sec-Fetch-Site": "same-origin"},
    {"Origin": HERE, "X-Requested-With": ""},
    {"Origin": "https://evil.example.com", "X-Requested-With": "x"},
    {"Origin": "null", "X-Requested-With": "x"},
    {"Origin": f"{HERE}.evil.example.com", "X-Requested-With": "x"},
    {"Origin": "http://app.example.com", "X-Requested-With": "x"},
    {"Origin": "https://example.com", "X-Requested-With": "x"},
    {"Origin": f"{HERE}/", "X-Requested-With": "x"},
    {"Referer": f"{HERE}/", "X-Requested-With": "x"},
    {"Sec-Fetch-Site": "cross-site", "X-Requested-With": "x"},
    {"Sec-Fetch-Site": "same-site", "X-Requested-With": "x"},
    {"Sec-Fetch-Site": "none", "X-Requested-With": "x"},
    {"Host": "evil.example.com", "Origin": "http://evil.example.com", "X-Requested-With": "x"},
]


@pytest.fixture
def over_https(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """People open the application over https."""
    with monkeypatch.context() as patch:
        patch.setenv("PUBLIC_URL", HERE)
        forget()
        yield
    forget()


async def test_in_development_over_http_cookies_are_such_as_browsers_take_there(app: FastAPI, person: Person) -> None:
    await person.register(ADA)
    ours = {"Origin": "http://localhost:8000", "X-Requested-With": "x"}
    async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost:8000") as browser:
        body = {"email": ADA, "password": PASSWORD, "cookies": True}
        answer = await browser.post(f"{AUTH}/login", json=body, headers=ours)
        for cookie in answer.headers.get_list("set-cookie"):
            attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
            assert attributes > {"httponly", "samesite=strict", "path=/"}
            assert "secure" not in attributes
        assert sorted(dict(browser.cookies)) == ["access", "refresh"]
        assert (await browser.get(ME)).json()["email"] == ADA
        assert (await browser.post(f"{AUTH}/refresh")).json()["code"] == "csrf"
        assert (await browser.post(f"{AUTH}/refresh", headers=ours)).status_code == 200
        assert (await browser.post(f"{AUTH}/logout", headers=ours)).status_code == 204
        assert not browser.cookies


@pytest.mark.usefixtures("over_https")
async def test_pages_in_a_browser_keep_tokens_where_no_script_reads_them(person: Person, database: Database) -> None:
    await person.register(ADA)
    body = {"email": ADA, "password": PASSWORD, "cookies": True}
    answer = await person.client.post(f"{AUTH}/login", json=body, headers=OURS[0])
    assert answer.json() == {"token_type": "bearer", "expires_in": 600}
    set_cookies = answer.headers.get_list("set-cookie")
    assert [cookie.split("=")[0] for cookie in set_cookies] == ["__Host-access", "__Host-refresh"]
    for cookie in set_cookies:
        assert {"httponly", "secure", "samesite=strict"} <= {part.strip().lower() for part in cookie.split(";")}
        assert "domain" not in cookie.lower()
        assert "Path=/;" in cookie
    first = dict(person.client.cookies)
    assert (await person.client.get(ME)).json()["email"] == ADA
    for headers in OURS:
        assert (await person.client.patch(ME, json={"display_name": "Ada"}, headers=headers)).status_code == 200
        assert (await person.client.post(f"{AUTH}/refresh", headers=headers)).status_code == 200
    assert dict(person.client.cookies) != first
    # Signing in anew ends the session that the browser had, whoever gave it to it.
    before = dict(person.client.cookies)
    await person.client.post(f"{AUTH}/login", json=body, headers=OURS[0])
    assert dict(person.client.cookies)["__Host-access"] != before["__Host-access"]
    async with database.session() as session:
        live = select(func.count()).select_from(LoginSession).where(LoginSession.revoked_at == None)  # noqa: E711
        assert (await session.exec(live)).one() == 1
    assert (await person.client.post(f"{AUTH}/logout", headers=OURS[0])).status_code == 204
    assert not person.client.cookies
    assert (await person.client.get(ME)).status_code == 401
    assert (await person.client.post(f"{AUTH}/refresh", headers=OURS[0])).status_code == 401


@pytest.mark.usefixtures("over_https")
@pytest.mark.parametrize("headers", THEIRS)
async def test_other_sites_cannot_make_a_browser_act(person: Person, headers: dict[str, str]) -> None:
    await person.register(ADA)
    body = {"email": ADA, "password": PASSWORD, "cookies": True}
    # Nor sign somebody in as somebody else.
    refused = await person.client.post(f"{AUTH}/login", json=body, headers=headers)
    assert (refused.status_code, refused.json()["code"], dict(person.client.cookies)) == (403, "csrf", {})
    await person.client.post(f"{AUTH}/login", json=body, headers=OURS[0])
    kept = dict(person.client.cookies)
    change = {"current_password": PASSWORD, "new_password": OTHER}
    for request in (
        person.client.patch(ME, json={"display_name": "Eve"}, headers=headers),
        person.client.post(f"{MINE}/change-password", json=change, headers=headers),
        person.client.delete(f"{MINE}/sessions", headers=headers),
        person.client.post(f"{AUTH}/refresh", headers=headers),
        person.client.post(f"{AUTH}/logout", headers=headers),
    ):
        answer = await request
        assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
    assert dict(person.client.cookies) == kept
    assert (await person.client.get(ME)).json()["display_name"] is None


@pytest.mark.usefixtures("over_https")
async def test_a_cookie_is_read_where_there_is_no_header_and_never_instead_of_a_bad_one(person: Person) -> None:
    await person.register(ADA)
    body = {"email": ADA, "password": PASSWORD, "cookies": True}
    await person.client.post(f"{AUTH}/login", json=body, headers=OURS[0])
    for value in ("Bearer x", "Bearer", "", "Basic x"):
        assert (await person.client.get(ME, headers={"Authorization": value})).status_code == 401
    token = person.client.cookies["__Host-access"]
    person.client.cookies.clear()
    for cookie in (
        f"access={token}",
        f"__Secure-access={token}",
        f"__host-access={token}",
        f"__Host-refresh={token}",
        "__Host-access=" + "x" * 9000,
    ):
        assert (await person.client.get(ME, headers={"Cookie": cookie})).status_code == 401
    assert (await person.client.get(ME, headers={"Cookie": f"__Host-access={token}"})).status_code == 200


@pytest.mark.usefixtures("over_https")
@pytest.mark.parametrize("twice", ["__Host-access", "__Host-refresh"])
async def test_a_cookie_that_comes_twice_is_none(person: Person, twice: str) -> None:
    """Somebody with a subdomain plants their own cookie beside the user's, to be taken for it."""
    for email in (ADA, "eve@example.com"):
        await person.register(email)
    eve = await person.login("eve@example.com")
    planted = {"__Host-access": eve["Authorization"][7:], "__Host-refresh": eve["refresh"]}[twice]
    body = {"email": ADA, "password": PASSWORD, "cookies": True}
    await person.client.post(f"{AUTH}/login", json=body, headers=OURS[0])
    own = dict(person.client.cookies)
    person.client.cookies.clear()
    mine = f"{twice}={own[twice]}"
    other = f"{twice}={planted}"
    spoilt = [f"{mark}{other}" for mark in ("\xa0", "\x85", "\x0b", "\x0c")]

    async def ask(*cookies: str) -> Response:
        headers = [(b"Cookie", cookie.encode("latin-1")) for cookie in cookies]
        if twice == "__Host-access":
            return await person.client.get(ME, headers=headers)
        headers += [(name.encode(), value.encode()) for name, value in OURS[0].items()]
        return await person.client.post(f"{AUTH}/refresh", headers=headers)

    for cookies in (
        [f"{mine}; {other}"],
        [f"{other}; {mine}"],
        [mine, other],
        [f"{other};\t{mine}"],
        [f"{mine};{mine}"],
    ):
        answer = await ask(*cookies)
        assert (answer.status_code, "more than one cookie" in answer.json()["detail"]) == (401, True)
    # What only looks like the name to who strips more than blanks is another cookie.
    for name in (*spoilt, other.upper(), other.replace("__Host-", "__host-"), other.replace("__Host-", "__Secure-")):
        assert (await ask(name)).status_code == 401
    answer = await ask(f"{mine}; {'; '.join(spoilt)}")
    assert answer.status_code == 200
    if twice == "__Host-access":
        assert answer.json()["email"] == ADA
        return
    sent = {"Cookie": f"{mine}; {other}", **OURS[0]}
    for path, content in {"logout": None, "login": body}.items():
        assert (await person.client.post(f"{AUTH}/{path}", json=content, headers=sent)).status_code == 401
    assert (await person.post("refresh", refresh_token=eve["refresh"])).status_code == 200


async def test_over_real_connections_one_of_those_who_race_wins(migrated: object) -> None:
    app = create_app()
    async with lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="https://test") as client:
        postman = Postman()
        person, outbox = Person(client, postman), app.state.outbox
        app.state.outbox = postman
        try:
            await asyncio.gather(*(person.post("register", email=ADA) for _ in range(4)))
            links = [token_in(mail) for mail in postman.take()]
            assert len(set(links)) == 4
            answers = await asyncio.gather(*(person.verify(link) for link in [*links, *links]))
            assert Counter(answer.status_code for answer in answers) == {204: 1, 404: 7}
            async with app.state.database.session() as session:
                assert (await session.exec(select(func.count()).select_from(User).where(User.email == ADA))).one() == 1

            headers = await person.login(ADA)
            answers = await asyncio.gather(
                *(person.post("refresh", refresh_token=headers["refresh"]) for _ in range(5))
            )
            assert Counter(answer.status_code for answer in answers) == {200: 5}
            [won] = {answer.json()["refresh_token"] for answer in answers}
            async with app.state.database.session() as session:
                unused = select(func.count()).select_from(RefreshToken).where(RefreshToken.used_at == None)  # noqa: E711
                assert (await session.exec(unused)).one() == 1
            assert (await person.post("refresh", refresh_token=won)).status_code == 200

            await person.post("forgot-password", email=ADA)
            link = postman.link()
            resets = (
                person.post("reset-password", token=link, new_password=new) for new in (OTHER, f"{OTHER}!", f"{OTHER}?")
            )
            answers = await asyncio.gather(*resets)
            assert sorted(answer.status_code for answer in answers) == [204, 404, 404]
        finally:
            app.state.outbox = outbox
            async with app.state.database.session() as session:
                for table in (User, MailToken):
                    for row in (await session.exec(select(table))).all():
                        await session.delete(row)


async def test_over_real_connections_nobody_signs_in_past_their_deactivation(
    migrated: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app()
    async with lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="https://test") as client:
        person, database = Person(client, Postman()), app.state.database
        verified, verify = asyncio.Event(), app.state.passwords.verify

        async def tell(*given: Any) -> bool:
            found: bool = await verify(*given)
            verified.set()
            return found

        password_hash = await app.state.passwords.hash(PASSWORD)
        async with database.session() as session:
            id = (await AccountService.create(session, ADA, password_hash, name=None)).id
        monkeypatch.setattr(app.state.passwords, "verify", tell)
        try:
            async with database.session() as session:
                (await session.get_one(User, id)).is_active = False
                await session.flush()
                await lock_out(session, id)
                # The sign-in has seen an active user, and comes to write its session before this is committed.
                signing_in = asyncio.create_task(person.post("login", email=ADA, password=PASSWORD))
                await verified.wait()
                await asyncio.sleep(0.3)
            assert (await signing_in).status_code == 401
            async with database.session() as session:
                assert (await session.exec(select(func.count()).select_from(LoginSession))).one() == 0
        finally:
            async with database.session() as session:
                await session.delete(await session.get_one(User, id))


async def test_what_has_ended_is_forgotten(person: Person, postman: Postman, database: Database) -> None:
    await person.register(ADA)
    for _ in range(3):
        await person.post("logout", refresh_token=(await person.login(ADA))["refresh"])
    await person.post("register", email="bob@example.com")
    with time_machine.travel(time.time() + 86_400 * 2):
        await person.login(ADA)
        await person.post("forgot-password", email="nobody@example.com")
        async with database.session() as session:
            counts = [
                (await session.exec(select(func.count()).select_from(table))).one()
                for table in (LoginSession, RefreshToken, MailToken)
            ]
    assert counts == [1, 1, 1]


def test_an_admin_is_made_by_who_is_at_the_terminal(migrated: object) -> None:
    def make(email: str, password: str, again: str | None = None, *more: str) -> tuple[int, str]:
        typed = f"{password}\n{again or password}\n"
        result = CliRunner().invoke(commands, ["create-admin", email, *more], input=typed, catch_exceptions=False)
        assert password not in result.output
        return result.exit_code, result.output

    async def users() -> list[User]:
        app = create_app()
        async with lifespan(app), app.state.database.session() as session:
            found = list((await session.exec(select(User))).all())
            for user in found:
                await session.delete(user)
            return found

    try:
        assert make("nobody", PASSWORD) == (1, make("nobody", PASSWORD)[1])
        assert make("nobody", PASSWORD)[1].startswith("email: is no e-mail address: ")
        assert "password: has 5 characters; a password has 12 to 128" in make("root@example.com", "short")[1]
        assert "easy to guess" in make("root@example.com", "password1234")[1]
        assert make("root@example.com", PASSWORD, OTHER)[0] == 1
        code, output = make("Root@example.com", PASSWORD, None, "--name", "Root")
        assert (code, "is an admin" in output) == (0, True), output
        code, output = make("root@example.com", OTHER)
        assert (code, "app access make-admin" in output) == (1, True)
    finally:
        [root] = asyncio.run(users())
    assert (root.email, root.role, root.display_name, root.email_verified) == (
        "root@example.com",
        Role.ADMIN,
        "Root",
        True,
    )


async def test_nothing_secret_is_logged(person: Person, postman: Postman) -> None:
    with capture_logs() as logs:
        await person.register(ADA)
        headers = await person.login(ADA)
        await person.post("login", email=ADA, password=OTHER)
        await person.post("forgot-password", email=ADA)
        link = postman.link()
        await person.post("reset-password", token=link, new_password=OTHER)
    text = str(logs)
    assert "password changed" in text
    for secret in (PASSWORD, OTHER, headers["refresh"], headers["Authorization"][7:], link, ADA):
        assert secret not in text

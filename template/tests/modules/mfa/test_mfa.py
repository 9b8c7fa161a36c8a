"""The second factor: what lets people in beside their password, and what else does not."""

import asyncio
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pyotp
import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import func, select
from structlog.testing import capture_logs
from typer.testing import CliRunner

from app.kit import clock
from app.kit.limits import memory_counter
from app.kit.settings import SettingsError, forget, load
from app.main import create_app, lifespan
from app.modules.accounts.models import LoginSession
from app.modules.accounts.repository import CREDENTIALS_BY_ADDRESS, AccountRepository, Credentials
from app.modules.accounts.service import AccountService
from app.modules.mfa.commands import commands
from app.modules.mfa.models import MfaChallenge, Passkey, RecoveryCode, Totp
from app.modules.mfa.passkeys import MOST_ID_BYTES, Passkeys, WrongPasskey
from app.modules.mfa.sealing import FactorSecrets
from app.modules.mfa.service import MOST_PASSKEYS, admins_with_factors, reset_factors
from app.modules.mfa.settings import MfaSettings
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.identity.bearer import Role
from tests.modules.accounts.conftest import AUTH, MINE, PASSWORD, Person, Postman, instead
from tests.modules.mfa.authenticator import PRESENT, VERIFIED, Authenticator

ADA, EVE = "ada@example.com", "eve@example.com"
OTHER = "another lamp, and four words"
ME, USERS = "/api/v1/app/users/me", "/api/v1/admin/users"
KEYS = "/api/v1/app/api-keys"
OURS = {"X-Requested-With": "fetch", "Origin": "http://localhost:8000"}


class Owner:
    """Somebody with an account, signed in."""

    def __init__(self, person: Person, headers: dict[str, str], email: str = ADA) -> None:
        self.person, self.headers, self.email = person, headers, email
        self.secret = ""
        self.codes: list[str] = []

    async def ask(self, path: str, method: str = "POST", **body: Any) -> Response:
        content = body if method == "POST" else None
        return await self.person.client.request(method, f"{MINE}/{path}", json=content, headers=self.headers)

    def code(self, later: int = 0) -> str:
        """What the application shows now, or so many steps later."""
        return pyotp.TOTP(self.secret).at(clock.now() + timedelta(seconds=30 * later))

    async def add_totp(self) -> None:
        """Set an application up. Its code of now has been used."""
        self.secret = (await self.ask("totp", password=PASSWORD)).json()["secret"]
        answer = await self.ask("totp/confirm", code=self.code())
        assert answer.status_code == 200, answer.text
        self.codes = answer.json()["recovery_codes"] or self.codes

    async def add_passkey(self, key: Authenticator, name: str = "Laptop", **other: Any) -> Response:
        asked = (await self.ask("passkeys/options", password=PASSWORD)).json()
        made = key.create(asked["options"], **other)
        answer = await self.ask("passkeys", token=asked["token"], passkey=made, name=name)
        if answer.status_code == 201:
            self.codes = answer.json()["recovery_codes"] or self.codes
        return answer

    async def show(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.ask("second-factor", "GET")).json()
        return found


async def enter(person: Person, email: str = ADA, password: str = PASSWORD) -> dict[str, Any]:
    """Show the password, and return what is asked for beside it."""
    answer = await person.post("login", email=email, password=password)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


def bearer(answer: Response) -> dict[str, str]:
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}", "refresh": answer.json()["refresh_token"]}


@pytest.fixture
def clockwork() -> Iterator[time_machine.Traveller]:
    """A clock that stands still until it is moved."""
    with time_machine.travel(time.time(), tick=False) as traveller:
        yield traveller


@pytest.fixture
async def ada(person: Person) -> Owner:
    await person.register(ADA)
    return Owner(person, await person.login(ADA))


@pytest.fixture
async def eve(person: Person) -> Owner:
    await person.register(EVE)
    return Owner(person, await person.login(EVE), EVE)


@pytest.mark.usefixtures("clockwork")
async def test_a_code_is_asked_for_beside_the_password(ada: Owner, person: Person, postman: Postman) -> None:
    elsewhere = await person.login(ADA)
    asked = await ada.ask("totp", password=PASSWORD)
    assert (asked.status_code, sorted(asked.json())) == (201, ["secret", "uri"])
    assert re.fullmatch(r"[A-Z2-7]{32}", asked.json()["secret"])
    assert pyotp.parse_uri(asked.json()["uri"]).name == ADA
    # Nothing is asked for until the application has shown a code.
    assert (await person.post("login", email=ADA, password=PASSWORD)).status_code == 200
    postman.take()

    await ada.add_totp()
    assert len(ada.codes) == len(set(ada.codes)) == 10
    assert await ada.show() == {"required": False, "totp": True, "passkeys": [], "recovery_codes_left": 10}
    assert [mail.subject for mail in postman.take()] == ["The second factor of your account"]
    # Who signed in without it is out, and this session goes on as one that has shown it.
    assert (await person.client.get(ME, headers=elsewhere)).status_code == 401
    assert (await person.client.get(ME, headers=ada.headers)).status_code == 200

    question = await enter(person)
    assert question == {
        "token": question["token"],
        "expires_in": 300,
        "methods": ["totp", "recovery_code"],
    }
    assert (await person.post("refresh", refresh_token=question["token"])).status_code == 401
    assert (await person.client.get(ME, headers={"Authorization": f"Bearer {question['token']}"})).status_code == 401
    headers = bearer(await person.post("second-factor", token=question["token"], code=ada.code(1)))
    assert (await person.client.get(ME, headers=headers)).json()["email"] == ADA
    refreshed = await person.post("refresh", refresh_token=headers["refresh"])
    assert bearer(refreshed)["refresh"] != headers["refresh"]


async def test_each_code_is_taken_once_and_none_before_it(
    ada: Owner, person: Person, clockwork: time_machine.Traveller
) -> None:
    await ada.add_totp()

    async def show(code: str) -> tuple[int, str]:
        answer = await person.post("second-factor", token=(await enter(person))["token"], code=code)
        return answer.status_code, answer.json().get("code", "")

    wrong = (403, "wrong_code")
    assert await show(ada.code()) == wrong  # It has been confirmed with this one.
    assert await show(ada.code(1)) == (200, "")
    assert await show(ada.code(1)) == wrong
    assert await show(ada.code()) == wrong
    assert await show(ada.code(2)) == wrong  # Of a clock that is too far ahead.
    clockwork.shift(90)
    assert await show(ada.code(-2)) == wrong
    assert await show(f"{ada.code()[:3]} {ada.code()[3:]}") == (200, "")
    assert await show("000000" if ada.code(1) != "000000" else "111111") == wrong


@pytest.mark.usefixtures("clockwork")
async def test_a_question_is_answered_once_in_time_and_by_whom_it_was_asked(
    app: FastAPI, ada: Owner, eve: Owner, person: Person, postman: Postman, clockwork: time_machine.Traveller
) -> None:
    await ada.add_totp()
    await eve.add_totp()

    async def answer(question: dict[str, Any], code: str) -> tuple[int, str]:
        found = await person.post("second-factor", token=question["token"], code=code)
        return found.status_code, found.json().get("code", "")

    over = (403, "challenge_over")
    clockwork.shift(60)
    question = await enter(person)
    assert await answer(question, eve.code()) == (403, "wrong_code")
    assert await answer(question, eve.codes[0]) == (403, "wrong_code")
    assert await answer(question, ada.code()) == (200, "")
    assert await answer(question, ada.code(1)) == over
    assert await answer({"token": "nothing"}, ada.code(1)) == over
    assert await answer({"token": ada.headers["refresh"]}, ada.code(1)) == over

    late, changed = await enter(person), await enter(person)
    body = {"current_password": PASSWORD, "new_password": OTHER}
    assert (await ada.ask("change-password", **body)).status_code == 204
    assert await answer(changed, ada.code(1)) == over
    late = await enter(person, password=OTHER)
    clockwork.shift(301)
    assert await answer(late, ada.code()) == over

    question = await enter(person, password=OTHER)
    async with app.state.database.session() as session:
        user = (await session.exec(select(User).where(User.email == ADA))).one()
        user.is_active = False
        session.add(user)
    assert await answer(question, ada.code()) == over


async def test_recovery_codes_are_good_once(ada: Owner, person: Person, postman: Postman) -> None:
    await ada.add_totp()
    postman.take()

    async def show(code: str) -> int:
        return (await person.post("second-factor", token=(await enter(person))["token"], code=code)).status_code

    used = ada.codes[0]
    assert re.fullmatch(r"[0-9a-f]{5}-[0-9a-f]{5}-[0-9a-f]{5}", used)
    assert await show(used) == 200
    [mail] = postman.take()
    assert "of which 9 are left" in mail.text
    assert await show(used) == 403
    assert await show(ada.codes[1].replace("-", " ").upper()) == 200
    assert (await ada.show())["recovery_codes_left"] == 8

    assert (await ada.ask("recovery-codes", password=OTHER)).status_code == 403
    renewed = (await ada.ask("recovery-codes", password=PASSWORD)).json()["recovery_codes"]
    assert (len(renewed), await show(ada.codes[2]), await show(renewed[0])) == (10, 403, 200)


async def test_what_is_stored_makes_no_codes(
    ada: Owner, eve: Owner, database: Database, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ada.add_totp()
    async with database.session() as session:
        totp = (await session.exec(select(Totp))).one()
        stored = [it.code_hash for it in (await session.exec(select(RecoveryCode))).all()]
    assert ada.secret.encode() not in totp.secret
    plain = [code.replace("-", "") for code in ada.codes]
    assert not set(stored) & {*plain, *ada.codes}

    ours = FactorSecrets(["the secret of the service"])
    sealed = ours.seal(ada.secret, totp.user_id)
    assert ours.unseal(sealed, totp.user_id) == ada.secret
    assert ours.seal(ada.secret, totp.user_id) != sealed
    # Neither for another user, nor with another key, nor changed.
    assert ours.unseal(sealed, UUID(int=7)) is None
    assert FactorSecrets(["another"]).unseal(sealed, totp.user_id) is None
    assert ours.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1]), totp.user_id) is None
    assert FactorSecrets(["another", "the secret of the service"]).unseal(sealed, totp.user_id) == ada.secret
    assert ours.hashes("x", totp.user_id) != ours.hashes("x", UUID(int=7))


@pytest.mark.usefixtures("clockwork")
async def test_a_new_secret_key_locks_nobody_out_who_keeps_the_earlier_one(
    app: FastAPI, ada: Owner, person: Person, database: Database, clockwork: time_machine.Traveller
) -> None:
    await ada.add_totp()
    before = app.state.sealing

    async def show(code: str) -> int:
        return (await person.post("second-factor", token=(await enter(person))["token"], code=code)).status_code

    new = FactorSecrets(["a new secret"])
    both = FactorSecrets(["a new secret"])
    both._sealing._ciphers += before._sealing._ciphers
    both._hashing += before._hashing
    clockwork.shift(60)
    with instead(app, sealing=new), capture_logs() as logs:
        assert [await show(ada.code()), await show(ada.codes[0])] == [403, 403]
    assert any("SECRET_KEY_FALLBACKS" in log["event"] for log in logs)
    with instead(app, sealing=both):
        assert [await show(ada.code()), await show(ada.codes[0])] == [200, 200]
    clockwork.shift(60)
    with instead(app, sealing=new):
        assert await show(ada.code()) == 200  # What was used has been sealed anew.


async def test_setting_up_asks_for_the_password_and_ends(
    ada: Owner, eve: Owner, person: Person, clockwork: time_machine.Traveller
) -> None:
    assert (await ada.ask("totp", password=OTHER)).status_code == 403
    assert (await ada.ask("totp")).status_code == 422
    assert (await person.client.post(f"{MINE}/totp", json={"password": PASSWORD})).status_code == 401
    assert (await ada.ask("totp/confirm", code="123456")).status_code == 409
    first = (await ada.ask("totp", password=PASSWORD)).json()["secret"]
    ada.secret = (await ada.ask("totp", password=PASSWORD)).json()["secret"]
    assert ada.secret != first
    assert (await ada.ask("totp/confirm", code=pyotp.TOTP(first).at(clock.now()))).status_code == 403
    assert (await eve.ask("totp/confirm", code=ada.code())).status_code == 409
    clockwork.shift(901)
    ada.headers = await person.login(ADA)
    assert (await ada.ask("totp/confirm", code=ada.code())).status_code == 409
    assert (await ada.ask("recovery-codes", password=PASSWORD)).status_code == 409

    await ada.add_totp()
    assert (await ada.ask("totp", password=PASSWORD)).status_code == 409
    assert (await ada.ask("totp/confirm", code=ada.code(1))).status_code == 409
    assert (await ada.ask("totp/remove", password=OTHER)).status_code == 403
    assert (await enter(person))["methods"] == ["totp", "recovery_code"]
    assert (await ada.ask("totp/remove", password=PASSWORD)).status_code == 204
    assert (await ada.ask("totp/remove", password=PASSWORD)).status_code == 204
    assert (await ada.show())["recovery_codes_left"] == 0
    await person.login(ADA)


async def test_a_passkey_lets_in_beside_the_password(ada: Owner, person: Person, postman: Postman) -> None:
    key = Authenticator(verifies=False)
    postman.take()
    answer = await ada.add_passkey(key)
    assert (answer.status_code, len(answer.json()["recovery_codes"])) == (201, 10), answer.text
    assert "A passkey was added" in postman.take()[0].text
    [shown] = (await ada.show())["passkeys"]
    assert (shown["name"], shown["last_used_at"]) == ("Laptop", None)

    question = await enter(person)
    assert question["methods"] == ["passkey", "recovery_code"]
    options = question["passkey_options"]
    [allowed] = options["allowCredentials"]
    assert (options["rpId"], allowed["transports"]) == ("localhost", ["internal", "hybrid"])
    headers = bearer(await person.post("second-factor", token=question["token"], passkey=key.get(options)))
    assert (await person.client.get(ME, headers=headers)).status_code == 200
    assert (await ada.show())["passkeys"][0]["last_used_at"]

    second = Authenticator()
    answer = await ada.add_passkey(second, "Phone")
    assert (answer.status_code, answer.json()) == (201, {"recovery_codes": None})
    # Who has several keeps the rest when one goes.
    phone, laptop = (await ada.show())["passkeys"]
    assert (await ada.ask(f"passkeys/{laptop['id']}/remove", password=OTHER)).status_code == 403
    assert (await ada.ask(f"passkeys/{laptop['id']}/remove", password=PASSWORD)).status_code == 204
    assert (await ada.ask(f"passkeys/{laptop['id']}/remove", password=PASSWORD)).status_code == 404
    question = await enter(person)
    gone = key.get(question["passkey_options"])
    assert (await person.post("second-factor", token=question["token"], passkey=gone)).status_code == 403
    good = second.get(question["passkey_options"])
    assert (await person.post("second-factor", token=question["token"], passkey=good)).status_code == 200
    assert (await ada.ask(f"passkeys/{phone['id']}/remove", password=PASSWORD)).status_code == 204
    assert (await ada.show())["recovery_codes_left"] == 0
    await person.login(ADA)


async def test_a_passkey_lets_in_alone_when_it_knows_its_owner(ada: Owner, person: Person, database: Database) -> None:
    key = Authenticator()
    await ada.add_passkey(key)

    async def sign_in(key: Authenticator, **other: Any) -> Response:
        question = (await person.post("passkey-options")).json()
        assert question["options"]["userVerification"] == "required"
        assert question["options"]["allowCredentials"] == []
        return await person.post("passkey", token=question["token"], passkey=key.get(question["options"], **other))

    headers = bearer(await sign_in(key))
    assert (await person.client.get(ME, headers=headers)).json()["email"] == ADA
    assert (await sign_in(key, flags=PRESENT)).status_code == 403  # Whoever has found it.
    assert (await sign_in(key, owner=b"")).status_code == 403
    assert (await sign_in(key, owner=UUID(int=7).bytes)).status_code == 403
    assert (await sign_in(Authenticator())).json()["code"] == "wrong_passkey"
    # What is asked beside a password does not open without one, and the other way round.
    alone, beside = (await person.post("passkey-options")).json(), await enter(person)
    for path, question, options in (
        ("second-factor", alone, alone["options"]),
        ("passkey", beside, beside["passkey_options"]),
    ):
        answer = await person.post(path, token=question["token"], passkey=key.get(options))
        assert (answer.status_code, answer.json()["code"]) == (403, "challenge_over")

    async with database.session() as session:
        user = (await session.exec(select(User).where(User.email == ADA))).one()
        user.is_active = False
        session.add(user)
    answer = await sign_in(key)
    assert (answer.status_code, answer.json()["code"]) == (403, "account_deactivated")


async def test_the_passkey_of_somebody_else_is_no_second_factor(ada: Owner, eve: Owner, person: Person) -> None:
    key = Authenticator()
    await ada.add_passkey(Authenticator())
    await eve.add_passkey(key)
    question = await enter(person)
    for owner in (b"", key.owner):
        good = key.get(question["passkey_options"], owner=owner)
        answer = await person.post("second-factor", token=question["token"], passkey=good)
        assert (answer.status_code, answer.json()["code"]) == (403, "wrong_passkey")


async def test_the_answer_of_a_passkey_that_does_not_count_is_good_once(ada: Owner, person: Person) -> None:
    key = Authenticator()
    await ada.add_passkey(key, count=0)
    question = (await person.post("passkey-options")).json()
    body = {"token": question["token"], "passkey": key.get(question["options"], count=0)}
    assert (await person.post("passkey", **body)).status_code == 200
    answer = await person.post("passkey", **body)
    assert (answer.status_code, answer.json()["code"]) == (403, "challenge_over")


@pytest.mark.usefixtures("clockwork")
async def test_what_asks_for_a_new_passkey_signs_nobody_in(ada: Owner, person: Person) -> None:
    await ada.add_totp()
    asked = (await ada.ask("passkeys/options", password=PASSWORD)).json()
    answer = await person.post("second-factor", token=asked["token"], code=ada.code(1))
    assert (answer.status_code, answer.json()["code"]) == (403, "challenge_over")


@pytest.mark.usefixtures("clockwork")
async def test_who_is_let_in_again_is_asked_again(ada: Owner, eve: Owner, person: Person, database: Database) -> None:
    await ada.add_totp()
    question = await enter(person)
    await role(database, Role.ADMIN, EVE)
    id = (await person.client.get(ME, headers=ada.headers)).json()["id"]
    for change in ("deactivate", "activate"):
        assert (await person.client.post(f"{USERS}/{id}/{change}", headers=eve.headers)).is_success
    answer = await person.post("second-factor", token=question["token"], code=ada.code(1))
    assert (answer.status_code, answer.json()["code"]) == (403, "challenge_over")


async def test_the_first_code_cannot_be_guessed_without_end(
    app: FastAPI, ada: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ada.ask("totp", password=PASSWORD)
    monkeypatch.setattr(app.state.limiter, "enabled", True)
    monkeypatch.setattr(app.state.limiter, "count", memory_counter())
    found = [(await ada.ask("totp/confirm", code="abcdef")).status_code for _ in range(21)]
    assert found == [403] * 20 + [429]


FORGED: dict[str, Callable[[Authenticator], dict[str, Any]]] = {
    "another origin": lambda _: {"origin": "https://evil.example.com"},
    "an origin that begins like ours": lambda _: {"origin": "http://localhost:8000.evil.example.com"},
    "another domain": lambda _: {"domain": "evil.example.com"},
    "another question": lambda _: {"challenge": "AAAA"},
    "the answer to a registration": lambda _: {"kind": "webauthn.create"},
    "another key": lambda _: {"key": ec.generate_private_key(ec.SECP256R1())},
    "nobody was there": lambda _: {"flags": VERIFIED},
    "a count that has been": lambda key: {"count": key.count},
    "another id": lambda _: {"id": bytes(32)},
    "another owner": lambda _: {"owner": UUID(int=7).bytes},
}


@pytest.mark.parametrize("forged", FORGED)
async def test_what_no_passkey_of_theirs_signed_lets_nobody_in(ada: Owner, person: Person, forged: str) -> None:
    key = Authenticator()
    await ada.add_passkey(key)
    question = await enter(person)
    good = key.get(question["passkey_options"])
    assert (await person.post("second-factor", token=question["token"], passkey=good)).status_code == 200
    question = await enter(person)
    bad = key.get(question["passkey_options"], **FORGED[forged](key))
    answer = await person.post("second-factor", token=question["token"], passkey=bad)
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_passkey")
    # The answer of before is none to this question either.
    answer = await person.post("second-factor", token=question["token"], passkey=good)
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_passkey")


async def test_a_passkey_is_added_by_whom_it_was_asked_and_once(ada: Owner, eve: Owner, person: Person) -> None:
    key = Authenticator()
    assert (await ada.ask("passkeys/options", password=OTHER)).status_code == 403
    asked = (await ada.ask("passkeys/options", password=PASSWORD)).json()
    body = {"token": asked["token"], "passkey": key.create(asked["options"]), "name": "Laptop"}
    for forged in ("another origin", "another domain", "another question", "nobody was there"):
        other = FORGED[forged](key)
        bad = {**body, "passkey": key.create(asked["options"], **other)}
        assert (await ada.ask("passkeys", **bad)).json()["code"] == "wrong_passkey", forged
    long = {**body, "passkey": key.create(asked["options"], id=bytes(MOST_ID_BYTES + 1))}
    assert (await ada.ask("passkeys", **long)).json()["code"] == "wrong_passkey"
    assert (await eve.ask("passkeys", **body)).json()["code"] == "challenge_over"
    assert (await ada.ask("passkeys", **body)).status_code == 201
    assert (await ada.ask("passkeys", **body)).json()["code"] == "challenge_over"
    # Nor is it anybody else's beside.
    answer = await eve.add_passkey(key)
    assert (answer.status_code, (await eve.show())["passkeys"]) == (409, [])
    # To add one is no way in.
    asked = (await ada.ask("passkeys/options", password=PASSWORD)).json()
    assert asked["options"]["excludeCredentials"]
    answer = await person.post("passkey", token=asked["token"], passkey=body["passkey"])
    assert answer.json()["code"] == "challenge_over"


async def test_passkeys_have_an_end(ada: Owner, person: Person) -> None:
    for number in range(MOST_PASSKEYS - 1):
        assert (await ada.add_passkey(Authenticator(), str(number))).status_code == 201
    asked = [(await ada.ask("passkeys/options", password=PASSWORD)).json() for _ in range(2)]
    made = [{"token": it["token"], "passkey": Authenticator().create(it["options"]), "name": "x"} for it in asked]
    assert [(await ada.ask("passkeys", **body)).status_code for body in made] == [201, 409]
    assert (await ada.ask("passkeys/options", password=PASSWORD)).status_code == 409


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | st.just("AAAA"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
parts = ("clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle", "transports")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(["id", "rawId", "type", "response"]), json_values),
    st.dictionaries(st.sampled_from(parts), json_values | st.binary(max_size=60).map(lambda it: it.hex())),
)
def test_whatever_comes_for_a_passkey_is_refused(credential: dict[str, Any], response: dict[str, Any]) -> None:
    passkeys, nonce = Passkeys("localhost", "A service"), bytes(32)
    known = Passkey(user_id=UUID(int=1), name="x", credential_id="AAAA", public_key=b"\xa0")
    for sent in (credential, {**credential, "response": response}, {**credential, "type": "public-key"}):
        with pytest.raises(WrongPasskey):
            passkeys.make(sent, nonce, UUID(int=1), "x")
        with pytest.raises(WrongPasskey):
            passkeys.verify(sent, nonce, known, alone=False)


@pytest.mark.parametrize("id", ["\0", "a\0b", "\ud800", "a" * 5000, "' or 1=1 --", None, 5, [], {}])
async def test_no_id_of_a_passkey_reaches_the_database_that_is_none(ada: Owner, person: Person, id: object) -> None:
    await ada.add_passkey(Authenticator())
    question = await enter(person)
    passkey = {"id": id, "rawId": "AAAA", "type": "public-key", "response": {}}
    body = json.dumps({"token": question["token"], "passkey": passkey})
    headers = {"Content-Type": "application/json"}
    answer = await person.client.post(f"{AUTH}/second-factor", content=body, headers=headers)
    assert answer.json()["code"] in {"wrong_passkey", "validation_error"}


async def test_an_answer_is_one(ada: Owner, person: Person) -> None:
    await ada.add_totp()
    token = (await enter(person))["token"]
    for body in (
        {},
        {"code": "123456", "passkey": {}},
        {"code": "12345"},
        {"code": "1" * 21},
        {"code": "123\n456"},
    ):
        assert (await person.post("second-factor", token=token, **body)).status_code == 422, body
    assert (await person.post("second-factor", token=token, code="123456", user_id=1)).status_code == 422


async def test_codes_cannot_be_tried_without_end(
    app: FastAPI, ada: Owner, person: Person, monkeypatch: pytest.MonkeyPatch, clockwork: time_machine.Traveller
) -> None:
    await ada.add_totp()
    key = Authenticator()
    await ada.add_passkey(key)
    monkeypatch.setattr(app.state.limiter, "enabled", True)
    monkeypatch.setattr(app.state.limiter, "count", memory_counter())
    questions = [await enter(person) for _ in range(3)]
    found = []
    for number in range(22):
        code = "abcde-abcde-abcde" if number % 2 else ("000000" if ada.code(1) != "000000" else "111111")
        found.append((await person.post("second-factor", token=questions[number % 2]["token"], code=code)).status_code)
    assert found == [403] * 20 + [429] * 2
    assert (await person.post("second-factor", token=questions[2]["token"], code=ada.code(1))).status_code == 429
    # Who has the key needs no guesses.
    good = key.get(questions[2]["passkey_options"])
    assert (await person.post("second-factor", token=questions[2]["token"], passkey=good)).status_code == 200
    clockwork.shift(3601)
    question = await enter(person)
    assert (await person.post("second-factor", token=question["token"], code=ada.code())).status_code == 200


async def test_one_address_cannot_try_them_all(app: FastAPI, person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.state.limiter, "enabled", True)
    monkeypatch.setattr(app.state.limiter, "count", memory_counter())
    answers = [await person.post("second-factor", token=f"x{number}", code="123456") for number in range(101)]
    assert [answer.status_code for answer in answers] == [403] * 100 + [429]
    assert (await person.post("passkey-options")).status_code == 429
    assert (await person.post("passkey", token="x", passkey={})).status_code == 429


async def test_cookies_come_with_the_second_factor_and_not_before(
    ada: Owner, person: Person, clockwork: time_machine.Traveller
) -> None:
    await ada.add_totp()
    body = {"email": ADA, "password": PASSWORD, "cookies": True}
    answer = await person.client.post(f"{AUTH}/login", json=body, headers=OURS)
    assert (answer.status_code, "set-cookie" in answer.headers) == (202, False)
    given = {"token": answer.json()["token"], "code": ada.code(1), "cookies": True}
    answer = await person.client.post(f"{AUTH}/second-factor", json=given)
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf")
    answer = await person.client.post(f"{AUTH}/second-factor", json=given, headers=OURS)
    assert (answer.status_code, list(answer.json())) == (200, ["token_type", "expires_in"])
    assert len(answer.headers.get_list("set-cookie")) == 2


async def test_a_forgotten_password_does_not_take_the_second_factor_along(
    ada: Owner, person: Person, postman: Postman
) -> None:
    await ada.add_totp()
    postman.take()
    await person.post("forgot-password", email=ADA)
    assert (await person.post("reset-password", token=postman.link(), new_password=OTHER)).status_code == 204
    question = await enter(person, password=OTHER)
    assert (await person.post("second-factor", token=question["token"], code=ada.codes[0])).status_code == 200


async def test_a_password_that_is_wrong_tells_nothing_of_a_second_factor(ada: Owner, person: Person) -> None:
    await ada.add_totp()
    answers = [await person.post("login", email=email, password=OTHER) for email in (ADA, EVE)]
    assert [answer.status_code for answer in answers] == [401, 401]
    bodies = [{k: v for k, v in it.json().items() if k not in {"request_id", "timestamp"}} for it in answers]
    assert bodies[0] == bodies[1]


@pytest.fixture
def needed(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Admins need a second factor."""
    monkeypatch.setenv("AUTH_ADMIN_MFA", "true")
    forget()
    with instead(app, identify=admins_with_factors(app.state.identify)):
        yield
    monkeypatch.undo()
    forget()


async def role(database: Database, role: Role, email: str = ADA) -> None:
    async with database.session() as session:
        user = (await session.exec(select(User).where(User.email == email))).one()
        user.role = role
        session.add(user)


@pytest.mark.usefixtures("needed", "clockwork")
async def test_admins_are_admins_only_with_a_second_factor(ada: Owner, person: Person, database: Database) -> None:
    await role(database, Role.ADMIN)

    async def administer(headers: dict[str, str]) -> tuple[int, str]:
        answer = await person.client.get(USERS, headers=headers)
        return answer.status_code, answer.json().get("code", "")

    withheld = (403, "admin_withheld")
    assert await administer(ada.headers) == withheld
    assert (await ada.show())["required"] is True
    key = {"name": "Export", "scopes": ["admin:read"]}
    assert (await person.client.post(KEYS, json=key, headers=ada.headers)).json()["code"] == "admin_withheld"
    # For themselves they may do what everybody may.
    assert (await person.client.get(ME, headers=ada.headers)).json()["role"] == "admin"
    await ada.add_totp()
    # The token is of before; the next one says it.
    assert await administer(ada.headers) == withheld
    refreshed = bearer(await person.post("refresh", refresh_token=ada.headers["refresh"]))
    assert await administer(refreshed) == (200, "")
    question = await enter(person)
    headers = bearer(await person.post("second-factor", token=question["token"], code=ada.code(1)))
    assert await administer(headers) == (200, "")

    made = await person.client.post(KEYS, json=key, headers=headers)
    with_key = {"Authorization": f"Bearer {made.json()['key']}"}
    assert await administer(with_key) == (200, "")
    # Without a factor neither sign-ins nor the keys of before are an admin's.
    assert (await person.client.post(f"{MINE}/totp/remove", json={"password": PASSWORD}, headers=headers)).is_success
    assert await administer(with_key) == withheld
    assert await administer(await person.login(ADA)) == withheld
    # Nor is an application one that has shown no code yet.
    assert (await person.client.post(f"{MINE}/totp", json={"password": PASSWORD}, headers=headers)).is_success
    assert await administer(with_key) == withheld


@pytest.mark.usefixtures("needed")
async def test_what_is_needed_of_admins_makes_nobody_one(ada: Owner, person: Person, database: Database) -> None:
    await ada.add_totp()
    headers = bearer(await person.post("refresh", refresh_token=ada.headers["refresh"]))
    assert (await person.client.get(USERS, headers=headers)).json()["code"] == "admins_only"
    assert (await ada.show())["required"] is False


async def test_admins_sign_in_with_a_password_where_nothing_more_is_needed(
    ada: Owner, person: Person, database: Database
) -> None:
    await role(database, Role.ADMIN)
    assert (await person.client.get(USERS, headers=ada.headers)).status_code == 200


async def test_readers_take_care_of_their_second_factor(ada: Owner, person: Person, database: Database) -> None:
    await role(database, Role.READONLY)
    await ada.add_totp()
    await ada.add_passkey(Authenticator())
    assert (await ada.ask("recovery-codes", password=PASSWORD)).status_code == 200
    [passkey] = (await ada.show())["passkeys"]
    assert (await ada.ask(f"passkeys/{passkey['id']}/remove", password=PASSWORD)).status_code == 204
    assert (await ada.ask("totp/remove", password=PASSWORD)).status_code == 204


async def test_no_key_of_a_program_changes_how_somebody_signs_in(ada: Owner, person: Person) -> None:
    made = await person.client.post(KEYS, json={"name": "x", "scopes": ["write"]}, headers=ada.headers)
    ada.headers = {"Authorization": f"Bearer {made.json()['key']}"}
    for path in ("totp", "totp/remove", "recovery-codes", "passkeys/options", f"passkeys/{UUID(int=1)}/remove"):
        assert (await ada.ask(path, password=PASSWORD)).status_code == 403, path
    assert (await ada.ask("second-factor", "GET")).status_code == 403


async def test_nobody_removes_the_passkey_of_somebody_else(ada: Owner, eve: Owner) -> None:
    await ada.add_passkey(Authenticator())
    [passkey] = (await ada.show())["passkeys"]
    assert (await eve.ask(f"passkeys/{passkey['id']}/remove", password=PASSWORD)).status_code == 404
    assert len((await ada.show())["passkeys"]) == 1


async def test_what_was_asked_and_never_answered_is_forgotten(
    ada: Owner, person: Person, database: Database, clockwork: time_machine.Traveller
) -> None:
    for _ in range(3):
        await person.post("passkey-options")
    clockwork.shift(301)
    await person.post("passkey-options")
    async with database.session() as session:
        assert (await session.exec(select(func.count()).select_from(MfaChallenge))).one() == 1


async def test_factors_go_with_their_owner(ada: Owner, database: Database) -> None:
    await ada.add_totp()
    await ada.add_passkey(Authenticator())
    async with database.session() as session:
        await session.delete((await session.exec(select(User).where(User.email == ADA))).one())
    async with database.session() as session:
        for table in (Totp, RecoveryCode, Passkey):
            assert (await session.exec(select(func.count()).select_from(table))).one() == 0


async def test_nothing_secret_is_logged(ada: Owner, person: Person, caplog: pytest.LogCaptureFixture) -> None:
    with capture_logs() as logs, caplog.at_level(logging.DEBUG):
        await ada.add_totp()
        question = await enter(person)
        await person.post("second-factor", token=question["token"], code=ada.code(5))
        await person.post("second-factor", token=question["token"], code=ada.codes[0])
    text = str(logs) + caplog.text
    assert "recovery code used" in text
    for secret in (ada.secret, question["token"], ada.codes[0], ada.codes[0].replace("-", ""), ADA):
        assert secret not in text


def test_over_real_connections_nobody_signs_in_past_a_first_factor(migrated: object) -> None:
    """Whoever has the password, and comes while its owner adds a factor, has no session afterwards."""
    asyncio.run(race())


async def race() -> None:
    app = create_app()
    async with lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="https://test") as client:
        postman = Postman()
        with instead(app, outbox=postman):
            person = Person(client, postman)
            password_hash = await app.state.passwords.hash(PASSWORD)
            async with app.state.database.session() as session:
                id = (await AccountService.create(session, ADA, password_hash, name=None)).id
            try:
                ada = Owner(person, await person.login(ADA))
                ada.secret = (await ada.ask("totp", password=PASSWORD)).json()["secret"]
                confirming = [ada.ask("totp/confirm", code=ada.code()) for _ in range(2)]
                coming = [person.post("login", email=ADA, password=PASSWORD) for _ in range(6)]
                answers = await asyncio.gather(*confirming, *coming)
                assert sorted(answer.status_code for answer in answers[:2]) == [200, 409]
                assert {answer.status_code for answer in answers[2:]} <= {200, 202}
                async with app.state.database.session() as session:
                    live = select(LoginSession).where(LoginSession.revoked_at == None)  # noqa: E711
                    assert [it.amr for it in (await session.exec(live)).all()] == ["pwd otp mfa"]
                # One code of those who send it at once.
                question = await enter(person)
                both = [person.post("second-factor", token=question["token"], code=ada.code(1)) for _ in range(4)]
                assert Counter(answer.status_code for answer in await asyncio.gather(*both)) == {200: 1, 403: 3}
                questions = [await enter(person) for _ in range(4)]
                code = next(iter((await ada.ask("recovery-codes", password=PASSWORD)).json()["recovery_codes"]))
                several = [person.post("second-factor", token=it["token"], code=code) for it in questions]
                assert Counter(answer.status_code for answer in await asyncio.gather(*several)) == {200: 1, 403: 3}
            finally:
                async with app.state.database.session() as session:
                    await session.delete(await session.get_one(User, id))


def test_a_reset_leaves_nobody_in_who_is_just_signing_in(migrated: object) -> None:
    """Whoever answers while a second factor is reset has no session afterwards."""
    asyncio.run(race_with_reset())


async def race_with_reset() -> None:
    app = create_app()
    async with lifespan(app):
        database: Database = app.state.database
        async with database.session() as session:
            id = (await AccountService.create(session, ADA, "x", name=None)).id
        [row] = await database.fetch(CREDENTIALS_BY_ADDRESS, {"address": ADA})
        known = Credentials.model_validate(row, from_attributes=True)

        async def reset() -> None:
            async with database.session() as session:
                await reset_factors(session, known)

        try:
            async with database.session() as session:
                await AccountRepository(session).by_user(id)
                session.add(LoginSession(user_id=id, last_used_at=clock.now(), expires_at=clock.now()))
                await session.flush()
                resetting = asyncio.create_task(reset())
                await asyncio.wait([resetting], timeout=0.5)
            await resetting
            async with database.session() as session:
                assert (await session.exec(select(LoginSession))).one().revoked_at
        finally:
            async with database.session() as session:
                await session.delete(await session.get_one(User, id))


def test_who_has_lost_everything_is_helped_at_the_terminal(migrated: object) -> None:
    async def prepare() -> None:
        app = create_app()
        async with lifespan(app), app.state.database.session() as session:
            user = await AccountService.create(session, ADA, "x", name=None)
            session.add(Totp(user_id=user.id, secret=b"x", confirmed_at=clock.now()))
            session.add(LoginSession(user_id=user.id, last_used_at=clock.now(), expires_at=clock.now()))

    async def found() -> tuple[int, bool]:
        app = create_app()
        async with lifespan(app), app.state.database.session() as session:
            totps = (await session.exec(select(func.count()).select_from(Totp))).one()
            revoked = (await session.exec(select(LoginSession))).one().revoked_at
            await session.delete((await session.exec(select(User).where(User.email == ADA))).one())
            return totps, revoked is not None

    asyncio.run(prepare())
    try:
        wrong = CliRunner().invoke(commands, ["reset", "nobody@example.com"])
        assert (wrong.exit_code, "no account of nobody@example.com" in wrong.output) == (1, True)
        right = CliRunner().invoke(commands, ["reset", "Ada@example.com"])
        assert (right.exit_code, "password alone" in right.output) == (0, True)
    finally:
        assert asyncio.run(found()) == (0, True)


@pytest.mark.parametrize(
    ("domain", "url", "used"),
    [
        ("", "https://app.example.com", "app.example.com"),
        ("example.com", "https://app.example.com", "example.com"),
        ("app.example.com", "https://app.example.com", "app.example.com"),
        ("", "http://localhost:8000", "localhost"),
        ("evil.com", "https://app.example.com", None),
        ("com", "https://app.example.com", None),
        ("ample.com", "https://app.example.com", None),
        ("x.app.example.com", "https://app.example.com", None),
    ],
)
def test_the_domain_of_passkeys_is_ours(
    monkeypatch: pytest.MonkeyPatch, domain: str, url: str, used: str | None
) -> None:
    monkeypatch.setenv("AUTH_PASSKEY_DOMAIN", domain)
    monkeypatch.setenv("PUBLIC_URL", url)
    forget()
    try:
        if used is None:
            with pytest.raises(SettingsError, match="AUTH_PASSKEY_DOMAIN: is app"):
                load(MfaSettings)
        else:
            assert load(MfaSettings).passkey_domain == used
    finally:
        monkeypatch.undo()
        forget()

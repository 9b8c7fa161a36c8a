from typing import Any

import pytest
from httpx2 import Response
from sqlmodel import select

from app.modules.accounts.models import Account
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.identity.bearer import Role
from tests.modules.accounts.conftest import PASSWORD, Person, Postman

ME = "/api/v1/app/users/me"


async def leave(person: Person, headers: dict[str, str], body: Any) -> Response:
    return await person.client.request("DELETE", ME, json=body, headers=headers)


async def test_who_knows_the_password_deletes_the_account(person: Person, postman: Postman, database: Database) -> None:
    for email in ("ada@example.com", "bob@example.com"):
        await person.register(email)
    ada, bob = await person.login("ada@example.com"), await person.login("bob@example.com")
    answer = await leave(person, ada, {"password": PASSWORD})
    assert (answer.status_code, answer.json()) == (200, {"detail": "Your account is deleted, with all that was yours."})
    [mail] = postman.take()
    assert (mail.to.address, mail.subject) == ("ada@example.com", "Your account is deleted")
    assert (await person.client.get(ME, headers=ada)).status_code == 401
    assert (await person.post("refresh", refresh_token=ada["refresh"])).status_code == 401
    assert (await person.post("login", email="ada@example.com", password=PASSWORD)).status_code == 401
    assert (await person.client.get(ME, headers=bob)).status_code == 200
    async with database.session() as session:
        assert [row.address for row in (await session.exec(select(Account))).all()] == ["bob@example.com"]
    # The address is free again, for a new account that knows nothing of the old one.
    await person.register("ada@example.com")
    assert (await person.client.get(ME, headers=await person.login("ada@example.com"))).status_code == 200


@pytest.mark.parametrize("body", [None, {}, {"password": None}, {"password": "three other words, and a lamp"}])
async def test_a_session_alone_deletes_nothing(person: Person, postman: Postman, body: Any) -> None:
    await person.register("ada@example.com")
    ada = await person.login("ada@example.com")
    answer = await leave(person, ada, body)
    assert (answer.status_code, answer.json()["code"]) == (403, "wrong_password")
    assert postman.take() == []
    assert (await person.client.get(ME, headers=ada)).status_code == 200


async def test_readers_may_have_their_data_and_go(person: Person, database: Database) -> None:
    await person.register("ada@example.com")
    async with database.session() as session:
        (await session.exec(select(User).where(User.email == "ada@example.com"))).one().role = Role.READONLY
    ada = await person.login("ada@example.com")
    assert (await person.client.patch(ME, json={"display_name": "Ada"}, headers=ada)).status_code == 403
    assert (await person.client.post(f"{ME}/export", headers=ada)).status_code == 202
    assert (await leave(person, ada, {"password": PASSWORD})).status_code == 200

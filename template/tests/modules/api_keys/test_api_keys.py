"""API keys: what they open, and what all else that comes with one does not."""

import asyncio
import logging
import re
import string
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import time_machine
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from sqlmodel import select
from typer.testing import CliRunner

from app.kit import clock
from app.kit.limits import memory_counter
from app.kit.logging import LogSettings, configure_logging, redact_text
from app.kit.settings import SettingsError, forget, load
from app.main import create_app, lifespan
from app.modules.api_keys.commands import commands
from app.modules.api_keys.keys import hash_of, is_shaped, is_whole, new_key
from app.modules.api_keys.models import ApiKey
from app.modules.api_keys.repository import ApiKeyRepository
from app.modules.api_keys.scopes import InsufficientScope, available, demand
from app.modules.api_keys.service import Uses
from app.modules.api_keys.settings import ApiKeySettings
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.identity.bearer import Role
from tests.provider import Provider

KEYS = "/api/v1/app/api-keys"
ME = "/api/v1/app/users/me"
USERS = "/api/v1/admin/users"
SignIn = Callable[..., AsyncClient]
WithKey = Callable[[str], AsyncClient]


@pytest.fixture
async def with_key(app: FastAPI, database: Database, verifying: None) -> AsyncIterator[WithKey]:
    """Make a client that sends a key."""
    async with AsyncExitStack() as stack:

        def client(key: str) -> AsyncClient:
            headers = {"Authorization": f"Bearer {key}"}
            made = AsyncClient(transport=ASGITransport(app), base_url="http://test", headers=headers)
            stack.push_async_callback(made.aclose)
            return made

        yield client


async def make_key(owner: AsyncClient, *scopes: str, **more: Any) -> dict[str, Any]:
    answer = await owner.post(KEYS, json={"name": "Export", "scopes": scopes or ["write"], **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def become(database: Database, client: AsyncClient, **fields: Any) -> None:
    """Change what a user may do."""
    id = UUID((await client.get(ME)).json()["id"])
    async with database.session() as session:
        user = (await session.exec(select(User).where(User.id == id))).one()
        user.sqlmodel_update(fields)


def refused(answer: Response, status: int, told: str) -> bool:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    return told in answer.text + answer.headers.get("www-authenticate", "")


async def test_from_making_one_to_taking_it_back(client: AsyncClient, with_key: WithKey, app: FastAPI) -> None:
    made = await make_key(client, "users:read", expires_in_days=30)
    assert made["key"].startswith(f"{made['hint']}")
    assert len(made["hint"]) == len("apikey_") + 4
    assert (made["scopes"], made["last_used_at"]) == (["users:read"], None)
    program = with_key(made["key"])
    me, mine = await program.get(ME), await client.get(ME)
    assert me.status_code == 200
    assert me.json() == mine.json()
    await app.state.key_uses.write()
    [listed] = (await client.get(KEYS)).json()["items"]
    assert listed.pop("last_used_at") > made["created_at"]
    assert listed == {name: made[name] for name in made.keys() - {"key", "last_used_at"}}

    assert (await client.delete(f"{KEYS}/{made['id']}")).status_code == 204
    assert refused(await program.get(ME), 401, 'error="invalid_token"')
    assert (await client.get(KEYS)).json()["total"] == 0
    assert (await client.delete(f"{KEYS}/{made['id']}")).status_code == 404


async def test_the_key_is_stored_nowhere_and_shown_once(
    client: AsyncClient, database: Database, capsys: pytest.CaptureFixture[str], with_key: WithKey
) -> None:
    configure_logging(LogSettings(log_level="DEBUG", log_format="json"), production=False)
    try:
        made = await make_key(client)
        secret = made["key"].partition("_")[2]
        await with_key(made["key"]).get(ME)
        await with_key(made["key"][:-1] + "!").get(ME)
        await with_key("x").get(ME, params={"key": made["key"], "next": f"/?api_key={made['key']}"})
        logging.getLogger("uvicorn.error").warning("refused %s", made["key"])
        seen = capsys.readouterr().out
    finally:
        configure_logging(load(LogSettings), production=False)
    assert "key made" in seen
    assert secret[8:] not in seen
    async with database.session() as session:
        row = (await session.exec(select(ApiKey))).one()
    assert row.key_hash == hash_of(made["key"])
    assert secret[4:] not in repr(row.model_dump())
    for path in (KEYS, f"{KEYS}/{made['id']}"):
        assert secret[4:] not in (await client.get(path)).text
    assert redact_text(f"using {made['key']}") == "using apikey_***"


def test_keys_are_long_and_never_the_same_and_scanners_find_them() -> None:
    keys = [new_key("apikey") for _ in range(1000)]
    assert len({key[:20] for key in keys}) == 1000
    assert {character for key in keys for character in key[7:]} == set(string.ascii_letters + string.digits)
    readme = Path(__file__).parents[3] / "README.md"
    [block] = re.findall(r"```toml\n(\[extend\].*?)```", readme.read_text("utf-8"), re.S)
    [rule] = tomllib.loads(block)["rules"]
    pattern, [keyword] = rule["regex"], rule["keywords"]
    for key in keys:
        assert is_shaped(key)
        assert is_whole(key)
        assert keyword in key
        assert re.findall(pattern, f'curl --header "Authorization: Bearer {key}" https://example.com') == [key]
        assert not is_whole(key[:10] + ("a" if key[10] != "a" else "b") + key[11:])


def changed(key: str) -> list[str]:
    """Return what is nearly a key."""
    swapped = key[:20] + key[21] + key[20] + key[22:]
    return [
        key[:-1],
        key + "0",
        key[:-6],
        key[:-6] + "000000",
        key.upper(),
        key.replace("apikey_", "apikex_"),
        key.replace("_", "-"),
        key.partition("_")[2],
        swapped if key[20] != key[21] else key[:-1],
        f"{key}.{key}",
        new_key("apikey"),
        new_key("sk"),
        hash_of(key),
        f"apikey_{hash_of(key)}",
    ]


async def test_nothing_else_is_the_key(client: AsyncClient, with_key: WithKey) -> None:
    key = (await make_key(client))["key"]
    for other in changed(key):
        assert refused(await with_key(other).get(ME), 401, "Bearer error="), other
    stranger = with_key("")
    stranger.headers.pop("authorization")
    for headers in (
        {"X-Api-Key": key},
        {"Authorization": f"Basic {key}"},
        {"Authorization": key},
        {"Authorization": f"ApiKey {key}"},
        {"Cookie": f"access={key}; __Secure-access={key}; __Host-access={key}; api_key={key}"},
    ):
        assert (await stranger.get(ME, headers=headers)).status_code == 401, headers
    for name in ("api_key", "apikey", "key", "access_token", "token"):
        assert (await stranger.get(ME, params={name: key})).status_code == 401
    twice = [("Authorization", f"Bearer {key}"), ("Authorization", f"Bearer {key}")]
    assert (await stranger.get(ME, headers=twice)).status_code == 401
    assert (await with_key(f"{key} ").get(ME)).status_code == 200


async def test_a_key_ends_when_it_is_said_to(client: AsyncClient, with_key: WithKey) -> None:
    made = await make_key(client, expires_in_days=2)
    program = with_key(made["key"])
    with time_machine.travel(clock.now() + timedelta(days=2, seconds=-60), tick=False):
        assert (await program.get(ME)).status_code == 200
    with time_machine.travel(clock.now() + timedelta(days=2, seconds=1), tick=False):
        assert refused(await program.get(ME), 401, "expired")
    usual = await make_key(client)
    assert usual["expires_at"][:10] == (clock.now() + timedelta(days=90)).date().isoformat()
    for days in (366, 3651, 10**9):
        answer = await client.post(KEYS, json={"name": "x", "scopes": ["read"], "expires_in_days": days})
        assert refused(answer, 422, "365 days at most")


async def test_what_is_left_of_a_key_is_told_from_a_token(client: AsyncClient, with_key: WithKey) -> None:
    key = (await make_key(client))["key"]
    for part in (key[:9], key[:-1], f"{key}0", "apikey_"):
        assert refused(await with_key(part).get(ME), 401, "cut short or mistyped")


async def test_a_key_is_no_more_than_its_owner(sign_in: SignIn, database: Database, with_key: WithKey) -> None:
    ada = sign_in(sub="ada")
    key = (await make_key(ada, "write"))["key"]
    program = with_key(key)
    assert (await program.patch(ME, json={"display_name": "Program"})).status_code == 200
    await become(database, ada, role=Role.READONLY)
    assert refused(await program.patch(ME, json={"display_name": "Program"}), 403, "read_only")
    assert (await program.get(ME)).status_code == 200
    await become(database, ada, is_active=False)
    assert refused(await program.get(ME), 403, "account_deactivated")


async def test_keys_do_not_come_back_with_who_is_let_in_again(
    sign_in: SignIn, database: Database, with_key: WithKey
) -> None:
    ada, admin = sign_in(sub="ada"), sign_in(sub="admin")
    await become(database, admin, role=Role.ADMIN)
    program, other = with_key((await make_key(ada))["key"]), with_key((await make_key(admin))["key"])
    adas = (await ada.get(ME)).json()["id"]
    for change in ("deactivate", "activate"):
        assert (await admin.post(f"{USERS}/{adas}/{change}")).status_code == 200
        assert refused(await program.get(ME), 401, "revoked")
    assert (await other.get(ME)).status_code == 200


async def test_readers_take_their_keys_back_and_make_none(sign_in: SignIn, database: Database) -> None:
    ada = sign_in(sub="ada")
    made = await make_key(ada)
    await become(database, ada, role=Role.READONLY)
    assert refused(await ada.post(KEYS, json={"name": "x", "scopes": ["read"]}), 403, "read_only")
    assert (await ada.delete(f"{KEYS}/{made['id']}")).status_code == 204


async def test_keys_of_who_is_gone_are_gone(client: AsyncClient, database: Database, with_key: WithKey) -> None:
    program = with_key((await make_key(client))["key"])
    assert (await program.get(ME)).status_code == 200
    async with database.session() as session:
        for user in (await session.exec(select(User))).all():
            await session.delete(user)
    assert (await program.get(ME)).status_code == 401
    async with database.session() as session:
        assert (await session.exec(select(ApiKey))).all() == []


async def test_a_key_keeps_to_its_scopes(sign_in: SignIn, with_key: WithKey) -> None:
    ada = sign_in(sub="ada")
    reader = with_key((await make_key(ada, "users:read"))["key"])
    assert (await reader.get(ME)).status_code == 200
    answer = await reader.patch(ME, json={"display_name": "x"})
    assert refused(answer, 403, 'error="insufficient_scope", scope="users:write"')
    assert answer.json()["code"] == "insufficient_scope"
    writer = with_key((await make_key(ada, "users:write"))["key"])
    assert (await writer.get(ME)).status_code == 200
    assert (await writer.patch(ME, json={"display_name": "x"})).status_code == 200


@pytest.mark.parametrize(
    ("scopes", "resource", "method", "enough"),
    [
        ({"read"}, "notes", "GET", True),
        ({"read"}, "notes", "HEAD", True),
        ({"read"}, "notes", "POST", False),
        ({"write"}, "notes", "GET", True),
        ({"write"}, "notes", "DELETE", True),
        ({"notes:read"}, "notes", "PATCH", False),
        ({"notes:write"}, "notes", "GET", True),
        ({"notes:write"}, "note", "GET", False),
        ({"users:write", "files:write"}, "notes", "GET", False),
        ({"read", "write"}, "admin", "GET", False),
        ({"admin:read"}, "admin", "GET", True),
        ({"admin:read"}, "admin", "POST", False),
        ({"admin:write"}, "admin", "GET", True),
        ({"admin:write"}, "notes", "GET", False),
        ({"notes"}, "notes", "GET", False),
        ({""}, "", "GET", False),
        ({"read"}, "", "GET", True),
        ({"read"}, "", "", False),
        ({"write"}, "", "", True),
        ({":write"}, "", "POST", False),
        (set(), "notes", "GET", False),
    ],
)
def test_scopes_cover_what_they_say(scopes: set[str], resource: str, method: str, enough: bool) -> None:
    if enough:
        demand(scopes, resource, method)
    else:
        with pytest.raises(InsufficientScope):
            demand(scopes, resource, method)


async def test_keys_of_admins_do_what_admins_do_as_long_as_they_are(
    sign_in: SignIn, database: Database, with_key: WithKey, app: FastAPI
) -> None:
    ada, eve = sign_in(sub="ada"), sign_in(sub="eve")
    answer = await eve.post(KEYS, json={"name": "x", "scopes": ["admin:read"]})
    assert refused(answer, 403, "admins_only")
    await become(database, ada, role=Role.ADMIN)
    everyday = with_key((await make_key(ada, "read", "write"))["key"])
    assert refused(await everyday.get(USERS), 403, 'scope="admin:read"')
    reading = with_key((await make_key(ada, "admin:read"))["key"])
    assert (await reading.get(USERS)).status_code == 200
    eves = (await eve.get(ME)).json()["id"]
    assert refused(await reading.post(f"{USERS}/{eves}/deactivate"), 403, 'scope="admin:write"')
    assert refused(await reading.get(ME), 403, 'scope="users:read"')
    below = ASGITransport(app, root_path="/service")
    async with AsyncClient(transport=below, base_url="http://test/service", headers=reading.headers) as mounted:
        assert (await mounted.get(USERS)).status_code == 200
        assert refused(await mounted.get(ME), 403, 'scope="users:read"')
    writing = with_key((await make_key(ada, "admin:write"))["key"])
    assert (await writing.post(f"{USERS}/{eves}/deactivate")).status_code == 200
    # Or a key that is stolen would make an admin who stays.
    assert refused(await writing.patch(f"{USERS}/{eves}", json={"role": "admin"}), 403, "sign_in_required")
    await become(database, ada, role=Role.USER)
    assert refused(await reading.get(USERS), 403, "admins_only")


async def test_a_key_does_nothing_about_keys_and_sign_in(client: AsyncClient, with_key: WithKey, app: FastAPI) -> None:
    made = await make_key(client, "read", "write")
    program = with_key(made["key"])
    closed = [
        (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method in methods
        if path.startswith((KEYS, "/api/v1/app/auth"))
    ]
    assert len(closed) >= 4
    for method, path in closed:
        answer = await program.request(method, path.replace("{id}", made["id"]), json={})
        assert refused(answer, 403, "sign_in_required"), (method, path)
    assert (await client.get(KEYS)).json()["total"] == 1
    assert not {"api-keys", "auth"} & {scope.partition(":")[0] for scope in available(app)}


async def test_scopes_are_those_of_the_routes(client: AsyncClient, app: FastAPI) -> None:
    assert {"read", "write", "users:read", "users:write", "admin:read", "admin:write"} <= set(available(app))
    for scope in ("everything", "api-keys:write", "auth:write", "users:delete"):
        answer = await client.post(KEYS, json={"name": "x", "scopes": ["read", scope]})
        assert answer.status_code == 422, scope
    assert (
        "There is no scope everything. There are read, write,"
        in (await client.post(KEYS, json={"name": "x", "scopes": ["everything"]})).json()["detail"]
    )


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x"},
        {"name": "x", "scopes": []},
        {"name": "x", "scopes": "read"},
        {"name": "x", "scopes": ["read write"]},
        {"name": "x", "scopes": ["*"]},
        {"name": "x", "scopes": ["read"] * 51},
        {"name": "", "scopes": ["read"]},
        {"name": "a\nb", "scopes": ["read"]},
        {"name": "x", "scopes": ["read"], "expires_in_days": 0},
        {"name": "x", "scopes": ["read"], "expires_at": "2999-01-01T00:00:00Z"},
        {"name": "x", "scopes": ["read"], "key": "apikey_mine"},
        {"name": "x", "scopes": ["read"], "user_id": "00000000-0000-0000-0000-000000000001"},
        {"name": "x", "scopes": ["read"], "key_hash": "0" * 64},
    ],
)
async def test_nobody_chooses_more_of_a_key_than_is_asked_for(client: AsyncClient, body: dict[str, Any]) -> None:
    assert refused(await client.post(KEYS, json=body), 422, "validation_error")
    assert (await client.get(KEYS)).json()["total"] == 0


async def test_keys_of_others_do_not_exist(sign_in: SignIn, with_key: WithKey) -> None:
    ada, eve = sign_in(sub="ada"), sign_in(sub="eve")
    made = await make_key(ada)
    assert (await eve.get(KEYS)).json()["total"] == 0
    for method in ("GET", "DELETE"):
        assert refused(await eve.request(method, f"{KEYS}/{made['id']}"), 404, "There is no such key.")
    assert (await with_key(made["key"]).get(ME)).status_code == 200


async def test_a_user_has_so_many_keys_and_no_more(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, with_key: WithKey
) -> None:
    monkeypatch.setenv("API_KEYS_PER_USER", "2")
    forget()
    first = await make_key(client)
    await make_key(client)
    answer = await client.post(KEYS, json={"name": "x", "scopes": ["read"]})
    assert refused(answer, 409, "You have 2 keys")
    await client.delete(f"{KEYS}/{first['id']}")
    await make_key(client)


async def test_over_real_connections_a_key_is_revoked_once_and_for_good(migrated: object, provider: Provider) -> None:
    """While it is used, by many at a time."""
    app = create_app()
    async with lifespan(app), provider.verifying(app):
        token = await provider.sign_in(app, sub="ada")
        transport = ASGITransport(app)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            mine = {"Authorization": f"Bearer {token}"}
            made = (await client.post(KEYS, json={"name": "x", "scopes": ["read"]}, headers=mine)).json()
            key = {"Authorization": f"Bearer {made['key']}"}
            using = [client.get(ME, headers=key) for _ in range(20)]
            revoking = [client.delete(f"{KEYS}/{made['id']}", headers=mine) for _ in range(3)]
            answers = await asyncio.gather(*using, *revoking)
            assert {answer.status_code for answer in answers[:20]} <= {200, 401}
            assert 204 in {answer.status_code for answer in answers[20:]}
            assert (await client.get(ME, headers=key)).status_code == 401
        database: Database = app.state.database
        async with database.session() as session:
            await session.delete((await session.exec(select(User))).one())


async def test_wrong_keys_are_counted_and_good_ones_go_on(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, with_key: WithKey, app: FastAPI
) -> None:
    monkeypatch.setenv("API_KEY_LIMIT_WRONG", "3/hour")
    forget()
    good = with_key((await make_key(client))["key"])
    monkeypatch.setattr(app.state.limiter, "enabled", True)
    monkeypatch.setattr(app.state.limiter, "count", memory_counter())
    wrong = [new_key("apikey"), "apikey_" + "0" * 49, new_key("apikey"), new_key("apikey"), "apikey_" + "1" * 49]
    answers = [await with_key(key).get(ME) for key in wrong]
    assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
    assert refused(answers[-1], 429, "too_many_requests")
    assert 3500 < int(answers[-1].headers["retry-after"]) <= 3600
    assert (await good.get(ME)).status_code == 200
    assert (await client.get(ME)).status_code == 200


async def test_a_later_use_is_not_undone(client: AsyncClient, database: Database) -> None:
    made = await make_key(client)
    id, now = UUID(made["id"]), clock.now()
    for used in (now, now - timedelta(minutes=1)):
        async with database.session() as session:
            await ApiKeyRepository(session).mark_used({id: used, UUID(int=1): used})
    [listed] = (await client.get(KEYS)).json()["items"]
    assert datetime.fromisoformat(listed["last_used_at"]) == now


async def test_uses_are_written_every_now_and_then(
    client: AsyncClient, with_key: WithKey, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = with_key((await make_key(client))["key"])
    assert (await program.get(ME)).status_code == 200
    uses: Uses = app.state.key_uses
    written, write = asyncio.Event(), uses.write

    async def and_tell() -> None:
        await write()
        written.set()

    monkeypatch.setattr("app.modules.api_keys.service.WRITE_AFTER_SECONDS", 0.01)
    monkeypatch.setattr(uses, "write", and_tell)
    writing = asyncio.create_task(uses.keep_writing())
    await written.wait()
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    assert (await client.get(KEYS)).json()["items"][0]["last_used_at"] is not None


async def test_uses_wait_while_the_database_takes_no_writes(
    client: AsyncClient, with_key: WithKey, app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = with_key((await make_key(client))["key"])

    async def fail(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ApiKeyRepository, "mark_used", fail)
        assert (await program.get(ME)).status_code == 200
        await app.state.key_uses.write()
    assert (await client.get(KEYS)).json()["items"][0]["last_used_at"] is None
    await app.state.key_uses.write()
    assert (await client.get(KEYS)).json()["items"][0]["last_used_at"] is not None


def test_a_key_that_is_found_is_taken_back(migrated: object, provider: Provider) -> None:
    def revoke(given: str) -> tuple[int, str]:
        result = CliRunner().invoke(commands, ["revoke"], input=given + "\n", catch_exceptions=False)
        return result.exit_code, result.output

    async def serve(*keys: str) -> list[Any]:
        """Make two keys, or see what these open; then the owner goes."""
        app = create_app()
        transport = ASGITransport(app)
        async with (
            lifespan(app),
            provider.verifying(app),
            AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            if keys:
                found = [(await client.get(ME, headers={"Authorization": f"Bearer {key}"})).status_code for key in keys]
                async with app.state.database.session() as session:
                    await session.delete((await session.exec(select(User))).one())
                return found
            mine = {"Authorization": f"Bearer {await provider.sign_in(app, sub='ada')}"}
            new = {"name": "x", "scopes": ["read"]}
            return [(await client.post(KEYS, json=new, headers=mine)).json() for _ in range(3)]

    first, second, third = asyncio.run(serve())
    try:
        for nobody in ("x", "%", new_key("apikey"), "00000000-0000-7000-8000-000000000000"):
            assert revoke(nobody)[0] == 1, nobody
        for given in (first["key"], second["id"]):
            code, output = revoke(given)
            assert (code, "is revoked" in output) == (0, True), output
            assert first["key"] not in output
            assert revoke(given)[0] == 1
    finally:
        assert asyncio.run(serve(*(made["key"] for made in (first, second, third)))) == [401, 401, 200]
        forget()


async def test_many_at_a_time_make_no_more_keys_than_a_user_may_have(
    migrated: object, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEYS_PER_USER", "3")
    forget()
    app = create_app()
    async with lifespan(app), provider.verifying(app):
        transport = ASGITransport(app)
        async with AsyncClient(transport=transport, base_url="http://test") as client:
            mine = {"Authorization": f"Bearer {await provider.sign_in(app, sub='ada')}"}
            await client.get(ME, headers=mine)
            new = {"name": "x", "scopes": ["read"]}
            answers = await asyncio.gather(*(client.post(KEYS, json=new, headers=mine) for _ in range(8)))
            assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 5
        async with app.state.database.session() as session:
            await session.delete((await session.exec(select(User))).one())


def test_settings_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, told in (
        ("API_KEY_PREFIX", "My-Key", "API_KEY_PREFIX"),
        ("API_KEY_PREFIX", "a_b", "API_KEY_PREFIX"),
        ("API_KEY_DAYS", "366", "at most API_KEY_MOST_DAYS"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            forget()
            with pytest.raises(SettingsError, match=told):
                load(ApiKeySettings)
    forget()

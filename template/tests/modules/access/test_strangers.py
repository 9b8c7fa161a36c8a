"""What strangers, users and readers try, at every route there is: none of it gets them anywhere."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import schemathesis
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx2 import ASGITransport, AsyncClient, Response
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from sqlmodel import select

from app.main import create_app
from app.modules.users.models import User
from app.ports.db.database import Database
from app.ports.identity.bearer import Role
from tests.provider import Provider

ME = "/api/v1/app/users/me"
USERS = "/api/v1/admin/users"
SignIn = Callable[..., AsyncClient]

DOCUMENT = create_app().openapi()
ROUTES = [
    (method.upper(), path)
    for path, methods in DOCUMENT["paths"].items()
    for method in methods
    if path.startswith(("/api/v1/app/", "/api/v1/admin/"))
]
OWNED = [path for method, path in ROUTES if method == "POST" and path + "/{id}" in DOCUMENT["paths"]]


@pytest.fixture
def stranger(app: FastAPI, database: Database, verifying: None) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app), base_url="http://test")


def filled(path: str) -> str:
    return path.replace("{id}", str(uuid4()))


def example(path: str) -> dict[str, Any]:
    """Make the body of a creation from what the document shows."""
    body = DOCUMENT["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    fields = DOCUMENT["components"]["schemas"][body.rpartition("/")[2]]["properties"]
    return {name: field["examples"][0] for name, field in fields.items()}


def test_every_route_of_users_and_admins_says_that_it_needs_a_token() -> None:
    assert len(ROUTES) >= 7
    for method, path in ROUTES:
        operation = DOCUMENT["paths"][path][method.lower()]
        assert operation["security"] == [{"HTTPBearer": []}], (method, path)
        assert operation["responses"].keys() >= {"401", "403"}, (method, path)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_no_route_answers_without_a_token_or_with_another_ones(
    stranger: AsyncClient, provider: Provider, method: str, path: str
) -> None:
    for token in (None, "garbage", provider.token(aud="other"), provider.token(exp=int(time.time()) - 60)):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A token comes before what is asked for: nobody learns which ids and which fields there are.
        for body in ({}, {"nonsense": 1}):
            answer = await stranger.request(method, filled(path), headers=headers, json=body)
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[1].startswith("/api/v1/admin/")])
async def test_no_route_for_admins_answers_others(sign_in: SignIn, database: Database, method: str, path: str) -> None:
    for role in (Role.USER, Role.READONLY):
        client = sign_in(sub=role.value)
        me = (await client.get(ME)).json()["id"]
        await become(database, me, role)
        answer = await client.request(method, path.replace("{id}", me), json={"role": "admin"})
        assert (answer.status_code, answer.json()["code"]) in {(403, "admins_only"), (403, "read_only")}
        assert (await client.get(ME)).json()["role"] == role


async def test_what_is_somebody_elses_does_not_exist(sign_in: SignIn) -> None:
    ada, eve = sign_in(sub="ada"), sign_in(sub="eve")
    for path in OWNED:
        created = await ada.post(path, json=example(path))
        assert created.status_code == 201
        id = created.json()["id"]
        before = (await ada.get(f"{path}/{id}")).json()
        for method, route in ROUTES:
            if route.startswith(path + "/{id}"):
                answer = await eve.request(method, route.replace("{id}", id), json={})
                assert answer.status_code == 404, (method, route)
                # Somebody else's is told as what is not there at all.
                assert (await eve.request(method, filled(route), json={})).json()["detail"] == answer.json()["detail"]
        if ("GET", path) in ROUTES:
            assert (await eve.get(path)).json()["total"] == 0
        assert (await ada.get(f"{path}/{id}")).json() == before


async def become(database: Database, id: str, role: Role) -> None:
    async with database.session() as session:
        user = (await session.exec(select(User))).all()
        next(one for one in user if str(one.id) == id).role = role


SMUGGLED: list[dict[str, str]] = [
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer null"},
    {"Authorization": "Bearer undefined"},
    {"Authorization": "GOOD"},
    {"Authorization": "Token GOOD"},
    {"Authorization": "JWT GOOD"},
    {"Authorization": "Basic GOOD"},
    {"Authorization": "Basic YWRtaW46YWRtaW4="},
    {"Authorization": "Bearer,GOOD"},
    {"Authorization": "Bearer=GOOD"},
    {"Authorization": "Bearer\tGOOD"},
    {"Authorization": "Bearer GOOD, Bearer GOOD"},
    {"Authorization": "Bearer GOOD GOOD"},
    {"Authorization": 'Bearer "GOOD"'},
    {"Authorization": "Bearer GOOD="},
    {"Authorization": "Bearer GOOD."},
    {"Authorization": "Bearer Bearer GOOD"},
    {"Cookie": "access_token=GOOD; token=GOOD; session=GOOD; Authorization=Bearer%20GOOD"},
    {"Proxy-Authorization": "Bearer GOOD"},
    {"X-Authorization": "Bearer GOOD", "X-Access-Token": "GOOD", "X-Auth-Token": "GOOD", "X-Api-Key": "GOOD"},
    {"X-Forwarded-Authorization": "Bearer GOOD", "X-Original-Authorization": "Bearer GOOD"},
    {"X-User-Id": "ada", "X-Remote-User": "ada", "Remote-User": "ada", "X-Forwarded-User": "ada"},
    {"X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
    {"X-Original-URL": "/health", "X-Rewrite-URL": "/health"},
    {"Host": "localhost", "X-Forwarded-Host": "localhost", "Origin": "null"},
    {"X-Request-ID": "GOOD"},
]


@pytest.mark.parametrize("headers", SMUGGLED)
async def test_a_token_counts_in_its_place_only(
    app: FastAPI, stranger: AsyncClient, provider: Provider, headers: dict[str, str]
) -> None:
    good = await provider.sign_in(app, sub="ada")
    sent = {name: value.replace("GOOD", good) for name, value in headers.items()}
    assert (await stranger.get(ME, headers=sent)).status_code == 401


@pytest.mark.parametrize("query", ["access_token", "token", "authorization", "jwt", "id_token", "bearer"])
async def test_a_token_in_an_address_is_none(
    app: FastAPI, stranger: AsyncClient, provider: Provider, query: str
) -> None:
    good = await provider.sign_in(app, sub="ada")
    assert (await stranger.get(ME, params={query: good})).status_code == 401
    form = await stranger.patch(ME, data={query: good})
    assert form.status_code == 401


async def test_two_tokens_are_none(app: FastAPI, stranger: AsyncClient, provider: Provider) -> None:
    good, other = [await provider.sign_in(app, sub=name) for name in ("ada", "eve")]
    for two in ([good, "x"], ["x", good], [good, other]):
        answer = await stranger.get(ME, headers=[("Authorization", f"Bearer {token}") for token in two])
        assert answer.status_code == 401


CLAIMED: list[dict[str, Any]] = [
    {"role": "admin"},
    {"roles": ["admin"]},
    {"groups": ["admin"]},
    {"is_admin": True},
    {"admin": True},
    {"scope": "admin users"},
    {"permissions": ["admin"]},
    {"realm_access": {"roles": ["admin"]}},
    {"user_id": "ROOT", "id": "ROOT", "uid": "ROOT"},
    {"email": "root@example.com", "email_verified": True},
    {"email": "root@example.com", "preferred_username": "root", "name": "Root"},
    {"sub": "ROOT-SUBJECT"},
    {"sub": "Root"},
    {"sub": "root "},
    {"sub": " root"},
    {"sub": "root|root"},
    {"sub": "root%00"},
    {"act": {"sub": "root"}},
    {"cid": "root", "appid": "root"},
    {"is_active": True, "email_verified": True, "created_at": 0},
]


@pytest.mark.parametrize("claims", CLAIMED)
async def test_nobody_becomes_an_admin_by_saying_so(
    sign_in: SignIn, database: Database, claims: dict[str, Any]
) -> None:
    root = sign_in(sub="root", email="root@example.com", email_verified=True)
    id = (await root.get(ME)).json()["id"]
    await become(database, id, Role.ADMIN)
    words = {"ROOT": id, "ROOT-SUBJECT": (await root.get(f"{USERS}/{id}")).json()["subject"]}
    eve = sign_in(**{"sub": "eve", **{name: words.get(str(value), value) for name, value in claims.items()}})
    me = await eve.get(ME)
    assert me.status_code == 200
    assert (me.json()["role"], me.json()["id"] != id) == ("user", True)
    assert (await eve.get(USERS)).status_code == 403
    assert (await root.get(USERS)).status_code == 200


ASSIGNED = [
    *({"role": value} for value in ("admin", "user", None)),
    *({name: True} for name in ("is_active", "email_verified", "is_admin", "admin", "isActive")),
    {"id": str(uuid4())},
    {"subject": "root"},
    {"email": "root@example.com"},
    {"created_at": "2020-01-01T00:00:00Z"},
    {"user": {"role": "admin"}},
    {"__proto__": {"role": "admin"}},
    {"__class__": "x"},
    {"display_name": "x", "role": "admin"},
    {"display_name": {"role": "admin"}},
    {"display_name": ["x"]},
]


@pytest.mark.parametrize("body", ASSIGNED)
async def test_nobody_changes_more_of_themselves_than_their_name(client: AsyncClient, body: dict[str, Any]) -> None:
    before = (await client.get(ME)).json()
    assert (await client.patch(ME, json=body)).status_code == 422
    for sent in (client.patch(f"{ME}?role=admin&is_active=true", json=body), client.patch(ME, data=body)):
        assert (await sent).status_code == 422
    assert (await client.get(ME)).json() == before


async def test_admins_assign_roles_and_names_and_nothing_else(sign_in: SignIn, database: Database) -> None:
    admin, eve = sign_in(sub="root"), sign_in(sub="eve")
    await become(database, (await admin.get(ME)).json()["id"], Role.ADMIN)
    path = f"{USERS}/{(await eve.get(ME)).json()['id']}"
    before = (await admin.get(path)).json()
    for body in (
        *({name: value} for name, value in before.items() if name not in {"display_name", "role"}),
        *({"role": value} for value in ("root", "ADMIN", "", 1, ["admin"])),
        {"is_active": False, "display_name": "x"},
    ):
        assert (await admin.patch(path, json=body)).status_code == 422, body
    assert (await admin.get(path)).json() == before


@pytest.mark.parametrize(
    "path",
    [
        f"{USERS}/",
        f"/{USERS}",
        "/api/v1/app/../admin/users",
        "/api/v1/app/%2e%2e/admin/users",
        "/api/v1/ADMIN/users",
        "/api/v1/Admin/users",
        "/api/v1/admin%2fusers",
        "/api/v1//admin/users",
        f"{USERS};x",
        f"{USERS}%00",
        f"{USERS}%20",
        f"{USERS}/..;/users",
        f"{USERS}?role=admin",
        f"{USERS}#x",
        "/api/v1/public/../admin/users",
        "/admin/users",
    ],
)
async def test_no_spelling_of_a_path_leads_past_the_door(client: AsyncClient, stranger: AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code in {403, 404}
    assert (await stranger.get(path)).status_code in {401, 404}


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
async def test_readers_cannot_hide_what_they_do(sign_in: SignIn, database: Database, header: str) -> None:
    reader = sign_in(sub="reader", name="Reader")
    await become(database, (await reader.get(ME)).json()["id"], Role.READONLY)
    answers: list[Response] = [
        await reader.patch(ME, json={"display_name": "x"}, headers={header: "GET"}),
        await reader.post(ME, json={"display_name": "x"}, headers={header: "PATCH"}),
        await reader.request("patch", ME, json={"display_name": "x"}),
    ]
    assert {answer.status_code for answer in answers} <= {403, 405}
    await reader.get(f"{ME}?_method=PATCH&display_name=x", headers={header: "PATCH"})
    assert (await reader.get(ME)).json()["display_name"] == "Reader"


def test_that_was_a_lot_of_tries() -> None:
    assert len(SMUGGLED) + len(CLAIMED) + len(ASSIGNED) >= 60


@pytest.fixture(scope="module")
def served(migrated: Config, provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The whole service, in a process of its own, with this provider."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    log: Path = tmp_path_factory.mktemp("served") / "log"
    env = os.environ | provider.environment
    with log.open("wb") as output:
        serve = [sys.executable, "-m", "app.cli", "serve", "--port", port]
        process = subprocess.Popen(serve, env=env | {"LOG_LEVEL": "INFO"}, stdout=output)
    try:
        while "Uvicorn running" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        assert provider.token()[:40] not in log.read_text()
    finally:
        process.terminate()
        process.wait(20)
        command.downgrade(migrated, "base")
        command.upgrade(migrated, "head")


def test_the_api_keeps_to_its_document_for_admins(served: str, provider: Provider) -> None:
    headers = {"Authorization": f"Bearer {provider.sign_admin_in()}"}
    schema = schemathesis.openapi.from_url(f"{served}/openapi.json").include(path_regex="^/api/v1/(app|admin)/")
    operations = list(schema.get_all_operations())
    assert len(operations) == len(ROUTES)
    for result in operations:
        assert isinstance(result, Ok), result

        @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=result.ok().as_strategy())
        def check(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(headers=headers)

        check()

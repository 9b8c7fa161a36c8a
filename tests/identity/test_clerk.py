"""A service from `copier copy` to what Clerk's session tokens open, and what its webhooks change.

The package "emulate" has users, sessions and keys, and signs the tokens; Svix's own library signs the webhooks.
"""

# ruff: noqa: S608
import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Answers, Copy, copy, free_port, run
from treatment import served
from workshop import ask, doctor, modules, started

ANSWERS: Answers = {"auth_provider": "clerk", "features": ["projects"]}
SECRET = "whsec_" + "c2VjcmV0" * 6
PAGE = "http://localhost:3000"
TABLES = ("users", "projects")
pytestmark = [pytest.mark.service, pytest.mark.xdist_group("auth_provider-clerk")]


@pytest.fixture(scope="module")
def service(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    made = copy(template, tmp_path_factory.mktemp("clerk") / "service", "--trust", answers=ANSWERS)
    assert made.status == 0, made.output
    return made


@pytest.fixture(scope="module")
def clerk() -> Iterator["Clerk"]:
    ports = str(free_port()), str(free_port())
    with started("clerk.cjs", modules("emulate@0.9.0", "svix@1.99.1"), *ports) as issuer:
        yield Clerk(issuer)


class Clerk:
    """Calls the Backend API, as the pages and the dashboard of an instance do."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Return what a route answers."""
        headers = {"Authorization": "Bearer sk_test_one"}
        answer = httpx2.request(method, f"{self.issuer}/v1{path}", headers=headers, json=body or None)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def token(self, user: str) -> str:
        """Sign a user in, and return their token."""
        session = self.call("POST", "/sessions", user_id=user)["id"]
        return str(self.call("POST", f"/sessions/{session}/tokens")["jwt"])

    def event(self, kind: str, data: dict[str, Any], id: str) -> tuple[bytes, dict[str, str]]:  # noqa: A002
        """Return a message and its headers. Clerk has times in milliseconds, and the emulation does not."""
        if "updated_at" in data:
            data = data | {"updated_at": int(time.time() * 1000)}
        body = json.dumps({"data": data, "object": "event", "type": kind}).encode()
        query = {"secret": SECRET, "id": id}
        return body, httpx2.post(f"{self.issuer}/send", params=query, content=body).json()


def test_an_instance_opens_the_service_and_tells_it_of_its_users(service: Copy, clerk: Clerk) -> None:
    env = {
        "CLERK_ISSUER": clerk.issuer,
        "CLERK_AUTHORIZED_PARTIES": PAGE,
        "CLERK_NATIVE_APPS": "true",
        "CLERK_WEBHOOK_SECRET": SECRET,
    }
    app = service.folder / ".venv/bin/app"
    with served(service.folder, env) as (base, _):
        me, projects = f"{base}/api/v1/app/users/me", f"{base}/api/v1/app/projects"
        hook = f"{base}/api/v1/public/webhooks/clerk"

        def tell(kind: str, data: dict[str, Any], id: str) -> int:  # noqa: A002
            body, headers = clerk.event(kind, data, id)
            return httpx2.post(hook, content=body, headers=headers).status_code

        ada = clerk.call("POST", "/users", first_name="Ada", email_address=["ada@example.com"])
        token = clerk.token(ada["id"])
        status, shown = ask(me, token)
        assert (status, shown["email"]) == (200, None)
        assert tell("user.created", ada, "msg_1") == 204
        status, shown = ask(me, token)
        assert (shown["email"], shown["email_verified"], shown["display_name"]) == ("ada@example.com", True, "Ada")
        assert "is an admin" in run(app, "access", "make-admin", "ada@example.com", cwd=service.folder, env=env)
        assert ask(projects, token, "POST", name="Engine")[0] == 201
        renamed = clerk.call("PATCH", f"/users/{ada['id']}", first_name="Augusta")
        body, headers = clerk.event("user.updated", renamed, "msg_2")
        for _ in range(2):
            assert httpx2.post(hook, content=body, headers=headers).status_code == 204
        assert ask(me, token)[1]["display_name"] == "Augusta"
        forged = {**headers, "svix-id": "msg_3"}
        assert httpx2.post(hook, content=body, headers=forged).status_code == 401
        assert tell("session.created", {"id": "sess_1"}, "msg_4") == 204
        assert "identity: up" in run(app, "doctor", cwd=service.folder, env=env)
        gone = clerk.call("DELETE", f"/users/{ada['id']}")
        assert tell("user.deleted", gone, "msg_5") == 204
        assert tell("user.updated", renamed, "msg_6") == 204
        status, problem = ask(me, token)
        assert (status, problem["code"]) == (403, "account_deleted")
    with sqlite3.connect(service.folder / "data/app.db") as database:
        assert [database.execute(f"select count(*) from {table}").fetchone() for table in TABLES] == [(0,), (0,)]


def test_tokens_need_a_page_that_is_listed(service: Copy, clerk: Clerk) -> None:
    eve = clerk.call("POST", "/users", first_name="Eve", email_address=["eve@example.com"])
    env = {"CLERK_ISSUER": clerk.issuer, "CLERK_AUTHORIZED_PARTIES": PAGE}
    with served(service.folder, env) as (base, _):
        status, problem = ask(f"{base}/api/v1/app/users/me", clerk.token(eve["id"]))
        assert (status, problem["detail"]) == (401, "The token does not say which page it was made for.")


def test_the_doctor_says_what_is_wrong_with_an_instance(service: Copy, clerk: Clerk) -> None:
    env = {"CLERK_AUTHORIZED_PARTIES": PAGE}
    for wrong, sentence in {
        f"{clerk.issuer}/v2": "/v2/.well-known/jwks.json answers with status 404. Check CLERK_ISSUER",
        "http://localhost:9": "/.well-known/jwks.json cannot be reached",
    }.items():
        told = doctor(service, env | {"CLERK_ISSUER": wrong})
        assert (told.returncode, sentence in told.stdout) == (1, True), told.stdout
    bare = doctor(service, {}).stdout
    assert "nobody can sign in yet: CLERK_ISSUER is empty" in bare
    assert "no event is taken yet: CLERK_WEBHOOK_SECRET is empty" in bare

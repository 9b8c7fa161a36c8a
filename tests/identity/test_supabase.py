"""A service from `copier copy` to what a project of Supabase opens, and what its trigger tells.

oauth2-mock-server signs the tokens. The trigger runs in a real PostgreSQL, in which stand-ins have the names of what
Supabase has beside it: auth.users, the vault, and pg_net, whose queue keeps what would be sent.
"""

# ruff: noqa: S608
import json
import random
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from conftest import Answers, Copy, copy, free_port, run
from treatment import database, served
from workshop import ask, doctor, modules, started

ANSWERS: Answers = {"auth_provider": "supabase", "databases": ["postgresql"], "features": ["projects"]}
TABLES = ("users", "projects")
SECRET = "whsec_" + "c2VjcmV0" * 6
ADA, EVE = str(uuid.uuid4()), str(uuid.uuid4())
pytestmark = [pytest.mark.service, pytest.mark.xdist_group("auth_provider-supabase")]
STAND_INS = """
create schema extensions; create schema auth; create schema vault; create schema net;
create table auth.users (
    id uuid primary key, email varchar(255), encrypted_password text, email_confirmed_at timestamptz,
    last_sign_in_at timestamptz, raw_app_meta_data jsonb, raw_user_meta_data jsonb, updated_at timestamptz,
    is_anonymous boolean not null default false, banned_until timestamptz, deleted_at timestamptz
);
create table vault.secrets (id uuid primary key default gen_random_uuid(), name text unique, secret text);
create view vault.decrypted_secrets as select id, name, secret as decrypted_secret from vault.secrets;
create function vault.create_secret(secret text, name text) returns uuid language sql
    as $$ insert into vault.secrets (secret, name) values (secret, name) returning id $$;
create function vault.update_secret(which uuid, new_secret text) returns void language sql
    as $$ update vault.secrets set secret = new_secret where id = which $$;
create table net.queue (id bigserial, url text, body bytea, headers jsonb);
create function net.http_post(
    url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{}',
    timeout_milliseconds int default 1000
) returns bigint language sql
    as $$
        insert into net.queue (url, body, headers) values (url, convert_to(body::text, 'UTF8'), headers) returning id
    $$;
"""
RENAME = "update auth.users set raw_user_meta_data = jsonb_build_object('full_name', {})"
EXECUTE = """
import asyncio, asyncpg, json, sys
async def main(url, *statements):
    connection = await asyncpg.connect(url)
    for statement in statements:
        if statement.startswith("select"):
            print(json.dumps([list(row) for row in await connection.fetch(statement)]))
        else:
            await connection.execute(statement)
    await connection.close()
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def service(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Copy:
    made = copy(template, tmp_path_factory.mktemp("supabase") / "service", "--trust", answers=ANSWERS)
    assert made.status == 0, made.output
    return made


@pytest.fixture
def project(service: Copy) -> Iterator[Callable[..., str]]:
    """A database that looks like that of a project; it takes statements, and returns what the last one prints."""
    with database(service.folder) as url:

        def execute(*statements: str) -> str:
            return run(service.folder / ".venv/bin/python", "-c", EXECUTE, url, *statements, cwd=service.folder)

        execute(STAND_INS)
        yield execute


def token(url: str, id: str, **claims: str) -> str:  # noqa: A002
    """Sign a user in."""
    return str(httpx2.post(f"{url}/auth/v1/token", params={"id": id, **claims}).json()["access_token"])


def test_a_project_opens_the_service_and_tells_it_of_its_users(
    service: Copy, project: Callable[..., str], tmp_path: Path
) -> None:
    port, folder = free_port(), service.folder
    url = f"http://localhost:{port}"
    env = {
        "SUPABASE_URL": url,
        "SUPABASE_WEBHOOK_SECRET": SECRET,
        "SUPABASE_CONFIRMS_EMAIL": "true",
        "DATABASE_URL": f"sqlite:///{tmp_path}/app.db",
    }
    run(folder / ".venv/bin/alembic", "upgrade", "head", cwd=folder, env=env)
    sql = run(folder / ".venv/bin/app", "supabase", "trigger", "https://api.example.com", cwd=folder, env=env)
    # Twice: it may be run again. The extension is Supabase's own.
    sql = sql.replace("create extension if not exists pg_net;", "")
    project(sql, sql)
    found = modules("oauth2-mock-server@7.2.1")
    with served(folder, env) as (base, _):
        me, projects = f"{base}/api/v1/app/users/me", f"{base}/api/v1/app/projects"

        def sent(*statements: str) -> list[tuple[bytes, dict[str, str]]]:
            """Return the messages that changes in the project make."""
            told = project("truncate net.queue", *statements, "select url, body::text, headers::text from net.queue")
            rows = json.loads(told)
            assert all(row[0] == "https://api.example.com/api/v1/public/webhooks/supabase" for row in rows)
            return [(bytes.fromhex(row[1].removeprefix("\\x")), json.loads(row[2])) for row in rows]

        def deliver(*messages: tuple[bytes, dict[str, str]]) -> set[int]:
            hook = f"{base}/api/v1/public/webhooks/supabase"
            return {httpx2.post(hook, content=body, headers=headers).status_code for body, headers in messages}

        with started("supabase.cjs", found, "ES256", str(port)) as issuer:
            assert issuer == url
            ada = token(url, ADA)
            assert ask(me, ada)[1]["email"] is None
            joined = sent(
                "insert into auth.users"
                " (id, email, encrypted_password, email_confirmed_at, raw_app_meta_data, raw_user_meta_data)"
                f" values ('{ADA}', 'ada@example.com', '$2a$10$hash', now(), '{{}}',"
                ' \'{"full_name": "Ada Lövelace", "token": "hidden"}\')'
            )
            assert len(joined) == 1
            assert not any(word in joined[0][0] for word in (b"$2a$", b"hidden"))
            assert deliver(*joined) == {204}
            shown = ask(me, ada)[1]
            assert (shown["email"], shown["email_verified"]) == ("ada@example.com", True)
            assert shown["display_name"] == "Ada Lövelace"
            assert ask(projects, ada, "POST", name="Engine")[0] == 201
            # A sign-in changes the row there, and nothing that is of matter here.
            assert sent(f"update auth.users set last_sign_in_at = now(), updated_at = now() where id = '{ADA}'") == []
            changes = sent(*(f"update auth.users set email = '{number}@example.com'" for number in range(5)))
            assert len(changes) == 5
            shuffled = changes * 2
            random.Random(7).shuffle(shuffled)  # noqa: S311
            assert deliver(*shuffled) == {204}
            assert ask(me, ada)[1]["email"] == "4@example.com"
            body, headers = changes[0]
            assert deliver((body.replace(b"0@example.com", b"e@example.com"), headers)) == {401}
            # Users write their names, and none is so long that nothing more is heard of them.
            assert deliver(*sent(RENAME.format("repeat('x', 2000000)"))) == {204}
            assert "identity: up" in run(folder / ".venv/bin/app", "doctor", cwd=folder, env=env)
            assert ask(me, token(url, EVE))[0] == 200
            assert ask(me, token(url, ADA, role="service_role"))[0] == 401
            assert deliver(*sent(f"delete from auth.users where id = '{ADA}'")) == {204}
            assert deliver(*changes) == {204}
            assert ask(me, ada)[1]["code"] == "account_deleted"
            assert ask(me, token(url, ADA))[0] == 403
            with sqlite3.connect(tmp_path / "app.db") as kept:
                assert [kept.execute(f"select count(*) from {table}").fetchone() for table in TABLES] == [(1,), (0,)]
            eve = token(url, EVE)
        # The project is away, and known keys go on working.
        assert ask(me, eve)[0] == 200


def test_the_trigger_keeps_nobody_from_signing_up(service: Copy, project: Callable[..., str]) -> None:
    """Without its secret, nothing can be signed."""
    env = {"SUPABASE_WEBHOOK_SECRET": SECRET}
    sql = run(
        service.folder / ".venv/bin/app", "supabase", "trigger", "https://api.example.com", cwd=service.folder, env=env
    )
    project(sql.replace("create extension if not exists pg_net;", ""), "delete from vault.secrets")
    told = project(f"insert into auth.users (id) values ('{ADA}')", "select count(*) from auth.users")
    assert json.loads(told) == [[1]]


def test_the_trigger_tells_who_is_banned(service: Copy, project: Callable[..., str]) -> None:
    env = {"SUPABASE_WEBHOOK_SECRET": SECRET}
    sql = run(
        service.folder / ".venv/bin/app", "supabase", "trigger", "https://api.example.com", cwd=service.folder, env=env
    )
    bans = ["now() + interval '1 day'", "'infinity'", "null"]
    told = project(
        sql.replace("create extension if not exists pg_net;", ""),
        f"insert into auth.users (id) values ('{ADA}')",
        *(f"update auth.users set banned_until = {until}" for until in bans),
        "select convert_from(body, 'UTF8')::jsonb #>> '{record,is_banned}' from net.queue order by id",
    )
    # Until when is no matter: a longer ban is nothing new.
    assert json.loads(told) == [["false"], ["true"], ["false"]]


def test_the_doctor_says_what_is_wrong_with_a_project(service: Copy) -> None:
    port = free_port()
    with started("supabase.cjs", modules("oauth2-mock-server@7.2.1"), "RS256", str(port)) as url:
        for settings, sentence in {
            f"{url}/rest": "/rest/auth/v1/.well-known/jwks.json answers with status 404. Check SUPABASE_URL",
            "http://localhost:9": "/auth/v1/.well-known/jwks.json cannot be reached",
        }.items():
            told = doctor(service, {"SUPABASE_URL": settings})
            assert (told.returncode, sentence in told.stdout) == (1, True), told.stdout
        assert "identity: up" in doctor(service, {"SUPABASE_URL": url}).stdout
    bare = doctor(service, {}).stdout
    assert "nobody can sign in yet: SUPABASE_URL is empty" in bare
    assert "no event is taken yet: SUPABASE_WEBHOOK_SECRET is empty" in bare

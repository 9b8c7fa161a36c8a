"""Hostile cases for the kit, which run inside services: the services' own tests hold only what their owners need."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import pytest
import time_machine
from fastapi import FastAPI, Request
from httpx2 import ASGITransport, AsyncClient
from limits import parse
from pydantic import AfterValidator, ValidationError

from app import main
from app.kit.errors import ERROR_HANDLERS
from app.kit.http import BodyLimitMiddleware
from app.kit.ids import new_id
from app.kit.limits import client_key, memory_counter
from app.kit.logging import redact_text
from app.kit.module import Module
from app.kit.schemas import Body
from app.main import create_app


def test_long_lines_of_nearly_secrets_take_no_quadratic_time() -> None:
    for part in ("a-", "a.", "eyJaaaaa-", "a://", "token=", "a_", "aa_a" * 6, "a_" + "b" * 23):
        assert redact_text("= " + part * 200_000)


def test_keys_as_vendors_make_them_are_masked() -> None:
    body = "4eC39HqLyjWDarjtT1zdp7dc" * 2
    for prefix in ("sk_live_", "re_", "ghp_", "github_pat_", "apikey_", "SK_"):
        assert redact_text(f"found {prefix}{body} twice") == f"found {prefix}*** twice"
        assert redact_text(prefix + body) == f"{prefix}***"
    for plain in ("fk_projects_owner_id_users", f"a{body}", "apikey_4eC39Hq", "9_" + body):
        assert redact_text(plain) == plain


def test_ids_sort_by_time() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(ids)
    assert {one.version for one in ids} == {7}


@pytest.mark.parametrize(
    ("content", "kind", "told"),
    [
        (b'{"text": "a",}', "application/json", "body: This is not JSON: "),
        (b"text=a", "application/x-www-form-urlencoded", "body: This must be a JSON object, sent with Content-Type"),
        (b"[]", "application/json", "body: This must be a JSON object, sent with Content-Type"),
        (b'{"text": "no"}', "application/json", "body.text: is not this"),
    ],
)
async def test_bodies_that_are_wrong_are_told_in_words(content: bytes, kind: str, told: str) -> None:
    def refuse(_: str) -> str:
        raise ValueError("is not this")

    class Note(Body):
        text: Annotated[str, AfterValidator(refuse)]

    app = FastAPI(exception_handlers=dict[Any, Any](ERROR_HANDLERS))

    async def add(note: Note) -> None:
        raise NotImplementedError

    app.add_api_route("/notes", add, methods=["POST"])
    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        answer = await client.post("/notes", content=content, headers={"Content-Type": kind})
    assert answer.json()["detail"].startswith(told)
    assert len(answer.json()["errors"]) == 1


async def test_a_body_without_a_length_is_counted_as_it_comes() -> None:
    async def stream() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b" " * 1024

    async def read(request: Request) -> None:
        await request.body()

    app = FastAPI(exception_handlers=dict[Any, Any](ERROR_HANDLERS))
    app.add_api_route("/notes", read, methods=["POST"])
    limited = BodyLimitMiddleware(app, max_body_size=2048)
    async with AsyncClient(transport=ASGITransport(limited), base_url="http://test") as client:
        assert (await client.post("/notes", content=b" " * 2048)).status_code == 200
        for content in (b" " * 2049, stream()):
            answer = await client.post("/notes", content=content)
            assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")


def test_all_of_an_ipv6_subscriber_is_one_client() -> None:
    assert client_key("2001:db8:1:2::3") == client_key("2001:db8:1:2:3::") != client_key("2001:db8:1:3::")
    for address in ("192.0.2.1", "a:b"):
        assert client_key(address) == address
    assert client_key("::ffff:192.0.2.1") == "192.0.2.1"


async def test_windows_that_have_ended_are_swept() -> None:
    count, limit = memory_counter(), parse("2/second")
    assert [(await count(limit, "a")).used for _ in range(3)] == [1, 2, 3]
    with time_machine.travel(time.time() + 2):
        assert [(await count(limit, str(number))).used for number in range(2048)] == [1] * 2048
        assert (await count(limit, "a")).used == 1


async def test_the_documentation_may_load_what_it_needs(client: AsyncClient) -> None:
    answer = await client.get("/docs")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    for source in re.findall(r'(?:src|href)="(https://[^/]+)', answer.text):
        assert source in policy


@pytest.mark.parametrize("given", ["0123456789abcdef", "trace.A_1-b", "x" * 128])
@pytest.mark.parametrize("spoilt", ["{}", "{} x", "<{}>", "{}é", "{}" + "x" * 128])
async def test_a_sane_request_id_is_kept_and_any_other_replaced(client: AsyncClient, given: str, spoilt: str) -> None:
    sent = spoilt.format(given)
    answered = (await client.get("/health", headers={b"X-Request-ID": sent.encode()})).headers["x-request-id"]
    assert answered == given if sent == given else re.fullmatch("[0-9a-f]{32}", answered)


def test_operations_have_clean_names_and_documented_problems() -> None:
    document = create_app().openapi()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert re.fullmatch(r"[a-z]+(-[a-z]+)*-[a-z_]+", operation["operationId"])
            assert operation["summary"]
            assert path.startswith("/api/v1/public") or "401" in operation["responses"]


async def test_what_is_open_is_closed_in_reverse_when_a_later_start_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def opened(name: str, _: FastAPI) -> AsyncIterator[None]:
        seen.append(f"open {name}")
        if name == "c":
            raise ConnectionError(name)
        yield
        seen.append(f"close {name}")

    monkeypatch.setattr(main, "MODULES", [Module(name=name, lifespan=partial(opened, name)) for name in "abc"])
    with pytest.raises(ConnectionError, match="c"):
        async with main.lifespan(FastAPI()):
            pass
    assert seen == ["open a", "open b", "open c", "close b", "close a"]


class Note(Body):
    text: str
    colour: str | None = None


def test_unknown_fields_cost_no_more_than_a_few_errors() -> None:
    many = {f"{number:06x}": 1 for number in range(100_000)}
    bodies: list[tuple[dict[str, object], list[str]]] = [
        ({**many}, ["text"]),
        ({**many, "text": "x"}, []),
        ({"colour": 1, **many, "text": "x"}, ["colour"]),
    ]
    for body, known in bodies:
        with pytest.raises(ValidationError) as caught:
            Note.model_validate(body)
        told = [str(error["loc"][0]) for error in caught.value.errors()]
        assert told == [*known, *list(many)[:10]]
    for odd in ([], [["text", "x"]], "text", None, 1):
        with pytest.raises(ValidationError):
            Note.model_validate(odd)
    assert Note.model_validate({"text": "x", "colour": "red"}).colour == "red"


async def test_the_name_of_an_unknown_field_is_not_told_in_full() -> None:
    handlers: dict[Any, Any] = {**ERROR_HANDLERS}
    probe = FastAPI(exception_handlers=handlers)

    @probe.post("/notes")
    async def add_note(note: Note) -> None: ...

    async with AsyncClient(transport=ASGITransport(probe), base_url="http://test") as client:
        answer = await client.post("/notes", json={"text": "x", "a" * 1_000_000: 1})
    assert (answer.status_code, len(answer.content) < 2000) == (422, True)

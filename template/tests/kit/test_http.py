import time
from collections.abc import AsyncIterator

import pytest
from httpx2 import ASGITransport, AsyncClient
from pydantic import BaseModel

from app import main
from app.kit.errors import NotFound, Unavailable
from app.kit.settings import forget
from app.modules.health.module import health


class Note(BaseModel):
    text: str


@pytest.fixture
async def probe(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    for name, value in {
        "ENVIRONMENT": "production",
        "SECRET_KEY": "a secret of these tests alone, and of no service",
        "MAX_BODY_BYTES": "2048",
        "CORS_ORIGINS": "https://app.example.com",
        "RATE_LIMIT_ENABLED": "true",
        "RATE_LIMIT_DEFAULT": "3/minute",
    }.items():
        monkeypatch.setenv(name, value)
    # Production may ask for settings of other modules, which are tested with them.
    monkeypatch.setattr(main, "MODULES", [health])
    forget()
    app = main.create_app()
    errors = {"boom": RuntimeError("password=hunter2"), "gone": NotFound("It is gone."), "away": Unavailable("Away.")}

    @app.get("/fail/{name}")
    async def fail(name: str) -> None:
        raise errors[name]

    @app.post("/notes")
    async def add_note(note: Note) -> Note:
        return note

    async with AsyncClient(transport=ASGITransport(app), base_url="https://test") as client:
        yield client
    forget()


@pytest.mark.parametrize(
    ("path", "status", "code", "detail"),
    [
        ("/nowhere", 404, "not_found", "Not Found"),
        ("/fail/gone", 404, "not_found", "It is gone."),
        ("/fail/away", 503, "service_unavailable", "Away."),
        ("/fail/boom", 500, "internal_error", "Something went wrong on our side."),
    ],
)
async def test_errors_are_problem_documents(probe: AsyncClient, path: str, status: int, code: str, detail: str) -> None:
    answer = await probe.get(path)
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (problem["type"], problem["status"], problem["code"]) == ("about:blank", status, code)
    assert (problem["instance"], problem["request_id"]) == (path, answer.headers["x-request-id"])
    assert (problem["detail"].startswith(detail), "hunter2" in answer.text) == (True, False)


async def test_methods_and_fields_that_are_wrong_are_told(probe: AsyncClient) -> None:
    method = await probe.delete("/health")
    assert (method.status_code, method.json()["code"], method.headers["allow"]) == (405, "method_not_allowed", "GET")
    fields = await probe.post("/notes", json={"text": {"password": "hunter2"}})
    assert fields.json()["errors"] == [
        {"field": "body.text", "code": "string_type", "message": "Input should be a valid string"}
    ]
    assert "hunter2" not in fields.text
    assert (await probe.get("/fail/away")).headers["retry-after"] == "5"


async def test_a_body_over_the_limit_is_refused_and_a_page_may_read_why(probe: AsyncClient) -> None:
    origin = {"Origin": "https://app.example.com"}
    answer = await probe.post("/notes", content=b" " * 4096, headers=origin)
    assert (answer.json()["title"], answer.json()["code"]) == ("Content Too Large", "content_too_large")
    assert answer.headers["access-control-allow-origin"] == origin["Origin"]


async def test_security_headers_and_the_request_id_are_on_every_answer(probe: AsyncClient) -> None:
    for path in ("/health", "/nowhere", "/fail/boom"):
        headers = (await probe.get(path, headers={"X-Request-ID": "0123456789abcdef"})).headers
        assert headers["strict-transport-security"].startswith("max-age=")
        assert "default-src 'none'" in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["x-request-id"]) == ("nosniff", "0123456789abcdef")
    assert (await probe.get("/docs")).status_code == 404


async def test_cors_answers_the_listed_origin_and_no_other(probe: AsyncClient) -> None:
    for origin, allowed in {"https://app.example.com": True, "https://evil.example.com": False}.items():
        answer = await probe.get("/health", headers={"Origin": origin})
        assert ("access-control-allow-origin" in answer.headers) is allowed


async def test_limits_are_told_and_enforced(probe: AsyncClient) -> None:
    for remaining in ("2", "1", "0"):
        answer = await probe.get("/api/v1/public/health")
        assert (answer.status_code, answer.headers["x-ratelimit-limit"]) == (200, "3")
        assert answer.headers["x-ratelimit-remaining"] == remaining
    refused = await probe.get("/api/v1/public/health")
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_requests")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert int(refused.headers["x-ratelimit-reset"]) >= time.time() - 1
    assert (await probe.get("/health")).status_code == 200

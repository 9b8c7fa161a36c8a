import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI
from httpx2 import ASGITransport, AsyncClient
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Receive, Scope, Send

from app.kit.settings import SettingsError, load
from app.modules.metrics import service
from app.modules.metrics.middleware import MetricsMiddleware
from app.modules.metrics.service import Metrics
from app.modules.metrics.settings import MetricsSettings
from tests.modules.metrics.conftest import METRICS, Value

Configure = Callable[..., None]
TOKEN = "a-token-of-thirty-two-characters"
COUNT = "http_server_request_duration_seconds_count"


def request(method: str, route: str, status: int) -> dict[str, str]:
    return {"http_request_method": method, "http_route": route, "http_response_status_code": str(status)}


@pytest.fixture
def reads(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The readings of the application, for a test to add some."""
    reads: dict[str, Any] = dict(app.state.metrics._reads)
    monkeypatch.setattr(app.state.metrics, "_reads", reads)
    return reads


async def test_both_formats_can_be_read(scraper: AsyncClient) -> None:
    plain = await scraper.get(METRICS)
    assert (plain.status_code, plain.headers["content-type"].split(";")[0]) == (200, "text/plain")
    names = {family.name for family in text_string_to_metric_families(plain.text)}
    assert {"http_server_request_duration_seconds", "db_client_connection_count", "process_cpu_seconds"} <= names
    told = await scraper.get(METRICS, headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert told.headers["content-type"].startswith("application/openmetrics-text")
    told_names = {family.name for family in openmetrics_families(told.text)}  # type: ignore[no-untyped-call]
    assert told_names >= names - {"process_cpu_seconds"}


@pytest.mark.parametrize("path", [METRICS, f"{METRICS}/health"])
async def test_where_there_is_a_token_it_has_to_be_shown(scraper: AsyncClient, configure: Configure, path: str) -> None:
    configure(metrics_token=TOKEN)
    for shown in ("", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN.upper()}"):
        answer = await scraper.get(path, headers={"authorization": shown} if shown else {})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), shown
        assert "METRICS_TOKEN" in answer.json()["detail"]
        assert "python_info" not in answer.text
    odd = await scraper.get(path, headers=[(b"authorization", "Bearer ä".encode("latin-1"))])
    assert odd.status_code == 401
    for shown in (f"Bearer {TOKEN}", f"bearer {TOKEN}"):
        assert (await scraper.get(path, headers={"authorization": shown})).status_code == 200


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"metrics_token": "short"}, "METRICS_TOKEN: needs at least 32 characters"),
        ({"metrics_token": "with spaces " * 9}, "METRICS_TOKEN: needs at least 32 characters"),
        ({"environment": "production", "secret_key": "x3Kq9vTz7LmP2wRb8NcY5hJd4GfS6aQe"}, "METRICS_TOKEN: production"),
        ({"metrics_seconds": "-1"}, "METRICS_SECONDS"),
    ],
)
def test_wrong_settings_are_refused(configure: Configure, environment: dict[str, str], told: str) -> None:
    configure(**environment)
    with pytest.raises(SettingsError, match=told) as refused:
        load(MetricsSettings)
    assert "with spaces" not in str(refused.value)


async def test_requests_are_told_apart_by_routes_and_never_by_what_clients_send(
    scraper: AsyncClient, app: FastAPI, value: Value
) -> None:
    me = request("GET", "/api/v1/app/users/me", 401)
    live, nowhere = request("GET", "/health/live", 200), request("GET", "", 404)
    before = [value(COUNT, **labels) for labels in (live, nowhere)]
    await scraper.get("/health/live", params={"secret": "hunter2"})
    for number in range(50):
        assert (await scraper.get(f"/hunter2/{number}")).status_code == 404
    assert [value(COUNT, **labels) for labels in (live, nowhere)] == [before[0] + 1, before[1] + 50]
    known = value(COUNT, **me)
    if (await scraper.get("/api/v1/app/users/me")).status_code == 401:
        assert value(COUNT, **me) == known + 1
    # Any word may be a method.
    for number in range(50):
        assert (await scraper.request(f"HUNTER{number}", "/health/live")).status_code == 405
    assert value(COUNT, **request("_OTHER", "/health/live", 405)) + value(COUNT, **request("_OTHER", "", 405)) >= 50
    assert "hunter" not in (await scraper.get(METRICS)).text.lower()


async def test_what_is_refused_on_its_way_is_counted(
    scraper: AsyncClient, app: FastAPI, value: Value, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = value(COUNT, **request("POST", "", 413))
    assert (await scraper.post("/health", content=b"x" * 2_000_000)).status_code == 413
    assert value(COUNT, **request("POST", "", 413)) == before + 1

    async def fail(accept: str) -> tuple[bytes, str]:
        raise ZeroDivisionError

    monkeypatch.setattr(app.state.metrics, "write", fail)
    before = value(COUNT, **request("GET", METRICS, 500))
    assert (await scraper.get(METRICS)).status_code == 500
    assert value(COUNT, **request("GET", METRICS, 500)) == before + 1


async def test_who_goes_while_the_request_is_read_has_not_had_the_answer() -> None:
    service = FastAPI()
    service.state.metrics = metrics = Metrics(service)
    service.add_middleware(MetricsMiddleware)

    @service.post("/told")
    async def told(body: dict[str, int]) -> None:
        raise AssertionError

    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(_: Any) -> None:
        return None

    headers = [(b"content-type", b"application/json"), (b"content-length", b"9")]
    scope = {"type": "http", "method": "POST", "path": "/told", "query_string": b"", "headers": headers}
    await service(scope, receive, send)
    count = metrics.registry.get_sample_value
    assert [count(COUNT, request("POST", "/told", status)) for status in (499, 400)] == [1, None]


async def test_who_goes_while_the_answer_is_sent_has_had_its_status() -> None:
    service = FastAPI()
    service.state.metrics = metrics = Metrics(service)

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        return None

    await MetricsMiddleware(stream)({"type": "http", "method": "GET", "app": service}, receive, send)
    assert metrics.registry.get_sample_value(COUNT, request("GET", "", 200)) == 1


async def test_who_goes_before_the_answer_is_counted_and_active_no_more(
    scraper: AsyncClient, app: FastAPI, value: Value, reads: dict[str, Any]
) -> None:
    begun = asyncio.Event()

    async def hang() -> Sequence[Metric]:
        begun.set()
        await asyncio.sleep(3600)
        return []

    before, active = value(COUNT, **request("GET", METRICS, 499)), value("http_server_active_requests")
    reads["hang"] = hang
    asking = asyncio.create_task(scraper.get(METRICS))
    await begun.wait()
    assert value("http_server_active_requests") == active + 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert value(COUNT, **request("GET", METRICS, 499)) == before + 1
    assert value("http_server_active_requests") == active


async def test_what_is_done_after_the_answer_counts_as_no_part_of_it() -> None:
    service, seen = FastAPI(), list[float | None]()
    service.state.metrics = metrics = Metrics(service)
    service.add_middleware(MetricsMiddleware)

    def count() -> float | None:
        return metrics.registry.get_sample_value(COUNT, request("GET", "/later", 200))

    @service.get("/later")
    async def later(background: BackgroundTasks) -> None:
        background.add_task(lambda: seen.append(count()))

    async with AsyncClient(transport=ASGITransport(service), base_url="http://test") as client:
        await client.get("/later")
    assert (seen, count()) == ([1], 1)


async def test_what_cannot_be_read_keeps_no_other(
    scraper: AsyncClient, value: Value, reads: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> Sequence[Metric]:
        raise ConnectionError("password=hunter2")

    async def hang() -> Sequence[Metric]:
        await asyncio.sleep(3600)
        return []

    async def count() -> Sequence[Metric]:
        return [GaugeMetricFamily("shop_orders", "Orders.", 7)]

    async def add_up() -> Sequence[Metric]:
        total = GaugeMetricFamily("shop_total", "What SQL adds up of no rows.", labels=["shop"])
        total.add_metric(["one"], None)  # type: ignore[arg-type]
        return [total]

    whole = await scraper.get(f"{METRICS}/health")
    assert (whole.status_code, whole.json()["status"]) == (200, "healthy")
    monkeypatch.setattr(service, "READ_SECONDS", 0.05)
    reads |= {"fail": fail, "hang": hang, "add_up": add_up, "too": hang, "count": count}
    answer = await scraper.get(METRICS)
    assert answer.status_code == 200
    assert "shop_orders 7.0" in answer.text
    assert "hunter2" not in answer.text
    found = {name: value("metrics_reading_success", reading=name) for name in reads}
    assert [name for name, well in found.items() if not well] == ["fail", "hang", "add_up", "too"]
    health = await scraper.get(f"{METRICS}/health")
    assert (health.status_code, health.json()["status"]) == (503, "degraded")
    assert {one["name"]: one["status"] for one in health.json()["readings"]} == {
        name: "failed" if name in {"fail", "hang", "add_up", "too"} else "ok" for name in reads
    }


async def test_all_readings_together_have_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    until: list[float | None] = []
    timeout_at = asyncio.timeout_at

    def note(when: float | None) -> asyncio.Timeout:
        until.append(when)
        return timeout_at(when)

    async def none() -> Sequence[Metric]:
        await asyncio.sleep(0.01)
        return []

    monkeypatch.setattr(asyncio, "timeout_at", note)
    metrics = Metrics(FastAPI())
    for name in "abc":
        metrics.read(name, none)
    await metrics.readings()
    assert len(until) == 3
    assert len(set(until)) == 1


async def test_doctor_tells_where_anyone_may_read(app: FastAPI, configure: Configure) -> None:
    assert await service.check(app) == "anyone may read them: METRICS_TOKEN is empty"
    configure(metrics_token=TOKEN)
    assert await service.check(app) is None


async def test_many_who_ask_at_once_read_once(configure: Configure) -> None:
    configure(metrics_seconds="60")
    times = 0

    async def count() -> Sequence[Metric]:
        nonlocal times
        times += 1
        await asyncio.sleep(0.01)
        return []

    metrics = Metrics(FastAPI())
    metrics.read("count", count)
    await asyncio.gather(*(metrics.write("") for _ in range(20)))
    assert times == 1
    configure(metrics_seconds="0")
    await metrics.write("")
    assert times == 2


async def test_an_application_that_has_not_opened_answers_all_the_same() -> None:
    from app.main import create_app

    async with AsyncClient(transport=ASGITransport(create_app()), base_url="http://test") as client:
        assert (await client.get("/health/live")).status_code == 200

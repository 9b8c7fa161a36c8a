import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import pytest
import structlog
import time_machine
from httpx2 import AsyncClient

from app.kit import clock
from app.kit.logging import LogSettings, configure_logging, get_logger


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, structlog.get_config())
    yield
    root.handlers, root.level, config = before
    structlog.configure(**config)


def test_logs_are_json_in_production_and_hold_no_secret(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(log_level="INFO", log_format="auto"), production=True)
    token = "eyJhbGciOi.eyJzdWIiOiIx.c2lnbmF0dXJl"
    get_logger("test").info(
        "signed in with Bearer abcdefgh12345678",
        password="hunter2",
        nested={"api_key": "hunter2", "url": "amqp://app:hunter2@mq/app", (1, "\ud800"): {2}},
        seen=[token, "token=hunter2", ValueError("token=hunter2"), b"\xff", float("nan"), "\ud800", HTTPStatus.OK],
        odd=type("Odd", (), {"__str__": None})(),
        user="ada",
    )
    logging.getLogger("uvicorn").error("failed", exc_info=OSError("secret=hunter2"), extra={"color_message": "hunter2"})
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["user"], first["password"], first["level"], first["odd"]) == ("ada", "***", "info", "<Odd>")
    assert first["nested"] == {"api_key": "***", "url": "amqp://app:***@mq/app", "(1, '\\ud800')": [2]}
    assert first["event"] == "signed in with Bearer ***"
    assert first["seen"] == ["***", "token=***", "token=***", "b'\\xff'", "NaN", "\\ud800", 200]
    assert "hunter2" not in json.dumps([first, second])
    assert "OSError" in second["exception"]


async def test_accesses_are_logged_but_not_of_health(client: AsyncClient, capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(log_level="INFO", log_format="json"), production=False)
    await client.get("/health/live")
    answer = await client.get("/nowhere?token=hunter2")
    [record] = map(json.loads, capsys.readouterr().out.splitlines())
    assert (record["method"], record["path"], record["status"]) == ("GET", "/nowhere", 404)
    assert record["request_id"] == answer.headers["x-request-id"]


def test_the_clock_is_aware_and_can_be_set() -> None:
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    with time_machine.travel(noon, tick=False):
        assert (clock.now(), clock.now().utcoffset()) == (noon, timedelta(0))

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import schemathesis
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from typer.testing import CliRunner, Result

from app.cli import cli
from app.kit.settings import forget


class Server(NamedTuple):
    url: str
    process: "subprocess.Popen[bytes]"
    log: Path


@pytest.fixture(scope="module")
def server(migrated: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    log = tmp_path_factory.mktemp("server") / "log"
    env = os.environ | {"LOG_FORMAT": "json", "LOG_LEVEL": "INFO"}
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "app.cli", "serve", "--port", port], env=env, stdout=output)
    try:
        while "Uvicorn running" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield Server(f"http://127.0.0.1:{port}", process, log)
    finally:
        process.kill()
        process.wait()
        command.downgrade(migrated, "base")
        command.upgrade(migrated, "head")


def test_the_api_keeps_to_its_openapi_document(server: Server) -> None:
    operations = list(schemathesis.openapi.from_url(f"{server.url}/openapi.json").get_all_operations())
    assert len(operations) >= 6
    for result in operations:
        assert isinstance(result, Ok), result

        @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(case=result.ok().as_strategy())
        def check(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate()

        check()


def test_sigterm_ends_it_in_good_order(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert '"stopped"' in server.log.read_text()


def app_command(*arguments: str) -> Result:
    forget()
    try:
        return CliRunner().invoke(cli, arguments, catch_exceptions=False)
    finally:
        forget()


def test_doctor_tells_what_to_do(migrated: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    well = app_command("doctor")
    assert (well.exit_code, "migrations" in well.output) == (0, True), well.output
    (tmp_path / "junk").write_bytes(b"junk" * 99)
    for path, told in {"new.db": "alembic upgrade head", "junk": "DatabaseError: file is not a database."}.items():
        monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/{path}")
        ill = app_command("doctor")
        assert (ill.exit_code, told in ill.output) == (1, True), ill.output


def test_settings_and_routes_are_listed_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", "hunter2" * 8)
    monkeypatch.setenv("DATABASE_URL", "sqlite://app:hunter2@/app.db?key=hunter2")
    settings = app_command("settings")
    assert re.search(r"LOG_LEVEL +WARNING +INFO +yes .*least", settings.output)
    assert re.search(r"SECRET_KEY +\*+ +yes", settings.output)
    assert " sqlite://app:***@/app.db?key=*** " in settings.output
    assert "hunter2" not in settings.output
    assert re.search(r"GET +/health/ready +health-read_readiness", app_command("routes").output)

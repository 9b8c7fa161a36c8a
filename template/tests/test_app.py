import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from alembic import command
from alembic.config import Config
from hypothesis import HealthCheck, given, settings
from schemathesis.core.result import Ok
from typer.testing import CliRunner, Result

from app.cli import cli
from app.kit.settings import forget


def test_it_keeps_to_its_openapi_document_and_ends_in_good_order(migrated: Config, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    log = tmp_path / "log"
    env = os.environ | {"LOG_FORMAT": "json", "LOG_LEVEL": "INFO"}
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "app.cli", "serve", "--port", port], env=env, stdout=output)
    try:
        while "Uvicorn running" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        operations = list(schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json").get_all_operations())
        assert len(operations) >= 6
        for result in operations:
            assert isinstance(result, Ok), result

            @settings(max_examples=15, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
            @given(case=result.ok().as_strategy())
            def check(case: schemathesis.Case[Any]) -> None:
                case.call_and_validate()

            check()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert '"stopped"' in log.read_text()
    finally:
        process.kill()
        process.wait()
        command.downgrade(migrated, "base")
        command.upgrade(migrated, "head")


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
    assert (" sqlite://app:***@/app.db?key=*** " in settings.output, "hunter2" in settings.output) == (True, False)
    assert re.search(r"GET +/health/ready +health-read_readiness", app_command("routes").output)

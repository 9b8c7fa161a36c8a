import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from alembic.config import Config
from fastapi import FastAPI

from app.kit.settings import SettingsError
from app.modules.metrics.service import Metrics
from app.modules.metrics.worker import lifespan
from tests.modules.metrics.conftest import METRICS

TOKEN = "a-token-of-thirty-two-characters"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def worker(log: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    env = os.environ | {"METRICS_WORKER_PORT": str(port), "METRICS_TOKEN": TOKEN, "LOG_LEVEL": "INFO"}
    env["LOG_FORMAT"] = "json"
    with log.open("wb") as output:
        started = subprocess.Popen([sys.executable, "-m", "app.cli", "worker"], env=env, stdout=output, stderr=output)
    try:
        while "metrics are served here" not in log.read_text():
            assert started.poll() is None, log.read_text()
            time.sleep(0.05)
        yield started
    finally:
        started.kill()
        started.wait(20)


def test_a_worker_serves_its_metrics_and_nothing_else(migrated: Config, tmp_path: Path) -> None:
    port = free_port()
    with worker(tmp_path / "log", port) as started, httpx2.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get(METRICS).status_code == 401
        found = client.get(METRICS, headers={"authorization": f"Bearer {TOKEN}"})
        assert (found.status_code, "jobs_wait_seconds" in found.text) == (200, True)
        for path in ("/health", "/api/v1/app/users/me", "/docs", "/openapi.json", f"{METRICS}/"):
            missing = client.get(path)
            assert (missing.status_code, missing.json()["status"]) == (404, 404)
        # Who tries tokens leaves a trace.
        assert re.search(r'"status": ?401', (tmp_path / "log").read_text())
        # A connection that stays open holds up nobody's end.
        started.send_signal(signal.SIGTERM)
        assert started.wait(20) == 0, (tmp_path / "log").read_text()


async def test_a_host_may_be_of_ipv6(configure: Callable[..., None]) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    configure(metrics_worker_port=str(port), host="::1")
    service = FastAPI()
    service.state.works, service.state.metrics = True, Metrics(service)
    async with lifespan(service), httpx2.AsyncClient() as client:
        assert (await client.get(f"http://[::1]:{port}{METRICS}")).status_code == 200


async def test_signals_are_left_to_the_worker_which_is_measured_while_it_drains(configure: Callable[..., None]) -> None:
    port, told = free_port(), asyncio.Event()
    configure(metrics_worker_port=str(port))
    service = FastAPI()
    service.state.works, service.state.metrics = True, Metrics(service)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    try:
        async with lifespan(service), httpx2.AsyncClient() as client:
            assert (await client.get(f"http://127.0.0.1:{port}{METRICS}")).status_code == 200
            os.kill(os.getpid(), signal.SIGTERM)
            await told.wait()
            await asyncio.sleep(0.5)
            assert (await client.get(f"http://127.0.0.1:{port}{METRICS}")).status_code == 200
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_a_port_that_is_taken_is_told(configure: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        configure(metrics_worker_port=str(port))
        service = FastAPI()
        service.state.works = True
        with pytest.raises(SettingsError, match=f"METRICS_WORKER_PORT: 127.0.0.1:{port} cannot be listened on"):
            async with lifespan(service):
                pass
        # A process that serves has the routes already.
        del service.state.works
        async with lifespan(service):
            pass

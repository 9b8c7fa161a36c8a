"""A server that is told to stop while many are served, which runs inside services."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from alembic.config import Config
from httpx2 import AsyncClient, TransportError


async def test_sigterm_under_load_loses_no_accepted_request(migrated: Config, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    log = tmp_path / "log"
    env = os.environ | {"LOG_FORMAT": "json", "LOG_LEVEL": "INFO"}
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "app.cli", "serve", "--port", port], env=env, stdout=output)
    answers: list[int] = []

    async def call(client: AsyncClient) -> None:
        with suppress(TransportError):  # The server is gone, or has closed an idle connection.
            while True:
                answers.append((await client.get("/api/v1/public/health/db")).status_code)

    try:
        while "Uvicorn running" not in log.read_text():
            assert process.poll() is None, log.read_text()
            await asyncio.sleep(0.05)
        headers = {"X-Request-ID": "before-sigterm"}
        async with AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=20) as client:
            callers = [asyncio.create_task(call(client)) for _ in range(8)]
            while len(answers) <= 8 and process.poll() is None:
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            await asyncio.gather(*callers)
        assert await asyncio.to_thread(process.wait, 20) == 0
    finally:
        process.kill()
        process.wait()
    assert set(answers) == {200}
    assert log.read_text().count("before-sigterm") == len(answers) > 8
    assert '"stopped"' in log.read_text()

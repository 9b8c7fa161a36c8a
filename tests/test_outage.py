"""A service whose PostgreSQL is killed under load: 503 with a problem document, no hang, and recovery by itself."""

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import Copy, free_port, run, unavailable

pytestmark = [pytest.mark.service, pytest.mark.xdist_group("all-lists")]

# Characters that would have to be escaped in a URL: the password stands apart.
PASSWORD = "p@ss/w:rd%"  # noqa: S105
# A request that takes longer than this hangs: it is well above every timeout of the service.
HANGS_AFTER_SECONDS = 30


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL server of our own, which may be killed."""

    folder: Path
    port: int
    command: tuple[str, ...]

    @property
    def url(self) -> str:
        """Where a client finds it."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def control(self, *arguments: str) -> None:
        """Run pg_ctl."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        data, log = str(self.folder / "data"), str(self.folder / "log")
        command = [*self.command, "--pgdata", data, "--log", log, "--options", options, "--wait", *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60)

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        self.control("start")

    def kill(self) -> None:
        """Take the server away without a word to its clients."""
        self.control("--mode=immediate", "stop")


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    found = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.environ["PATH"].split(":"))]
    tools = next((folder for folder in found if (folder / "initdb").exists()), None)
    if tools is None:
        unavailable("initdb of PostgreSQL")
    # Not below pytest's own folder, which every run of pytest closes to other users again.
    with tempfile.TemporaryDirectory(prefix="espalier-postgres-") as name:
        folder = Path(name)
        prefix: tuple[str, ...] = ()
        if os.getuid() == 0:
            # PostgreSQL refuses to run as root.
            prefix = ("runuser", "-u", "postgres", "--")
            shutil.chown(folder, "postgres")
        (folder / "password").write_text(PASSWORD, "utf-8")
        options = ("--auth=scram-sha-256", "--username=postgres", f"--pwfile={folder}/password")
        run(*prefix, f"{tools}/initdb", *options, "--pgdata", folder / "data", cwd=folder)
        cluster = Cluster(folder, free_port(), (*prefix, f"{tools}/pg_ctl"))
        cluster.start()
        yield cluster
        subprocess.run(
            [*cluster.command, "--pgdata", str(folder / "data"), "--mode=immediate", "stop"],
            check=False,
            stdout=subprocess.DEVNULL,
            timeout=60,
        )


def test_postgresql_killed_under_load(services: Callable[[str], Copy], cluster: Cluster, tmp_path: Path) -> None:
    service = services("all-lists").folder
    env = {
        "DATABASE_URL": cluster.url,
        "POSTGRES_PASSWORD": PASSWORD,
        "RATE_LIMIT_ENABLED": "false",
        "LOG_LEVEL": "ERROR",
    }
    run(service / ".venv/bin/alembic", "upgrade", "head", cwd=service, env=env)
    port = str(free_port())
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [service / ".venv/bin/app", "serve", "--port", port], cwd=service, env=os.environ | env, stdout=log
        )
    try:
        asyncio.run(scenario(f"http://127.0.0.1:{port}", cluster, process))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()


async def scenario(url: str, cluster: Cluster, process: "subprocess.Popen[bytes]") -> None:
    """Wait for the service, and take its database away and back."""
    async with httpx2.AsyncClient(base_url=url, timeout=HANGS_AFTER_SECONDS) as client:
        await until_ready(client, process)
        await outage(client, cluster)


async def until_ready(client: httpx2.AsyncClient, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the service says that it is ready."""
    for _ in range(600):
        try:
            if (await client.get("/health/ready")).status_code == httpx2.codes.OK:
                return
        except httpx2.TransportError:
            assert process.poll() is None, "the service ended"
        await asyncio.sleep(0.1)
    pytest.fail("the service is not ready")


async def outage(client: httpx2.AsyncClient, cluster: Cluster) -> None:
    """Read and write all the time while the server goes away and comes back."""
    phase = "up"
    seen: dict[str, Counter[int]] = {name: Counter() for name in ("up", "down", "back")}
    problems: list[dict[str, Any]] = []
    over = False

    async def call(number: int) -> None:
        while not over:
            at = phase
            if number % 2:
                answer = await client.get("/api/v1/app/projects")
            else:
                answer = await client.post("/api/v1/app/projects", json={"name": "x"})
            seen[at][answer.status_code] += 1
            if answer.is_error:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["retry-after"]
                problems.append(answer.json())

    async def until_seen(*statuses: int) -> None:
        for _ in range(300):
            if all(seen[phase][status] for status in statuses):
                return
            await asyncio.sleep(0.1)
        pytest.fail(f"{statuses} were not seen while the database was {phase}: {seen}")

    callers = [asyncio.create_task(call(number)) for number in range(8)]
    await until_seen(200, 201)
    await asyncio.to_thread(cluster.kill)
    phase = "down"
    await until_seen(503)
    ready = await client.get("/health/ready")
    assert ready.status_code == httpx2.codes.SERVICE_UNAVAILABLE
    assert [check["status"] for check in ready.json()["checks"] if check["name"] == "database"] == ["down"]
    assert (await client.get("/health/db")).json()["errors"]
    assert (await client.get("/health")).status_code == httpx2.codes.OK
    await asyncio.to_thread(cluster.start)
    for _ in range(300):
        if (await client.get("/health/ready")).status_code == httpx2.codes.OK:
            break
        await asyncio.sleep(0.1)
    else:
        pytest.fail("the service did not recover")
    phase = "back"
    await until_seen(200, 201)
    over = True
    await asyncio.gather(*callers)

    assert set(seen["up"] | seen["down"] | seen["back"]) <= {200, 201, 503}, seen
    assert {problem["code"] for problem in problems} <= {"service_unavailable", "unavailable"}

"""Make services from the template of the working tree, and serve them on this machine."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import copier

ROOT = Path(__file__).resolve().parents[2]
PROBE = Path(__file__).with_name("probe.py")
BROADCAST = Path(__file__).with_name("broadcast.py")
ISSUER = Path(__file__).with_name("issuer.py")
PARTS = ("copier.yml", "extensions", "hooks", "template")
HOST = "127.0.0.1"
# As in production; the limit counts every request and is never reached.
PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "a-secret-of-the-benchmarks-that-is-long-enough",
    "RATE_LIMIT_DEFAULT": "100000000/second",
}
DATABASE_SCRIPT = """
import asyncio, asyncpg, sys
async def main(url, statement):
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()
asyncio.run(main(*sys.argv[1:]))
"""

Answers = dict[str, Any]


class BrokenError(Exception):
    """Something that is measured does not work at all."""


def copy_template(target: Path) -> None:
    """Copy the template out of the repository, so that Copier takes the files as they are."""
    target.mkdir(parents=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        else:
            shutil.copy(source, target / part)


def leave_machine_out() -> None:
    """Keep the settings of this machine's owner out of what is measured."""
    os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "UV_PYTHON_DOWNLOADS": "never"}
    for name in ("PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", *PRODUCTION, "DATABASE_URL", "REDIS_URL"):
        os.environ.pop(name, None)


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send what this process and its children print to a file."""
    kept = os.dup(1), os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        for number, copy in enumerate(kept, start=1):
            os.dup2(copy, number)
            os.close(copy)


def render(template: Path, target: Path, answers: Answers | None = None, *, hooks: bool = False) -> float:
    """Copy the template in this process and return the seconds that it took. Raises BrokenError when a hook failed."""
    log = target.with_suffix(".log")
    start = time.perf_counter()
    with quiet(log):
        copier.run_copy(
            str(template), target, data=answers or {}, defaults=True, quiet=True, skip_tasks=not hooks, unsafe=hooks
        )
    taken = time.perf_counter() - start
    if (target / ".setup-left").exists():
        raise BrokenError(f"the setup of a service failed:\n{log.read_text('utf-8')}")
    return taken


@contextmanager
def process(command: list[str | Path], *, cwd: Path, env: Mapping[str, str], log: Path) -> Iterator[int]:
    """Run a program until the block ends, and give its process id."""
    with log.open("ab") as file:
        running = subprocess.Popen(
            [str(part) for part in command], cwd=cwd, env=os.environ | env, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield running.pid
    finally:
        running.terminate()
        try:
            running.wait(timeout=10)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait(timeout=10)


@contextmanager
def served(service: Path, env: Mapping[str, str] | None = None) -> Iterator[tuple[str, int]]:
    """Serve a service until the block ends, and give its address and process id."""
    port, log = free_port(), service.with_suffix(".log")
    command: list[str | Path] = [service / ".venv/bin/app", "serve", "--port", str(port)]
    with process(command, cwd=service, env=env or {}, log=log) as pid:
        base = f"http://{HOST}:{port}"
        wait_for(f"{base}/health", log)
        yield base, pid


@contextmanager
def vouched(service: Path) -> Iterator[dict[str, str]]:
    """Let a provider of identity vouch for a caller until the block ends: its address, audience, token and key."""
    command = [str(service / ".venv/bin/python"), str(ISSUER)]
    running = subprocess.Popen(command, cwd=service, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdin
    assert running.stdout
    try:
        yield json.loads(running.stdout.readline())
    finally:
        running.stdin.close()
        running.wait(timeout=10)


@contextmanager
def probed(service: Path, database: str, env: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve the bare probe in the environment of a service, on its database."""
    port, log = free_port(), service.with_suffix(".log")
    command: list[str | Path] = [service / ".venv/bin/python", PROBE, database, str(port)]
    with process(command, cwd=service, env=env or {}, log=log):
        base = f"http://{HOST}:{port}"
        wait_for(f"{base}/health", log)
        yield base


@contextmanager
def broadcasting(service: Path) -> Iterator[str]:
    """Serve the bare rival of realtime in the environment of a service."""
    port, log = free_port(), service.with_suffix(".log")
    with process([service / ".venv/bin/python", BROADCAST, str(port)], cwd=service, env={}, log=log):
        wait_for(f"http://{HOST}:{port}", log)
        yield f"ws://{HOST}:{port}/"


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, log: Path) -> None:
    """Wait for the first answer. Raises BrokenError when there is none in time."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            get(url)
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise BrokenError(f"{url} does not answer:\n{log.read_text('utf-8')[-4000:]}")


def get(url: str, token: str = "") -> Any:
    """Return what a route answers with 200."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as response:  # noqa: S310
        return json.load(response)


def post(url: str, body: object) -> None:
    """Send a JSON document, which has to be accepted."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass


def memory(pid: int) -> float:
    """Return the resident memory of a process in MB."""
    output = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    return int(output) * 1024 / 1_000_000


def most_memory(pid: int) -> float:
    """Return the most resident memory that a process has had in MB; where no Linux tells it, what it has now."""
    status = Path(f"/proc/{pid}/status")
    if not status.is_file():
        return memory(pid)
    return int(status.read_text("utf-8").split("VmHWM:")[1].split()[0]) * 1024 / 1_000_000


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command that has to succeed, and return what it prints."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | (env or {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise BrokenError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


@contextmanager
def own_database(service: Path, server: str) -> Iterator[str]:
    """Make a database of our own on a PostgreSQL server, with the tables of a service, until the block ends."""
    server = server.replace("+asyncpg", "").replace("postgres://", "postgresql://")
    name = f"espalier_bench_{uuid.uuid4().hex}"
    run_sql(service, server, f'CREATE DATABASE "{name}"')
    try:
        yield f"{server.rpartition('/')[0]}/{name}"
    finally:
        run_sql(service, server, f'DROP DATABASE "{name}" WITH (FORCE)')


def run_sql(service: Path, url: str, statement: str) -> None:
    """Run a statement on PostgreSQL with the driver of a service."""
    run(service / ".venv/bin/python", "-c", DATABASE_SCRIPT, url, statement, cwd=service)

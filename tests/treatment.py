"""What a whole service goes through: its own tests, lint, types, migrations on real databases, and serving.

The same steps are taken with some services at each change, and with many more every night.
"""

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import Answers, free_port, run, servers_of, unavailable


@dataclass(frozen=True)
class Case:
    """A service that was made with its hooks, the answers it was made from, and folders to write in."""

    folder: Path
    answers: Answers
    scratch: Path
    cache: Path
    # Tests that need not run again, by their paths in the service.
    known: tuple[str, ...] = ()

    def has(self, question: str, value: str) -> bool:
        """Return whether an answer names a value."""
        return value in self.answers.get(question, [])


def tests(case: Case) -> None:
    """Its own tests pass as they do for its owner, and leave nothing behind."""
    # Presets test themselves as their owners do. Others keep to one process: two workers of ours run already.
    env = {} if case.answers.keys() == {"preset"} else {"PYTEST_XDIST_AUTO_NUM_WORKERS": "0"}
    assert " passed" in run("make", "test", cwd=case.folder, env=env, timeout=1800)
    assert run("git", "status", "--porcelain", cwd=case.folder) == ""


def lint(case: Case) -> None:
    """It is clean, and the floors of its house hold."""
    run("make", "lint", cwd=case.folder)


def types(case: Case) -> None:
    """Its types are strict."""
    # What all services import is read once: the cache goes by content, wherever the files lie.
    run("make", "types", cwd=case.folder, env={"MYPY_CACHE_DIR": str(case.cache)})
    assert "strict = true" in (case.folder / "pyproject.toml").read_text("utf-8")


def migrations_on_sqlite(case: Case) -> None:
    """Its migrations make its tables."""
    there_and_back(case.folder, f"sqlite:///{case.scratch}/{uuid.uuid4().hex}.db")


def migrations_on_postgresql(case: Case) -> None:
    """Its migrations make its tables on PostgreSQL as well."""
    with database(case.folder) as url:
        there_and_back(case.folder, url)


def tests_on_servers(case: Case) -> None:
    """Its own tests pass on the servers that were chosen, and none is skipped."""
    # Of what fails, the line and its reason are what a report of ours has room for.
    options = ["--tb=short"]
    if case.known:
        # Where tests are left out no floor of coverage holds, and counting lines takes as long as all else.
        options += ["--no-cov", "-Wignore::pytest_cov.CovDisabledWarning", *(f"--ignore={path}" for path in case.known)]
    env = {"PYTEST_XDIST_AUTO_NUM_WORKERS": "0", "PYTEST_ADDOPTS": " ".join(options)}
    env |= {name: server(name) for name, _ in servers_beside(case)}
    if case.has("databases", "postgresql"):
        with database(case.folder) as url:
            output = run("make", "test", cwd=case.folder, env=env | {"TEST_POSTGRES_URL": url}, timeout=1800)
    else:
        output = run("make", "test", cwd=case.folder, env=env, timeout=1800)
    assert "skipped" not in output.splitlines()[-1]


def serving(case: Case) -> None:
    """It serves what was chosen, and stops when it is told."""
    with served(case.folder) as (base, process):
        health = get(f"{base}/health")
        assert health["status"]
        assert health["version"]
        assert get(f"{base}/health/db")["database_connected"] is True
        has_projects = case.has("features", "projects")
        assert ("/api/v1/app/projects" in get(f"{base}/openapi.json")["paths"]) is has_projects
        if case.answers.get("auth_provider", "none") != "none":
            # Until a provider is set, nobody gets in; test_identity.py sets one.
            with pytest.raises(urllib.error.HTTPError, match="401"):
                get(f"{base}/api/v1/app/users/me")
        else:
            assert get(f"{base}/api/v1/app/users/me")["id"]
            assert not has_projects or get(f"{base}/api/v1/app/projects")["items"] == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def doctor(case: Case) -> None:
    """Its doctor finds it well."""
    env = {setting: server(name) for name, setting in servers_beside(case)}
    run(case.folder / ".venv/bin/app", "doctor", cwd=case.folder, env=env)


def servers_beside(case: Case) -> list[tuple[str, str]]:
    """Return the variables that name the servers beside the database, and the settings that do in the service."""
    known = {"redis": "REDIS_URL", "rabbitmq": "RABBITMQ_URL"}
    return [(f"TEST_{known[one]}", known[one]) for one in servers_of(case.answers) if one in known]


Step = Callable[[Case], None]


def treatment(answers: Answers) -> list[Step]:
    """Return the steps that a service with these answers goes through."""
    found: list[Step] = [tests, lint, types, migrations_on_sqlite, serving, doctor]
    databases = servers_of(answers)
    return found + [migrations_on_postgresql] * ("postgresql" in databases) + [tests_on_servers] * bool(databases)


def server(variable: str) -> str:
    """Return the URL of a server. Skips the running test where there is none; under CI=true it fails."""
    if variable not in os.environ:
        unavailable(variable)
    return os.environ[variable]


def there_and_back(service: Path, url: str) -> None:
    """Migrate an empty database up, compare it with the tables of the code, take all of it back, and up again."""
    script = "import sys; from alembic.config import main; [main(argv=line.split()) for line in sys.argv[1:]]"
    commands = ["upgrade head", "check", "downgrade base", "upgrade head", "check"]
    output = run(service / ".venv/bin/python", "-c", script, *commands, cwd=service, env={"DATABASE_URL": url})
    assert output.count("No new upgrade operations detected") == 2


@contextmanager
def database(service: Path) -> Iterator[str]:
    """Give the URL of an empty PostgreSQL database, made with the service's driver, and drop it afterwards."""
    url = server("TEST_POSTGRES_URL")
    base, _, _ = url.rpartition("/")
    name = f"espalier_{uuid.uuid4().hex}"
    script = (
        "import asyncio, asyncpg, sys\n"
        "async def main(url, statement):\n"
        "    connection = await asyncpg.connect(url)\n"
        "    await connection.execute(statement)\n"
        "    await connection.close()\n"
        "asyncio.run(main(*sys.argv[1:]))\n"
    )
    command = (service / ".venv/bin/python", "-c", script, url.replace("+asyncpg", ""))
    run(*command, f'CREATE DATABASE "{name}"', cwd=service)
    try:
        yield f"{base}/{name}"
    finally:
        run(*command, f'DROP DATABASE "{name}" WITH (FORCE)', cwd=service)


@contextmanager
def served(service: Path, env: dict[str, str] | None = None) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Serve a service on a port of its own until the block ends."""
    port = free_port()
    command = [str(service / ".venv/bin/app"), "serve", "--port", str(port)]
    process = subprocess.Popen(command, cwd=service, env=os.environ | (env or {}), stderr=subprocess.STDOUT)
    try:
        base = f"http://127.0.0.1:{port}"
        wait_until_up(base, process)
        yield base, process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=10)


def wait_until_up(base: str, process: subprocess.Popen[bytes]) -> None:
    """Wait for the first answer. Raises when there is none in time."""
    deadline = time.monotonic() + 60
    while True:
        try:
            get(f"{base}/health/live")
        except OSError:
            assert process.poll() is None, "the service ended at once"
            assert time.monotonic() < deadline, "the service does not answer"
            time.sleep(0.1)
        else:
            return


def get(url: str) -> Any:
    """Return what a route answers with 200."""
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310
        assert response.status == 200
        return json.load(response)

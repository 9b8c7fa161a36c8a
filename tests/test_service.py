"""Services as their owners get them: each preset and each single option is made with its hooks and proves itself."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import COMBINATIONS, Copy, free_port, run, unavailable

pytestmark = pytest.mark.service

Services = Callable[[str], Copy]
# One worker makes a service and runs all of its tests.
each_combination = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in COMBINATIONS]
)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs of mypy in this worker."""
    return tmp_path_factory.mktemp("mypy")


def has(name: str, database: str) -> bool:
    """Return whether a combination names a database."""
    return database in COMBINATIONS[name].get("databases", [])


@each_combination
def test_its_own_tests_pass(services: Services, name: str) -> None:
    # Presets test themselves as their owners do. Single options keep to one process: two workers of ours run already.
    env = {} if name.startswith("preset") else {"PYTEST_XDIST_AUTO_NUM_WORKERS": "0"}
    output = run("make", "test", cwd=services(name).folder, env=env, timeout=600)
    assert " passed" in output
    assert run("git", "status", "--porcelain", cwd=services(name).folder) == ""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(name))
        for name in COMBINATIONS
        if name.startswith(("preset", "all"))
    ],
)
def test_hostile_cases_inside(services: Services, name: str) -> None:
    service = services(name).folder
    inside = service / "tests" / "skeleton"
    shutil.copytree(Path(__file__).with_name("skeleton"), inside)
    try:
        output = run(service / ".venv/bin/pytest", inside, cwd=service)
    finally:
        shutil.rmtree(inside)
    assert " passed" in output


@each_combination
def test_it_is_clean_and_its_floors_hold(services: Services, name: str) -> None:
    run("make", "lint", cwd=services(name).folder)


@each_combination
def test_its_types_are_strict(services: Services, name: str, cache: Path) -> None:
    service = services(name).folder
    # What all services import is read once: the cache goes by content, wherever the files lie.
    run("make", "types", cwd=service, env={"MYPY_CACHE_DIR": str(cache)})
    assert "strict = true" in (service / "pyproject.toml").read_text("utf-8")


@each_combination
def test_its_migrations_make_its_tables_on_sqlite(services: Services, name: str, tmp_path: Path) -> None:
    there_and_back(services(name).folder, f"sqlite:///{tmp_path}/there-and-back.db")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in COMBINATIONS if has(name, "postgresql")],
)
def test_its_migrations_make_its_tables_on_postgresql(services: Services, name: str, postgres: str) -> None:
    there_and_back(services(name).folder, postgres)


def there_and_back(service: Path, url: str) -> None:
    """Migrate an empty database up, compare it with the tables of the code, take all of it back, and up again."""
    script = "import sys; from alembic.config import main; [main(argv=line.split()) for line in sys.argv[1:]]"
    commands = ["upgrade head", "check", "downgrade base", "upgrade head", "check"]
    output = run(service / ".venv/bin/python", "-c", script, *commands, cwd=service, env={"DATABASE_URL": url})
    assert output.count("No new upgrade operations detected") == 2


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xdist_group(name))
        for name in COMBINATIONS
        if COMBINATIONS[name].get("databases")
    ],
)
def test_its_own_tests_pass_on_real_servers(services: Services, name: str, request: pytest.FixtureRequest) -> None:
    env = {"PYTEST_XDIST_AUTO_NUM_WORKERS": "0"}
    if has(name, "postgresql"):
        env["TEST_POSTGRES_URL"] = request.getfixturevalue("postgres")
    if has(name, "redis"):
        if not os.environ.get("TEST_REDIS_URL"):
            unavailable("TEST_REDIS_URL")
        env["TEST_REDIS_URL"] = os.environ["TEST_REDIS_URL"]
    output = run("make", "test", cwd=services(name).folder, env=env, timeout=600)
    assert "skipped" not in output.splitlines()[-1]


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


@each_combination
def test_it_serves_and_stops_when_told(services: Services, name: str) -> None:
    with served(services(name).folder) as (base, process):
        health = get(f"{base}/health")
        assert health["status"]
        assert health["version"]
        assert get(f"{base}/health/db")["database_connected"] is True
        assert get(f"{base}/api/v1/app/users/me")["id"]
        has_projects = "projects" in COMBINATIONS[name].get("features", [])
        assert ("/api/v1/app/projects" in get(f"{base}/openapi.json")["paths"]) is has_projects
        if has_projects:
            assert get(f"{base}/api/v1/app/projects")["items"] == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


@each_combination
def test_its_doctor_finds_it_well(services: Services, name: str) -> None:
    env = {}
    if has(name, "redis") and os.environ.get("TEST_REDIS_URL"):
        env["REDIS_URL"] = os.environ["TEST_REDIS_URL"]
    run(services(name).folder / ".venv/bin/app", "doctor", cwd=services(name).folder, env=env)

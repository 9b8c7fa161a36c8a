"""Services that change their minds: other answers, a newer template, and both; then what can go wrong meanwhile."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import unavailable
from edits import Step
from lab import (
    CURRENT,
    LATER,
    Lab,
    call,
    commit,
    contents,
    copy_with_hooks,
    differences,
    edit,
    make_repository,
    recorded,
    run,
    status,
    steps,
    update_with_hooks,
)

PAIRS = {
    "everything comes": Step(
        CURRENT,
        {"databases": [], "ci": [], "deploy": []},
        LATER,
        {
            "databases": ["postgresql", "redis"],
            "features": ["projects"],
            "ci": ["github", "gitlab"],
            "deploy": ["docker"],
        },
    ),
    "everything goes": Step(
        CURRENT,
        {"databases": ["postgresql", "redis"], "features": ["projects"], "ci": ["github", "gitlab"]},
        LATER,
        {"databases": [], "features": [], "ci": [], "deploy": []},
    ),
    "only answers": Step(CURRENT, {"license": "MIT"}, CURRENT, {"license": "Proprietary", "python_version": "3.11"}),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A repository of the template with two versions."""
    return Lab(make_repository(tmp_path_factory.mktemp("lab") / "template"))


@pytest.mark.parametrize("name", PAIRS)
def test_an_update_gives_what_a_copy_would_have_given(lab: Lab, tmp_path: Path, name: str) -> None:
    step = PAIRS[name]
    service = lab.copy(tmp_path / "service", step.version, step.answers)
    commit(service, "Begin")
    lab.update(service, step.to_version, step.to_answers)
    oracle = lab.copy(tmp_path / "oracle", step.to_version, recorded(service))
    assert recorded(service).items() >= step.to_answers.items()
    assert differences(service, oracle) == []


def offline(tmp_path: Path) -> dict[str, str]:
    """Return the variables under which nothing is in a cache and nothing can be fetched."""
    return {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_OFFLINE": "1"}


def test_edits_of_what_goes_are_named_with_the_command_that_brings_them_back(lab: Lab, tmp_path: Path) -> None:
    """And there is no network, so what needs one is named as well."""
    service = lab.copy(tmp_path / "service", CURRENT, {"features": ["projects"]})
    edit(service / "app/modules/projects/service.py", '"""Rules for projects', '"""My rules for projects')
    (service / "app/kit/clock.py").write_bytes(b"\x00 mine \xff")
    (service / "app/modules/projects/own.py").write_text("OWN = True\n", "utf-8")
    edit(service / "tests/kit/test_http.py", "import time\n", "import time  # mine\n")
    commit(service, "Begin")
    before = contents(service)
    done = update_with_hooks(service, LATER, {"features": []}, **offline(tmp_path))
    assert done.returncode != 0
    said = steps(done.stdout)
    assert said["edits"] == "3 to look at"
    assert said["environment"] == "failed"
    assert said["migration"] == "skipped, it needs: environment"
    assert "went: projects" in done.stdout
    assert "auth_provider was" not in done.stdout
    assert "Traceback" not in done.stdout
    assert "The files are updated. Left to do" in done.stdout
    assert (service / "app/modules/projects/own.py").exists()
    command = re.search(r"To have your files back: (git checkout HEAD -- .+)", done.stdout)
    assert command
    run("sh", "-c", command[1], cwd=service)
    back = ("app/kit/clock.py", "app/modules/projects/service.py", "tests/kit/test_http.py")
    assert command[1].split()[4:] == list(back)
    assert all(contents(service)[path] == before[path] for path in back)


def test_another_provider_of_identity_is_told(lab: Lab, tmp_path: Path) -> None:
    service = lab.copy(tmp_path / "service", CURRENT, {})
    commit(service, "Begin")
    done = update_with_hooks(service, LATER, {"auth_provider": "oidc"}, **offline(tmp_path))
    assert "Users are known by other names now: auth_provider was none." in done.stdout
    assert '"Another provider of identity" in the template\'s docs/updating.md' in done.stdout


def test_conflicts_wait_for_their_owner(lab: Lab, tmp_path: Path) -> None:
    """Also in pyproject.toml, which no program can read then."""
    service = lab.copy(tmp_path / "service", CURRENT, {})
    edit(service / "pyproject.toml", 'description = "A FastAPI service."', 'description = "Mine."')
    edit(service / "app/kit/clock.py", "Return the current time", "Tell the current time")
    commit(service, "Begin")
    done = update_with_hooks(service, LATER, {"project_description": "Another."}, **offline(tmp_path))
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout
    assert steps(done.stdout)["edits"] == "2 in conflict"
    assert "environment" not in steps(done.stdout)
    assert "settle the conflicts first" in done.stdout
    for path in ("app/kit/clock.py", "pyproject.toml"):
        assert f"      {path}\n" in done.stdout
    assert status(service).count("UU ") == 2
    assert not (service / ".venv").exists()
    # make setup is what is named, and it refuses as long as it would not work.
    refused = call("make", "setup", cwd=service)
    assert refused.returncode != 0
    assert "These files have conflicts. Settle them first." in refused.stdout


def test_an_update_is_refused_where_it_could_not_be_taken_back(lab: Lab, tmp_path: Path) -> None:
    service = lab.copy(tmp_path / "service", CURRENT, {})
    done = update_with_hooks(service, LATER)
    assert done.returncode != 0
    assert "only supported in git-tracked" in done.stdout
    commit(service, "Begin")
    done = call(sys.executable, "-m", "copier", "update", "--defaults", "--vcs-ref", LATER, cwd=service)
    assert done.returncode != 0
    assert "--trust" in done.stdout
    (service / "mine.txt").write_text("not committed", "utf-8")
    before = contents(service)
    done = update_with_hooks(service, LATER)
    assert done.returncode != 0
    assert "repository is dirty" in done.stdout
    assert contents(service) == before


def test_an_interrupted_update_is_taken_back_by_git_and_done_again(lab: Lab, tmp_path: Path) -> None:
    service = lab.copy(tmp_path / "service", CURRENT, {"features": ["projects"]})
    commit(service, "Begin")
    (service / ".env").write_text("SECRET_KEY=mine\n", "utf-8")
    begun = contents(service)
    command = [sys.executable, "-m", "copier", "update", "--trust", "--defaults", "--skip-tasks", "--vcs-ref", LATER]
    process = subprocess.Popen(
        [*command, "--data", "features=[]"], cwd=service, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while contents(service) == begun:
        assert time.monotonic() < deadline
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)
    run("git", "reset", "--hard", "--quiet", cwd=service)
    run("git", "clean", "--force", "-d", "--quiet", cwd=service)
    assert contents(service) == begun
    lab.update(service, LATER, {"features": []})
    assert differences(service, lab.copy(tmp_path / "oracle", LATER, recorded(service))) == []
    assert (service / ".env").read_text("utf-8") == "SECRET_KEY=mine\n"


def test_skipping_the_tasks_skips_the_hook(lab: Lab, tmp_path: Path) -> None:
    service = lab.copy(tmp_path / "service", CURRENT, {})
    commit(service, "Begin")
    options = ("--trust", "--defaults", "--skip-tasks", "--vcs-ref", LATER)
    done = call(sys.executable, "-m", "copier", "update", *options, cwd=service)
    assert done.returncode == 0
    assert steps(done.stdout) == {}
    assert "nothing was installed or migrated" in done.stdout


def test_an_older_python_than_the_service_needs_is_no_traceback(lab: Lab, tmp_path: Path) -> None:
    """Copier runs on 3.10. What the hook says of files needs no more than that."""
    service = lab.copy(tmp_path / "service", CURRENT, {})
    commit(service, "Begin")
    lab.update(service, LATER)
    script = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "sys.modules['tomllib'] = None\n"
        "sys.version_info = (3, 10, 0)\n"
        "import shutil\n"
        "shutil.which = lambda name, path=None: None\n"
        "import post_update\n"
        "sys.exit(post_update.main())\n"
    )
    hooks = lab.template / "hooks"
    done = call(sys.executable, "-c", script, hooks, cwd=service, PIP_NO_INDEX="1", **offline(tmp_path))
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    assert steps(done.stdout)["edits"] == "all are kept"
    assert steps(done.stdout)["environment"] == "failed"


# A service that lives: on SQLite and on PostgreSQL, with rows in both.

SQL = """
import asyncio, asyncpg, sys

async def main(url, *statements):
    connection = await asyncpg.connect(url)
    for statement in statements:
        print(*(row[0] for row in await connection.fetch(statement)))
    await connection.close()

asyncio.run(main(*sys.argv[1:]))
"""
ID, NOW = "'00000000-0000-7000-8000-00000000000{}'", "'2026-11-01 12:00:00.000000{}'"


class Living:
    """A service and its two databases."""

    def __init__(self, service: Path, server: str) -> None:
        self.service = service
        self.python = service / ".venv/bin/python"
        self.server = server.replace("+asyncpg", "")
        self.name = f"espalier_{uuid.uuid4().hex}"
        run(self.python, "-c", SQL, self.server, f'CREATE DATABASE "{self.name}"', cwd=service)
        self.urls = ("sqlite:///./data/app.db", f"{server.rpartition('/')[0]}/{self.name}")

    def drop(self) -> None:
        """Take away what the server has of it."""
        run(self.python, "-c", SQL, self.server, f'DROP DATABASE "{self.name}" WITH (FORCE)', cwd=self.service)

    def migrate(self) -> None:
        """Bring each database to the newest migration, and hold it to the tables of the code."""
        script = "import sys; from alembic.config import main; [main(argv=line.split()) for line in sys.argv[1:]]"
        for url in self.urls:
            said = run(self.python, "-c", script, "upgrade head", "check", cwd=self.service, DATABASE_URL=url)
            assert "No new upgrade operations detected" in said

    def execute(self, statement: str) -> list[str]:
        """Run a statement on SQLite and on PostgreSQL, and return the first columns of what they find."""
        with sqlite3.connect(self.service / "data/app.db") as sqlite:
            # It has neither a type for ids nor one for times.
            plain = statement.replace("-0000-7000-8000-", "000070008000").replace("+00'", "'")
            found = " ".join(row[0] for row in sqlite.execute(plain))
        return [found, run(self.python, "-c", SQL, self.urls[1], statement, cwd=self.service).strip()]

    def add_user(self) -> None:
        """Add a user to both."""
        user = f"INSERT INTO users (id, created_at, updated_at, subject) VALUES ({ID.format(1)}, {{0}}, {{0}}, 'ada')"  # noqa: S608
        self.execute(user.format(NOW.format("+00")))

    def add_project(self) -> None:
        """Add a project of that user to both."""
        project = "INSERT INTO projects (id, created_at, updated_at, owner_id, name, description) "
        project += f"VALUES ({ID.format(2)}, {{0}}, {{0}}, {ID.format(1)}, 'Engine', '')"
        self.execute(project.format(NOW.format("+00")))

    def test(self, *options: str) -> None:
        """Run the service's own tests."""
        run(".venv/bin/pytest", *options, cwd=self.service, TEST_POSTGRES_URL=self.server)

    def update(self, version: str, **answers: object) -> dict[str, str]:
        """Update with the hooks. What is the owner's stays as it is, and nothing happens to a database."""
        kept = [self.service / ".env", self.service / "data/app.db"]
        before = [path.read_bytes() for path in kept]
        applied = self.execute("SELECT version_num FROM alembic_version")
        done = update_with_hooks(self.service, version, dict(answers))
        assert done.returncode == 0, done.stdout
        assert [path.read_bytes() for path in kept] == before
        assert self.execute("SELECT version_num FROM alembic_version") == applied
        said = steps(done.stdout)
        assert list(said) == ["changes", "edits", "environment", "migration", "settings", "checks"], done.stdout
        assert said["checks"] == "no findings"
        return said | {"all": done.stdout}

    def revisions(self) -> list[str]:
        """Return the names of the migrations."""
        return sorted(path.name for path in (self.service / "migrations/versions").glob("*.py"))


@pytest.fixture
def features() -> list[str]:
    """With what the service begins; tests say otherwise."""
    return []


@pytest.fixture
def living(lab: Lab, features: list[str], tmp_path: Path) -> Iterator[Living]:
    """A service with PostgreSQL."""
    server = os.environ.get("TEST_POSTGRES_URL", "")
    if not server:
        unavailable("TEST_POSTGRES_URL")
    service = tmp_path / "service"
    copy_with_hooks(lab.template, service, CURRENT, {"databases": ["postgresql"], "features": features})
    life = Living(service, server)
    yield life
    life.drop()


@pytest.mark.service
def test_a_module_comes_goes_and_comes_back_to_its_rows(lab: Lab, living: Living) -> None:
    service = living.service
    living.migrate()
    living.add_user()
    assert 'name = "idna"\nversion = "3.19"' in (service / "uv.lock").read_text("utf-8")

    said = living.update(LATER, features=["projects"])
    assert said["migration"] == "0002_add_projects written, not applied"
    assert "Detected added table 'projects'" in said["all"]
    assert "Detected added column 'users.locale'" in said["all"]
    assert "came: projects" in said["all"]
    assert "New, and not in it: PUBLIC_URL." in said["all"]
    # What stood at the version that was tried before moves on with the template.
    assert 'name = "idna"\nversion = "3.19"' not in (service / "uv.lock").read_text("utf-8")
    commit(service, "Projects come")

    living.migrate()
    living.add_project()

    said = living.update(LATER, features=[])
    assert "went: projects" in said["all"]
    assert said["migration"] == "the tables are as they were"
    assert "Only in the database: projects. To drop it: make migrate m=drop drop=projects" in said["all"]
    commit(service, "Projects go")
    assert living.execute("SELECT name FROM projects") == ["Engine", "Engine"]
    living.migrate()
    living.test("-k", "match_the_models")

    lab.update(service, LATER, {"features": ["projects"]})
    commit(service, "Projects come back")
    living.migrate()
    assert living.revisions() == ["0001_initial.py", "0002_add_projects.py"]
    assert living.execute("SELECT name FROM projects") == ["Engine", "Engine"]
    living.test("tests/modules", "tests/ports")
    lab.update(service, LATER)
    assert status(service) == ""


# The tests of who callers are and of what they own. The whole suites of such services run in tests/test_service.py.
WHO = tuple(f"tests/modules/{name}" for name in ("access", "api_keys", "projects", "users"))


@pytest.mark.service
@pytest.mark.parametrize("features", [["projects"]])
def test_callers_get_accounts_and_then_a_provider(living: Living) -> None:
    """What the built-in user owned stays, and so does what the accounts knew."""
    service = living.service
    living.migrate()
    living.add_user()
    living.add_project()

    said = living.update(LATER, auth_provider="local", email_providers=["smtp"])
    assert re.search(r"came: .*accounts", said["all"])
    assert "Detected added table 'accounts'" in said["all"]
    assert "Detected added column 'users.role'" in said["all"]
    commit(service, "Accounts come")
    living.migrate()
    assert living.execute("SELECT name FROM projects") == ["Engine", "Engine"]
    assert living.execute("SELECT role FROM users") == ["user", "user"]
    living.test(*WHO)

    said = living.update(LATER, auth_provider="oidc")
    assert "went: accounts" in said["all"]
    left = "accounts,login_sessions,mail_tokens,mfa_challenges,passkeys,recovery_codes,refresh_tokens,totps"
    assert f"Only in the database: {left}." in said["all"]
    commit(service, "A provider comes")
    living.migrate()
    assert living.execute("SELECT name FROM projects") == ["Engine", "Engine"]
    assert living.execute("SELECT subject FROM users") == ["ada", "ada"]
    living.test(*WHO)

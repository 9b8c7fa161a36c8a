"""What happens after the copy: the real steps, on this machine, with and without network, uv and git."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, Copy, contents, copy, render, run

pytestmark = pytest.mark.service

Services = Callable[[str], Copy]
STEPS = ["repository", "environment", "lock", "settings", "database", "checks", "commit"]
# What `make setup` needs beside Python.
COMMANDS = ("git", "sh", "make", "awk", "ls", "rm", "touch")


def steps(output: str) -> dict[str, str]:
    """Return what each step said, by its name."""
    return dict(re.findall(r"^  (\w+) +(.+?) +\d+\.\d s$", output, re.MULTILINE))


def path_with(tmp_path: Path, *commands: str) -> str:
    """Return a PATH on which only these commands are found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for command in commands:
        found = shutil.which(command)
        assert found
        (folder / command).symlink_to(found)
    return str(folder)


def setup(service: Path, env: dict[str, str] | None = None, python: str = sys.executable) -> Copy:
    """Run the steps in a service that is rendered already, as Copier does after a copy."""
    return call(service, env, python, str(ROOT / "hooks/post_copy.py"), "False")


def call(service: Path, env: dict[str, str] | None, *command: str) -> Copy:
    """Run a command that may fail in a service."""
    done = subprocess.run(
        command,
        cwd=service,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return Copy(done.returncode, done.stdout, service)


def clone(made: Copy, tmp_path: Path) -> Path:
    """Return a service of one's own, to change."""
    return shutil.copytree(made.folder, tmp_path / "service", ignore=shutil.ignore_patterns(".venv"))


def plain_python() -> str:
    """Return a Python beside which there is no uv."""
    return str(Path(sys.base_prefix, "bin", f"python3.{sys.version_info.minor}"))


# The two ways to set a service up, which have to come to the same.
WAYS: dict[str, Callable[[Path, dict[str, str] | None], Copy]] = {
    "hook": lambda service, env: setup(service, env, plain_python()),
    "make": lambda service, env: call(service, env, "make", "setup", f"PYTHON={plain_python()}"),
}
both_ways = pytest.mark.parametrize("way", WAYS)


def pins(service: Path) -> list[tuple[str, str]]:
    """Return the versions that the service was tried with."""
    return re.findall(r"^([a-z0-9-]+)==(\S+)", (service / "constraints.txt").read_text("utf-8"), re.MULTILINE)


def locked(service: Path) -> list[tuple[str, str]]:
    """Return the versions that are locked."""
    return re.findall(r'^name = "(.+)"\nversion = "(.+)"$', (service / "uv.lock").read_text("utf-8"), re.MULTILINE)


@pytest.mark.xdist_group("preset-minimal")
def test_all_steps_are_done_and_the_message_is_true(services: Services) -> None:
    made = services("preset-minimal")
    assert list(steps(made.output)) == STEPS
    assert "The service is ready. Next:" in made.output
    assert f"cd {made.folder} && make dev\n  curl http://127.0.0.1:8000/api/v1/app/users/me\n" in made.output
    assert not (made.folder / ".setup-left").exists()


@pytest.mark.xdist_group("preset-minimal")
def test_nothing_is_left_uncommitted_and_there_is_one_commit(services: Services) -> None:
    service = services("preset-minimal").folder
    assert run("git", "status", "--porcelain", cwd=service) == ""
    assert run("git", "log", "--format=%an <%ae>", cwd=service) == "My Service authors <my-service@example.com>\n"
    assert run("git", "branch", "--show-current", cwd=service) == "main\n"
    tracked = run("git", "ls-files", cwd=service).splitlines()
    assert {"uv.lock", "migrations/versions/0001_initial.py"} < set(tracked)
    assert not {".env", "data/app.db"} & set(tracked)


@pytest.mark.xdist_group("preset-minimal")
def test_the_secret_key_is_fresh_private_and_never_printed(services: Services) -> None:
    made = services("preset-minimal")
    path = made.folder / ".env"
    key = re.search(r"^SECRET_KEY=(\S+)$", path.read_text("utf-8"), re.MULTILINE)
    assert key
    assert len(key[1]) >= 32
    assert key[1] not in made.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.xdist_group("preset-minimal")
def test_the_environment_has_the_pinned_versions_and_keeps_no_pins(services: Services) -> None:
    service = services("preset-minimal").folder
    assert sorted(locked(service)) == sorted([*pins(service), ("my-service", "0.1.0")])
    assert "constraint" not in (service / "uv.lock").read_text("utf-8")
    assert "constraint" not in (service / "pyproject.toml").read_text("utf-8")
    run("uv", "lock", "--check", cwd=service)


@pytest.mark.xdist_group("preset-minimal")
def test_each_service_has_a_key_of_its_own(services: Services, tmp_path: Path) -> None:
    service = clone(services("preset-minimal"), tmp_path)
    before = (service / ".env").read_text("utf-8")
    (service / ".env").unlink()
    assert setup(service).status == 0
    assert (service / ".env").read_text("utf-8") != before


@pytest.mark.xdist_group("preset-minimal")
def test_the_first_migration_is_the_same_every_time(services: Services, tmp_path: Path) -> None:
    service = clone(services("preset-minimal"), tmp_path)
    first = service / "migrations/versions/0001_initial.py"
    before = first.read_bytes()
    first.unlink()
    shutil.rmtree(service / "data")
    assert setup(service).status == 0
    assert first.read_bytes() == before


@pytest.mark.xdist_group("preset-minimal")
def test_running_it_again_changes_nothing(services: Services) -> None:
    service = services("preset-minimal").folder
    before = contents(service)
    start = time.monotonic()
    again = setup(service)
    assert again.status == 0, again.output
    assert steps(again.output)["repository"] == steps(again.output)["commit"] == "there already"
    assert contents(service) == before
    assert run("git", "rev-list", "--count", "HEAD", cwd=service) == "1\n"
    assert time.monotonic() - start < 20


@pytest.mark.xdist_group("preset-minimal")
def test_skipping_the_tasks_gives_the_same_files_without_trust(
    services: Services, template: Path, tmp_path: Path
) -> None:
    """`make setup` then does the rest, and says as little as it can."""
    done = copy(template, tmp_path / "service", "--skip-tasks")
    assert done.status == 0, done.output
    assert "make setup" in done.output
    made = contents(services("preset-minimal").folder)
    own = {".env", "uv.lock", "migrations/versions/0001_initial.py"}
    rendered = contents(done.folder)
    assert {path: text for path, text in made.items() if path not in own} == rendered
    assert own <= set(made)

    said = run("make", "setup", cwd=done.folder)
    assert said == "The service is ready. Next: make dev\n"
    set_up = contents(done.folder)
    assert set_up.pop(".env") != made.pop(".env")
    assert set_up == made
    assert run("git", "status", "--porcelain", cwd=done.folder) == ""
    log = ("git", "log", "--format=%an <%ae>, %cn <%ce>: %B")
    assert run(*log, cwd=done.folder) == run(*log, cwd=services("preset-minimal").folder)
    assert run("make", "setup", cwd=done.folder) == said
    assert run("git", "rev-list", "--count", "HEAD", cwd=done.folder) == "1\n"
    assert {**contents(done.folder), ".env": b""} == {**set_up, ".env": b""}


@pytest.mark.xdist_group("network")
def test_without_network_the_files_stay_and_the_rest_is_named(template: Path, tmp_path: Path) -> None:
    """Nothing is in the cache, and nothing can be fetched. Later, with a network, setup goes on where it stopped."""
    offline = os.environ | {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_OFFLINE": "1"}
    done = copy(template, tmp_path / "service", "--trust", env=offline)
    assert done.status == 1
    said = steps(done.output)
    assert said["repository"] == "created"
    assert said["environment"] == "failed"
    assert said["settings"] == "skipped, it needs: environment"
    assert said["commit"] == "skipped, it needs: database"
    assert "its setup is unfinished" in done.output
    last = done.output.rstrip().splitlines()
    assert last[-1] == f"or all of it: cd {done.folder} && make setup"
    assert [line.split()[0] for line in last[-7:-1]] == STEPS[1:]
    assert "The service is ready" not in done.output

    rendered = contents(render(template, tmp_path / "rendered"))
    left = contents(done.folder)
    assert "environment: " in left.pop(".setup-left").decode()
    assert left == rendered

    later = setup(done.folder)
    assert later.status == 0, later.output
    assert not (done.folder / ".setup-left").exists()
    assert run("git", "status", "--porcelain", cwd=done.folder) == ""


@pytest.mark.xdist_group("network")
def test_a_failure_is_a_failed_task_where_copier_does_not_clean_up(template: Path, tmp_path: Path) -> None:
    offline = os.environ | {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_OFFLINE": "1"}
    done = copy(template, tmp_path / "service", "--trust", "--no-cleanup", env=offline)
    assert done.status == 1
    assert "Traceback" not in done.output
    assert (done.folder / "pyproject.toml").exists()


@pytest.mark.xdist_group("network")
def test_with_no_network_at_all(template: Path, tmp_path: Path) -> None:
    """The same in a network namespace of its own, where every connection fails."""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not make a network namespace")
    service = render(template, tmp_path / "service")
    start = time.monotonic()
    done = subprocess.run(
        ["unshare", "--net", sys.executable, ROOT / "hooks/post_copy.py", "False"],
        cwd=service,
        env=os.environ | {"UV_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert steps(done.stdout)["environment"] == "failed"
    assert time.monotonic() - start < 60


@pytest.mark.xdist_group("pip")
@both_ways
def test_without_uv_it_is_put_into_the_environment(template: Path, tmp_path: Path, way: str) -> None:
    """So `uv.lock` is written and committed, as CI and the image need it."""
    env = os.environ | {"PATH": path_with(tmp_path, *COMMANDS)}
    done = WAYS[way](render(template, tmp_path / "service"), env)
    assert done.status == 0, done.output
    assert sorted(locked(done.folder)) == sorted([*pins(done.folder), ("my-service", "0.1.0")])
    assert "uv.lock" in run("git", "ls-files", cwd=done.folder).splitlines()
    assert run("git", "status", "--porcelain", cwd=done.folder) == ""

    before, uv = contents(done.folder), (done.folder / ".venv/bin/uv").stat()
    again = WAYS[way](done.folder, env)
    assert again.status == 0, again.output
    assert contents(done.folder) == before
    assert (done.folder / ".venv/bin/uv").stat() == uv


@pytest.mark.xdist_group("pip")
@both_ways
def test_where_uv_cannot_be_had_pip_takes_its_place(template: Path, tmp_path: Path, way: str) -> None:
    """The same versions are installed, and the missing `uv.lock` is named until uv is there."""
    (tmp_path / "without-uv.txt").write_text("uv==0.0.1\n", "utf-8")
    env = os.environ | {"PATH": path_with(tmp_path, *COMMANDS), "PIP_CONSTRAINT": str(tmp_path / "without-uv.txt")}
    done = WAYS[way](render(template, tmp_path / "service"), env)
    assert done.status != 0
    assert "uv.lock is missing" in done.output
    assert 'make setup && git add uv.lock && git commit -m "Lock the versions"' in done.output
    assert (done.folder / "data/app.db").exists()
    assert run("git", "rev-list", "--count", "HEAD", cwd=done.folder) == "1\n"
    assert run("git", "status", "--porcelain", cwd=done.folder) == ""
    freeze = (".venv/bin/python", "-m", "pip", "freeze", "--exclude-editable")
    frozen = run(*freeze, cwd=done.folder).lower().replace("_", "-").splitlines()
    assert len(frozen) > 50
    assert set(frozen) <= {f"{name}=={version}" for name, version in pins(done.folder)}

    stamp = (done.folder / ".venv/.installed").stat()
    again = WAYS[way](done.folder, env)
    assert "uv.lock is missing" in again.output
    assert (done.folder / ".venv/.installed").stat() == stamp

    later = WAYS[way](done.folder, None)
    assert later.status == 0, later.output
    assert sorted(locked(done.folder)) == sorted([*pins(done.folder), ("my-service", "0.1.0")])
    assert not (done.folder / ".setup-left").exists()


def test_a_python_without_venv_is_told_what_to_install(template: Path, tmp_path: Path) -> None:
    """Debian's, for example."""
    service = render(template, tmp_path / "service")
    script = (
        "import runpy, sys\n"
        "sys.modules['ensurepip'] = None\n"
        "hook = runpy.run_path(sys.argv[1])\n"
        "try:\n    hook['install_uv']()\n"
        "except hook['Failed'] as error:\n    print(error)\n"
    )
    said = run(sys.executable, "-c", script, ROOT / "hooks/post_copy.py", cwd=service)
    assert f"apt install python3.{sys.version_info.minor}-venv" in said
    assert "https://docs.astral.sh/uv/" in said


@pytest.mark.xdist_group("git")
def test_without_git_all_else_is_done(template: Path, tmp_path: Path) -> None:
    env = os.environ | {"PATH": path_with(tmp_path, "uv", "sh")}
    done = copy(template, tmp_path / "service", "--trust", env=env)
    assert done.status == 1
    said = steps(done.output)
    assert said["repository"] == "failed"
    assert said["database"] == "0001_initial written and applied"
    assert said["commit"] == "skipped, it needs: repository"
    assert "There is no git on the PATH: install it" in done.output
    assert "git init" in done.output
    # There is no make either.
    assert "make setup" not in done.output
    assert done.output.rstrip().endswith('or all of it: the commands under "Run it" in README.md')
    assert (done.folder / ".env").exists()
    assert not (done.folder / ".git").exists()

    later = setup(done.folder)
    assert later.status == 0, later.output
    assert run("git", "rev-list", "--count", "HEAD", cwd=done.folder) == "1\n"


@pytest.mark.xdist_group("git")
def test_what_is_the_owners_stays_as_it_is(template: Path, tmp_path: Path) -> None:
    """A folder with a repository, a commit and an `.env` of its own, in a shell with another project's variables."""
    target = tmp_path / "service"
    target.mkdir()
    mine = "SECRET_KEY=this-is-mine-and-long-enough-for-anybody-0\nLOG_LEVEL=WARNING\n"
    (target / ".env").write_text(mine, "utf-8")
    (target / ".gitignore").write_text(".env\n", "utf-8")
    git = ("git", "-c", "user.name=Me", "-c", "user.email=me@example.com")
    run(*git, "init", "--quiet", cwd=target)
    run(*git, "add", ".gitignore", cwd=target)
    run(*git, "commit", "--quiet", "-m", "Mine", cwd=target)
    foreign = {"DATABASE_URL": "postgresql://nobody@127.0.0.1:9/other", "DEBUG": "express:*", "VIRTUAL_ENV": "/nowhere"}
    done = copy(template, target, "--trust", "--overwrite", env=os.environ | foreign)
    assert done.status == 0, done.output
    assert (target / ".env").read_text("utf-8") == mine
    assert steps(done.output)["commit"] == "there already"
    assert run("git", "log", "--format=%s", cwd=target) == "Mine\n"
    assert (target / "data" / "app.db").exists()


@pytest.mark.xdist_group("git")
@both_ways
def test_inside_another_repository_nothing_is_initialised(template: Path, tmp_path: Path, way: str) -> None:
    """Unless that one ignores the folder: the service then has a repository of its own."""
    run("git", "init", "--quiet", cwd=tmp_path)
    service = render(template, tmp_path / "services" / "one")
    done = WAYS[way](service, None)
    assert done.status == 0, done.output
    assert not (service / ".git").exists()
    assert run("git", "log", "--all", "--format=%s", cwd=tmp_path) == ""
    assert run("git", "diff", "--cached", "--name-only", cwd=tmp_path) == ""

    (tmp_path / ".gitignore").write_text("/services/\n", "utf-8")
    done = WAYS[way](service, None)
    assert done.status == 0, done.output
    assert run("git", "log", "--format=%s", cwd=service) == "Begin the service\n"
    assert run("git", "branch", "--show-current", cwd=service) == "main\n"
    assert run("git", "log", "--all", "--format=%s", cwd=tmp_path) == ""


@pytest.mark.parametrize(
    ("setting", "printed"),
    [
        ("SECRET_KEY=hunter2hunter2", "the key hunter2hunter2 is too short"),
        ("SECRET_KEY='hunter2hunter2'", "the key hunter2hunter2 is too short"),
        ("DATABASE_URL=postgresql://app:hunter2@db:5432/app", "no route to postgresql://app:hunter2@db:5432/app"),
        ("DATABASE_URL=postgresql://app:hunter2@db:5432/app", "user app, password hunter2, refused"),
        ("REDIS_URL=redis://:hunter2@cache:6379/0", "AUTH hunter2"),
    ],
)
def test_a_failing_step_tells_no_secret(template: Path, tmp_path: Path, setting: str, printed: str) -> None:
    service = render(template, tmp_path / "service")
    (service / ".env").write_text(f"# What counts\nENVIRONMENT=test\n{setting}\n", "utf-8")
    script = "import runpy, sys; print(runpy.run_path(sys.argv[1])['without_secrets'](sys.argv[2]))"
    shown = run(sys.executable, "-c", script, ROOT / "hooks/post_copy.py", printed, cwd=service)
    assert "hunter2" not in shown
    assert "***" in shown


def test_a_relative_template_path_is_found_again(template: Path, tmp_path: Path) -> None:
    """An update looks from the service's own folder."""
    done = copy(os.path.relpath(template, tmp_path), tmp_path / "service", "--skip-tasks", cwd=tmp_path)
    assert done.status == 0, done.output
    answers = yaml.safe_load((done.folder / ".copier-answers.yml").read_text("utf-8"))
    assert answers["_src_path"] == str(template.resolve())
    assert contents(done.folder) == contents(copy(template, tmp_path / "other", "--skip-tasks", cwd=tmp_path).folder)


@pytest.mark.xdist_group("hostile")
def test_names_of_all_kinds_get_through_every_step(template: Path, tmp_path: Path) -> None:
    answers = {
        "project_name": '"{{ 7 * 7 }}" # it\'s: a \\ test 🚀 مرحبا',
        "project_description": "A 'so-called' \"service\" – {% raw %} $HOME `id` <b> & \\n: # %(x)s 日本語",
        "author_name": "\"';:",
    }
    done = copy(template, tmp_path / "it's [a] folder", "--trust", answers=answers)
    assert done.status == 0, done.output
    assert run("git", "log", "--format=%an", cwd=done.folder) == "service-7-7-it-s-a-test\n"
    assert run("git", "status", "--porcelain", cwd=done.folder) == ""
    run("make", "test", cwd=done.folder)
    shutil.rmtree(done.folder / ".git")
    run("make", "setup", cwd=done.folder)
    assert run("git", "log", "--format=%an", cwd=done.folder) == "service-7-7-it-s-a-test\n"


@pytest.mark.parametrize("author", ["O'Neil", '$HOME $$ $(id) `id` #1 "x" \\ y', "日本 🚀 %s {{ 1 }}"])
def test_the_makefile_names_the_author_as_given(template: Path, tmp_path: Path, author: str) -> None:
    email = "o'$x`y@example.com"
    service = render(template, tmp_path / "service", {"author_name": author, "author_email": email})
    shown = run("make", "--dry-run", "setup", cwd=service)
    assert f"user.name={shlex.quote(author)};" in shown
    assert f"user.email={shlex.quote(email)};" in shown
    assert not (service / ".venv").exists()

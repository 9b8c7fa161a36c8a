"""What the template's tests share: a copy of the template, quick renderings, and whole services with their environment.

Two workers may run these tests at once. Whatever a test makes lies in its own temporary folder, and a database on a
server has a name of its own.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("copier.yml", "extensions", "hooks", "template")

# These run inside services.
collect_ignore = ["skeleton"]

Answers = dict[str, Any]


def questions() -> dict[str, dict[str, Any]]:
    """Return the questions that people see."""
    entries = yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))
    return {key: entry for key, entry in entries.items() if key[0] != "_" and entry.get("when") is not False}


def choices(question: dict[str, Any]) -> list[str]:
    """Return the values that a question offers."""
    offered = question.get("choices", [])
    return list(offered.values()) if isinstance(offered, dict) else list(offered)


def combinations() -> dict[str, Answers]:
    """Return every preset, every single option beside the defaults, and all lists at once, by a readable name.

    All lists come with each of the alternatives of a question that also has none, several such questions at once.
    """
    found: dict[str, Answers] = {}
    everything: Answers = {}
    alternatives: dict[str, list[str]] = {}
    for key, question in questions().items():
        offered = choices(question)
        if key == "preset":
            presets = yaml.safe_load((ROOT / "extensions" / "presets.yml").read_text("utf-8"))
            # Said in full, for those who ask what was chosen.
            found |= {f"preset-{value}": {key: value, **presets[value]} for value in offered}
        elif question.get("multiselect"):
            found |= {f"{key}-{value}": {key: [value]} for value in offered}
            found[f"{key}-none"] = {key: []}
            everything[key] = offered
        elif offered:
            found |= {f"{key}-{value}": {key: value} for value in offered}
            if "none" in offered:
                alternatives[key] = [value for value in offered if value != "none"]
    plain = [f"{key}-{value}" for key, value in DEFAULTS]
    single = {name: answers for name, answers in found.items() if name not in plain}
    rows = [dict(zip(alternatives, row, strict=True)) for row in zip_longest(*alternatives.values(), fillvalue="none")]
    named = {f"all-{next(value for value in row.values() if value != 'none')}": everything | row for row in rows}
    return single | {"all-lists": everything} | named


# Single options that say what `minimal` says already.
DEFAULTS = (
    ("license", "MIT"),
    ("python_version", "3.13"),
    ("auth_provider", "none"),
    ("databases", "none"),
    ("queue", "none"),
    ("email_providers", "none"),
    ("storage_providers", "none"),
    ("features", "none"),
    ("observability", "none"),
    ("ci", "github"),
    ("deploy", "docker"),
)
COMBINATIONS = combinations()


# What an answer brings along whether or not `databases` names it.
BROUGHT = {"arq": "redis", "celery_redis": "redis", "celery_rabbitmq": "rabbitmq"}


def servers_of(answers: Answers) -> list[str]:
    """Return the databases of a service that are servers, also what its queue brings."""
    named = list(answers.get("databases", []))
    brought = BROUGHT.get(answers.get("queue", "none"))
    return [*named, brought] if brought and brought not in named else named


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the rows of the covering arrays be dealt to several machines."""
    parser.addoption("--shard", default="1/1", help="which part of the rows to run, such as 2/4")


def pytest_configure() -> None:
    """Keep this machine's owner out of the answers, the commits and the settings."""
    # Nor is a make that these tests run one of the make that runs them.
    for name in (
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "GIT_AUTHOR_NAME",
        "GIT_AUTHOR_EMAIL",
        "GIT_COMMITTER_NAME",
        "GIT_COMMITTER_EMAIL",
        "EMAIL",
    ):
        os.environ.pop(name, None)
    settings = Path(tempfile.gettempdir(), f"espalier-copier-{os.getuid()}.yml")
    settings.write_text("defaults: {}\n", "utf-8")
    os.environ["COPIER_SETTINGS_PATH"] = str(settings)
    # The tools of these tests are found without an activated environment, and those of servers by everybody.
    path = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath), "/usr/sbin"]
    os.environ["PATH"] = os.pathsep.join(path)
    os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "UV_PYTHON_DOWNLOADS": "never"}
    os.environ.setdefault("UV_SYSTEM_CERTS", "true")


def unavailable(what: str) -> None:
    """Skip the running test; under CI=true, where everything has to be there, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is needed and not there")
    pytest.skip(f"{what} is not there")


def lay_out(target: Path) -> Path:
    """Copy the template as it lies in the working tree: no repository, so that Copier takes it as it is."""
    target.mkdir(exist_ok=True)
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, target / part, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        else:
            shutil.copy(source, target / part)
    return target


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template, which tests may read but not change."""
    return lay_out(tmp_path_factory.mktemp("template"))


def render(template: Path, target: Path, answers: Answers | None = None) -> Path:
    """Render without the hooks."""
    copier.run_copy(str(template), target, data=answers or {}, defaults=True, quiet=True, skip_tasks=True)
    return target


@pytest.fixture(scope="session")
def rendered(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Give the rendering of a combination, which tests may read but not change."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = render(template, tmp_path_factory.mktemp("rendered") / "service", COMBINATIONS[name])
        return made[name]

    return get


def files(folder: Path) -> list[str]:
    """Return the files of a rendering, by their paths."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contents(folder: Path, *, without: tuple[str, ...] = (".git", ".venv", "data")) -> dict[str, bytes]:
    """Return what the files of a folder hold, by their paths."""
    return {
        name: (folder / name).read_bytes()
        for name in files(folder)
        if Path(name).parts[0] not in without and "__pycache__" not in name and "_cache/" not in name
    }


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None, timeout: float = 300) -> str:
    """Run a command that has to succeed, and return all that it prints."""
    # A pytest that a service runs is not one of our workers.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=inherited | (env or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-6000:]}"
    return done.stdout


@dataclass(frozen=True)
class Copy:
    """What `copier copy` did."""

    status: int
    output: str
    folder: Path


def copy(
    template: Path | str,
    target: Path,
    *options: str,
    answers: Answers | None = None,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> Copy:
    """Run `copier copy` as people do. `env` replaces the environment as a whole."""
    data = [part for key, value in (answers or {}).items() for part in ("--data", f"{key}={yaml_of(value)}")]
    done = subprocess.run(
        [sys.executable, "-m", "copier", "copy", "--defaults", *options, *data, str(template), str(target)],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return Copy(done.returncode, done.stdout, target)


def yaml_of(value: object) -> str:
    """Return an answer as it is typed after `--data key=`."""
    return f"[{', '.join(value)}]" if isinstance(value, list) else str(value)


@pytest.fixture(scope="session")
def services(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Copy]:
    """Give the whole service of a combination, made with the hooks once for all tests of one worker."""
    made: dict[str, Copy] = {}

    def get(name: str) -> Copy:
        if name not in made:
            target = tmp_path_factory.mktemp("services") / "service"
            made[name] = copy(template, target, "--trust", answers=COMBINATIONS[name])
        assert made[name].status == 0, made[name].output
        return made[name]

    return get


def free_port() -> int:
    """Return a port on which nothing listens, below those that systems give to connections that go out."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("a hundred ports are taken")

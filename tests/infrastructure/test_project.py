"""The project files of a service: dependencies, contracts, hooks for commits, and the Makefile."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import COMBINATIONS, ROOT, Copy, contents, run
from packaging.requirements import Requirement

Rendered = Callable[[str], Path]
Services = Callable[[str], Copy]
each_combination = pytest.mark.parametrize("name", COMBINATIONS)
# Packages whose modules have another name, and what is data alone.
MODULE_OF = {"argon2-cffi": "argon2", "pyjwt": "jwt", "python-dotenv": "dotenv"}
NOT_IMPORTED = {"tzdata"}


def project(service: Path) -> dict[str, Any]:
    """Read pyproject.toml."""
    return tomllib.loads((service / "pyproject.toml").read_text("utf-8"))


def imported(*folders: Path) -> set[str]:
    """Return the top-level names that the Python files of some folders import, their own left out."""
    names = set()
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"app"}


@each_combination
def test_what_is_imported_is_declared_and_the_other_way_round(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    declared = {Requirement(line).name for line in project(service)["project"]["dependencies"]}
    modules = {MODULE_OF.get(package, package.replace("-", "_")) for package in declared - NOT_IMPORTED}
    assert imported(service / "app", service / "migrations") == modules


@each_combination
def test_every_dependency_has_both_bounds(rendered: Rendered, name: str) -> None:
    found = project(rendered(name))
    lines = [*found["project"]["dependencies"], *found["dependency-groups"]["dev"], *found["build-system"]["requires"]]
    for line in lines:
        assert sorted(bound.operator for bound in Requirement(line).specifier) == ["<", ">="], line
    for group in (found["project"]["dependencies"], found["dependency-groups"]["dev"]):
        names = [Requirement(line).name for line in group]
        assert names == sorted(names)


@pytest.mark.parametrize("name", [name for name in COMBINATIONS if name.startswith("license-") or "minimal" in name])
def test_the_licence_is_an_spdx_expression(rendered: Rendered, name: str) -> None:
    answer = COMBINATIONS[name].get("license", "MIT")
    expected = "LicenseRef-Proprietary" if answer == "Proprietary" else answer
    assert project(rendered(name))["project"]["license"] == expected


def test_the_commit_hooks_are_pinned(rendered: Rendered) -> None:
    found = yaml.safe_load((rendered("preset-minimal") / ".pre-commit-config.yaml").read_text("utf-8"))
    for repository in found["repos"]:
        assert repository["repo"] == "local" or re.fullmatch(r"[0-9a-f]{40}", repository["rev"])
    hooks = {hook["id"] for repository in found["repos"] for hook in repository["hooks"]}
    assert hooks >= {"env-stays-here", "detect-private-key", "ruff-check", "ruff-format", "mypy", "lint-imports"}


def test_make_says_what_it_can(rendered: Rendered) -> None:
    service = rendered("preset-minimal")
    told = run("make", "--no-print-directory", cwd=service)
    targets = re.findall(r"^([a-z-]+):.*?## ", (service / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert re.findall(r"^  ([a-z-]+) ", told, re.MULTILINE) == targets
    phony = re.findall(r"^\.PHONY: (.+)", (service / "Makefile").read_text("utf-8"), re.MULTILINE)[0].split()
    assert sorted(phony) == sorted(targets)


def test_make_says_when_there_is_no_environment(rendered: Rendered) -> None:
    done = subprocess.run(["make", "test"], cwd=rendered("preset-minimal"), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "make setup" in done.stderr


def test_what_must_not_be_committed_is_ignored(rendered: Rendered, tmp_path: Path) -> None:
    service = shutil.copytree(rendered("all-lists"), tmp_path / "service")
    run("git", "init", "--quiet", cwd=service)
    for path in (".env", "data/app.db", ".venv/bin/python", ".setup-left", ".coverage", "app/__pycache__/x.pyc"):
        run("git", "check-ignore", "--quiet", path, cwd=service)
    kept = subprocess.run(
        ["git", "check-ignore", ".env.example", "uv.lock", "migrations/versions/0001_initial.py"],
        cwd=service,
        capture_output=True,
        text=True,
        check=False,
    )
    assert kept.stdout == ""


def test_no_file_of_the_skeleton_is_ignored_here() -> None:
    """The skeleton's .gitignore holds in this repository as well."""
    listed = run("git", "status", "--ignored", "--porcelain", "template", cwd=ROOT)
    ignored = [line[3:] for line in listed.splitlines() if line.startswith("!!")]
    assert all("_cache" in path or "__pycache__" in path for path in ignored), ignored


FLOORS = {
    "the kit uses a port": ("app/kit/wrong.py", "from app.ports.db import database"),
    "the kit uses a module": ("app/kit/wrong.py", "import app.modules.users.models"),
    "a port uses a module": ("app/ports/identity/wrong.py", "from app.modules.users import models"),
    "a module uses the composition": ("app/modules/users/wrong.py", "from app.installed import MODULES"),
    "two modules use each other": ("app/modules/users/wrong.py", "import app.modules.projects.models"),
}


@pytest.mark.service
@pytest.mark.xdist_group("all-lists")
def test_the_floors_hold(services: Services, tmp_path: Path) -> None:
    made = services("all-lists").folder
    shutil.copytree(made / "app", tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(made / "pyproject.toml", tmp_path)
    command = [str(made / ".venv/bin/lint-imports"), "--no-cache", "--no-logo"]
    run(*command, cwd=tmp_path)
    for what, (path, line) in FLOORS.items():
        (tmp_path / path).write_text(line + "\n", "utf-8")
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        (tmp_path / path).unlink()
        assert done.returncode == 1, what
        assert "BROKEN" in done.stdout, what


@pytest.mark.service
@pytest.mark.xdist_group("all-lists")
def test_the_example_of_the_settings_is_written_anew(services: Services, tmp_path: Path) -> None:
    made = services("all-lists").folder
    before = (made / ".env.example").read_bytes()
    run("make", "env-example", cwd=made)
    assert (made / ".env.example").read_bytes() == before
    assert run("git", "status", "--porcelain", cwd=made) == ""

    service = shutil.copytree(made, tmp_path / "service", ignore=shutil.ignore_patterns(".venv", ".git", "data"))
    command = service / ".venv/bin/app"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\necho half\nexit 1\n", "utf-8")
    command.chmod(0o755)
    files = contents(service)
    assert subprocess.run(["make", "env-example"], cwd=service, capture_output=True, check=False).returncode != 0
    assert contents(service) == files


@pytest.mark.service
@pytest.mark.xdist_group("all-lists")
def test_a_new_migration_is_clean(services: Services, tmp_path: Path) -> None:
    """What `make migrate m=...` writes passes `make lint`, whatever the message holds."""
    made = services("all-lists").folder
    skip = shutil.ignore_patterns("__pycache__", ".venv", ".git", "data")
    service = shutil.copytree(made, tmp_path / "service", ignore=skip)
    (service / ".venv").symlink_to(made / ".venv", target_is_directory=True)
    models = service / "app/modules/users/models.py"
    models.write_text(models.read_text("utf-8") + "\n    nickname: str | None = Field(None, max_length=50)\n", "utf-8")
    run("make", "migrate", cwd=service)
    said = run("make", "migrate", 'm=it\'s "nick" & name', cwd=service)
    assert not re.search("checks passed|reformatted|unchanged", said)
    run(".venv/bin/alembic", "revision", "--message", "by hand", cwd=service)
    written = sorted(path.name for path in (service / "migrations/versions").glob("*.py"))
    assert written == ["0001_initial.py", "0002_it_s_nick_name.py", "0003_by_hand.py"]
    assert "nickname" in (service / "migrations/versions" / written[1]).read_text("utf-8")
    run("make", "migrate", cwd=service)
    run(".venv/bin/ruff", "check", "migrations", cwd=service)
    run(".venv/bin/ruff", "format", "--check", "migrations", cwd=service)


@pytest.mark.service
@pytest.mark.xdist_group("all-lists")
def test_the_commit_hooks_run(services: Services, tmp_path: Path) -> None:
    """The local ones: the others are fetched from the network."""
    made = services("all-lists").folder
    skip = shutil.ignore_patterns("__pycache__", ".venv", ".git", "data")
    service = shutil.copytree(made, tmp_path / "service", ignore=skip)
    (service / ".venv").symlink_to(made / ".venv", target_is_directory=True)
    config = service / ".pre-commit-config.yaml"
    run(".venv/bin/pre-commit", "validate-config", config, cwd=service)
    found = yaml.safe_load(config.read_text("utf-8"))
    found["repos"] = [repository for repository in found["repos"] if repository["repo"] == "local"]
    config.write_text(yaml.safe_dump(found), "utf-8")
    run("git", "init", "--quiet", cwd=service)
    run("git", "add", "--all", cwd=service)
    home = {"PRE_COMMIT_HOME": str(tmp_path / "hooks")}
    run(".venv/bin/pre-commit", "run", "--all-files", cwd=service, env=home)
    run("git", "add", "--force", ".env", cwd=service)
    done = subprocess.run(
        [".venv/bin/pre-commit", "run", "env-stays-here", "--files", ".env"],
        cwd=service,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert ".env holds secrets" in done.stdout

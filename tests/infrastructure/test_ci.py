"""The pipelines of GitHub and GitLab, and Dependabot, for every combination that has them."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import COMBINATIONS, ROOT, run, servers_of

Rendered = Callable[[str], Path]
TOOLS = Path(sys.executable).parent
SERVERS = {"postgresql": "postgres", "redis": "redis", "rabbitmq": "rabbitmq"}
VARIABLES = {
    "postgresql": "TEST_POSTGRES_URL",
    "redis": "TEST_REDIS_URL",
    "rabbitmq": "TEST_RABBITMQ_URL",
}
# These answers do not reach the pipelines.
APART = ("license-", "features-")
RELEVANT = {name: answers for name, answers in COMBINATIONS.items() if not name.startswith(APART)}
ON_GITHUB = [name for name, answers in RELEVANT.items() if "github" in answers.get("ci", ["github"])]
ON_GITLAB = [name for name, answers in RELEVANT.items() if "gitlab" in answers.get("ci", [])]
each_on_github = pytest.mark.parametrize("name", ON_GITHUB)
each_on_gitlab = pytest.mark.parametrize("name", ON_GITLAB)
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def load(path: Path) -> dict[str, Any]:
    """Read a YAML file."""
    found: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


# What tools have found well in this process: most answers give the same files.
WELL: set[tuple[str, ...]] = set()


def hold(service: Path, command: tuple[str, ...], *paths: str) -> None:
    """Let a tool look at files, where it has not seen the same ones."""
    found = [one for path in paths for one in (service / path, *sorted((service / path).rglob("*"))) if one.is_file()]
    seen = (*command, *(part for one in found for part in (str(one.relative_to(service)), one.read_text("utf-8"))))
    if seen not in WELL:
        run(TOOLS / command[0], *command[1:], *paths, cwd=service)
        WELL.add(seen)


def check(schema: str, path: str, service: Path) -> None:
    """Hold a file to one of the schemas that check-jsonschema carries."""
    hold(service, ("check-jsonschema", "--builtin-schema", f"vendor.{schema}"), path)


def pythons(name: str) -> list[str]:
    """Return the Python versions that a combination is tested on."""
    return list(dict.fromkeys(["3.11", COMBINATIONS[name].get("python_version", "3.13")]))


@each_on_github
def test_github_takes_the_files(rendered: Rendered, tmp_path: Path, name: str) -> None:
    check("github-workflows", ".github/workflows/ci.yml", rendered(name))
    check("dependabot", ".github/dependabot.yml", rendered(name))
    # Outside of a repository zizmor looks at what it is given and at nothing above it.
    shutil.copytree(rendered(name) / ".github", tmp_path / ".github")
    hold(tmp_path, ("zizmor", "--offline", "--quiet", "--no-progress"), ".github")


@each_on_github
def test_the_workflow_has_few_rights_and_fixed_actions(rendered: Rendered, name: str) -> None:
    path = rendered(name) / ".github/workflows/ci.yml"
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert "cancel-in-progress" in workflow["concurrency"]
    assert not any("permissions" in job for job in workflow["jobs"].values())
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    used = re.findall(r"uses: (.+)", path.read_text("utf-8"))
    assert used
    assert all(PINNED.fullmatch(action) for action in used), used
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    checkouts = [step for step in steps if "checkout@" in step.get("uses", "")]
    assert len(checkouts) == len(workflow["jobs"])
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


@each_on_github
def test_the_workflow_fits_the_answers(rendered: Rendered, name: str) -> None:
    jobs = load(rendered(name) / ".github/workflows/ci.yml")["jobs"]
    databases = servers_of(COMBINATIONS[name])
    docker = "docker" in COMBINATIONS[name].get("deploy", ["docker"])
    assert set(jobs) == {"check", "test", "audit"} | ({"image"} if docker else set())
    assert jobs["test"]["strategy"]["matrix"]["python"] == pythons(name)
    assert list(jobs["test"].get("services", {})) == [SERVERS[database] for database in databases]
    assert list(jobs["test"].get("env", {})) == [VARIABLES[database] for database in databases]


@each_on_github
def test_every_command_of_the_workflow_is_there(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    targets = re.findall(r"^([a-z-]+):", (service / "Makefile").read_text("utf-8"), re.MULTILINE)
    called = re.findall(r"run: make (.+)", (service / ".github/workflows/ci.yml").read_text("utf-8"))
    assert set(called) == {"lint", "types", "test"}
    assert set(called) <= set(targets)


@each_on_github
def test_dependabot_watches_what_is_there(rendered: Rendered, name: str) -> None:
    updates = load(rendered(name) / ".github/dependabot.yml")["updates"]
    expected = {"uv", "github-actions"}
    if "docker" in COMBINATIONS[name].get("deploy", ["docker"]):
        expected |= {"docker"} | ({"docker-compose"} if servers_of(COMBINATIONS[name]) else set())
    assert {update["package-ecosystem"] for update in updates} == expected
    assert all(update["cooldown"]["default-days"] == 7 for update in updates)


@each_on_gitlab
def test_gitlab_takes_the_file(rendered: Rendered, name: str) -> None:
    check("gitlab-ci", ".gitlab-ci.yml", rendered(name))


@each_on_gitlab
def test_the_pipeline_fits_the_answers(rendered: Rendered, name: str) -> None:
    pipeline = load(rendered(name) / ".gitlab-ci.yml")
    databases = servers_of(COMBINATIONS[name])
    jobs = {job for job, entry in pipeline.items() if "script" in entry}
    docker = "docker" in COMBINATIONS[name].get("deploy", ["docker"])
    assert jobs == {"lint", "test", "audit"} | ({"container"} if docker else set())
    assert {entry.get("stage", "check") for entry in pipeline.values() if "script" in entry} == set(pipeline["stages"])
    assert pipeline["test"]["parallel"]["matrix"] == [{"PYTHON": pythons(name)}]
    assert [entry["alias"] for entry in pipeline["test"].get("services", [])] == [SERVERS[name] for name in databases]
    assert list(pipeline["test"].get("variables", {})) == [VARIABLES[database] for database in databases]


def test_both_use_the_same_versions(rendered: Rendered) -> None:
    """One version of uv and one of each server, wherever it is named."""
    service = rendered("all-supabase")
    paths = (".github/workflows/ci.yml", ".gitlab-ci.yml", "Dockerfile", "compose.yaml", "Makefile")
    text = "\n".join((service / path).read_text("utf-8") for path in paths)
    text += (ROOT / "hooks/post_copy.py").read_text("utf-8")
    uv = re.findall(r"(?:uv==|UV_VERSION: \")([\d.]+)", text)
    assert len(uv) == 5
    assert len(set(uv)) == 1
    for server in SERVERS.values():
        assert len(set(re.findall(rf"(?:image|name): ({server}:.+)", text))) == 1


@pytest.mark.parametrize("name", RELEVANT)
def test_yaml_is_tidy(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    paths = [".pre-commit-config.yaml", "compose.yaml", ".gitlab-ci.yml", ".github"]
    rules = (
        "{extends: default, rules: {line-length: {max: 160}, document-start: disable, truthy: {check-keys: false}, "
        "comments: {min-spaces-from-content: 1}, braces: {max-spaces-inside: 1}}}"
    )
    hold(service, ("yamllint", "--strict", "-d", rules), *[path for path in paths if (service / path).exists()])

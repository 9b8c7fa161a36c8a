"""The image and the compose file, for every combination that has them."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import COMBINATIONS, run, servers_of

Rendered = Callable[[str], Path]


def find_compose() -> list[str]:
    """Return the command of Docker Compose, which needs no engine to read a file, or nothing."""
    command = os.environ.get("DOCKER_COMPOSE", "docker compose").split()
    if not shutil.which(command[0]):
        return []
    known = subprocess.run([*command, "version"], capture_output=True, check=False).returncode == 0
    return command if known else []


TOOLS = Path(sys.executable).parent
SERVERS = {"postgresql": "postgres", "redis": "redis", "rabbitmq": "rabbitmq"}
# These answers do not reach the image and its servers.
APART = ("license-", "ci-", "features-projects")
WITH_DOCKER = [
    name
    for name, answers in COMBINATIONS.items()
    if "docker" in answers.get("deploy", ["docker"]) and not name.startswith(APART)
]
COMPOSE = find_compose()
each_combination = pytest.mark.parametrize("name", WITH_DOCKER)


def compose(service: Path) -> dict[str, Any]:
    """Return the compose file."""
    found: dict[str, Any] = yaml.safe_load((service / "compose.yaml").read_text("utf-8"))
    return found


def chosen(name: str) -> list[str]:
    """Return the servers of a combination, by their names in the compose file."""
    return [SERVERS[database] for database in servers_of(COMBINATIONS[name])]


def test_without_docker_nothing_of_it_is_left(rendered: Rendered) -> None:
    service = rendered("deploy-none")
    assert not any((service / path).exists() for path in ("Dockerfile", ".dockerignore", "compose.yaml"))
    for path in ("README.md", "AGENTS.md", ".github/workflows/ci.yml", ".github/dependabot.yml"):
        assert "docker" not in (service / path).read_text("utf-8").lower(), path


@each_combination
def test_hadolint_finds_nothing(rendered: Rendered, name: str) -> None:
    assert run(TOOLS / "hadolint", "--failure-threshold", "style", "Dockerfile", cwd=rendered(name)) == ""


@each_combination
def test_the_image_needs_no_buildkit_and_no_root(rendered: Rendered, name: str) -> None:
    text = (rendered(name) / "Dockerfile").read_text("utf-8")
    assert not re.search(r"--link|--mount|<<", text)
    version = COMBINATIONS[name].get("python_version", "3.13")
    assert f"FROM python:{version}-slim AS base" in text
    last = text.split("\nFROM ")[-1]
    assert "USER 10001:10001" in last
    assert "HEALTHCHECK" in last


def test_the_build_sees_only_what_the_image_needs(rendered: Rendered) -> None:
    service = rendered("preset-minimal")
    lines = [line for line in (service / ".dockerignore").read_text("utf-8").splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    let_in = {line.strip("!/") for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (service / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    assert let_in == {path for paths in copied for path in paths.split()}


@each_combination
def test_the_compose_file_keeps_to_its_schema(rendered: Rendered, name: str) -> None:
    run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml", cwd=rendered(name))


# The schema above is checked everywhere; Compose itself only where it is, for no test may be skipped in CI.
if COMPOSE:

    @each_combination
    def test_compose_itself_takes_the_file(rendered: Rendered, tmp_path: Path, name: str) -> None:
        shutil.copy(rendered(name) / "compose.yaml", tmp_path)
        text = (tmp_path / "compose.yaml").read_text("utf-8")
        secrets = sorted(set(re.findall(r"\$\{(\w+):\?", text)))
        (tmp_path / ".env").write_text("".join(f"{secret}=something\n" for secret in secrets), "utf-8")
        run(*COMPOSE, "--profile", "test", "config", "--quiet", cwd=tmp_path)


@each_combination
def test_exactly_the_chosen_servers_are_there(rendered: Rendered, name: str) -> None:
    services = compose(rendered(name))["services"]
    always = [part for part, entry in services.items() if "profiles" not in entry]
    worker = ["worker"] * (COMBINATIONS[name].get("queue", "none") != "none")
    assert sorted(always) == sorted(["app", "migrate", *worker, *chosen(name)])
    on_demand = [part for part, entry in services.items() if entry.get("profiles") == ["test"]]
    assert sorted(on_demand) == sorted(f"{server}-test" for server in chosen(name))


@each_combination
def test_every_container_is_confined(rendered: Rendered, name: str) -> None:
    for part, entry in compose(rendered(name))["services"].items():
        if "profiles" in entry:
            continue
        assert entry["read_only"] is True, part
        assert entry["cap_drop"] == ["ALL"], part
        assert "cap_add" not in entry, part
        assert entry["security_opt"] == ["no-new-privileges:true"], part
        assert set(entry["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, part
        assert "build" in entry or entry["user"] != "root", part


@each_combination
def test_servers_are_out_of_reach(rendered: Rendered, name: str) -> None:
    found = compose(rendered(name))
    for server in chosen(name):
        entry = found["services"][server]
        assert entry["networks"] == ["backend"]
        assert "ports" not in entry
        assert "test" in entry["healthcheck"]
    if chosen(name):
        assert found["networks"]["backend"] == {"internal": True}
    published = [port for entry in found["services"].values() for port in entry.get("ports", [])]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@each_combination
def test_no_password_stands_in_the_file(rendered: Rendered, name: str) -> None:
    text = (rendered(name) / "compose.yaml").read_text("utf-8")
    passwords = re.findall(r"PASS(?:WORD)?: (.+)", text) + re.findall(r"//\w*:([^@\n]+)@", text)
    minio = "s3" in COMBINATIONS[name].get("storage_providers", [])
    assert len(passwords) == len({"postgres", "rabbitmq"} & set(chosen(name))) + minio
    asked = re.compile(r"\"?\$\{(\w+_PASSWORD:\?|S3_SECRET_ACCESS_KEY:-no\})")
    assert all(asked.match(password) for password in passwords), passwords


@each_combination
def test_minio_is_there_with_s3_and_only_when_it_is_asked_for(rendered: Rendered, name: str) -> None:
    found = compose(rendered(name))
    minio = found["services"].get("minio")
    assert (minio is not None) == ("s3" in COMBINATIONS[name].get("storage_providers", []))
    if minio:
        assert minio["profiles"] == ["minio"]
        assert re.fullmatch(r"[\w/]+:RELEASE\.[\dTZ-]+", minio["image"])
        assert minio["read_only"] is True
        assert minio["cap_drop"] == ["ALL"]
        assert minio.get("networks", ["edge"])[-1] == "edge"


@each_combination
def test_the_new_version_waits_for_its_migrations(rendered: Rendered, name: str) -> None:
    services = compose(rendered(name))["services"]
    assert services["app"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert services["migrate"]["command"] == ["alembic", "upgrade", "head"]
    assert services["migrate"]["restart"] == "no"

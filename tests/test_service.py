"""Services as their owners get them: made with the hooks, they prove themselves.

At each change these are the presets, all lists at once, and each value of a question that takes one and puts code into
the service. Every other combination of two answers has its turn each night, in `combinations/`.
"""

import filecmp
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from conftest import COMBINATIONS, Copy, questions, run
from treatment import Case, Step, served, treatment

pytestmark = pytest.mark.service

Services = Callable[[str], Copy]
# Of single values in lists, and of answers that only change project files, just the renderings are looked at.
PLAIN = ("license", "python_version", *(name for name, question in questions().items() if question.get("multiselect")))
# Celery has its turn with everything else here, and alone each night.
APART = (*(f"{question}-" for question in PLAIN), "queue-celery")
MADE = [name for name in COMBINATIONS if not name.startswith(APART)]


# Services with everything are tested with servers. This one is tested in whole; the others leave out what ports say for
# themselves in the same words.
WHOLE = "all-local"


def steps(name: str) -> list[Step]:
    """Return what a service goes through. Of those with everything just one is tested without servers."""
    left_out = {"all-lists": "tests_on_servers"}.get(name, "tests" if name.startswith("all-") else "")
    return [step for step in treatment(COMBINATIONS[name]) if step.__name__ != left_out]


def known(rendered: Callable[[str], Path], name: str) -> tuple[str, ...]:
    """Return the tests of ports that are the same, byte for byte, in the service that is tested in whole."""
    if not name.startswith("all-") or name in {WHOLE, "all-lists"}:
        return ()
    whole, service = rendered(WHOLE), rendered(name)
    tests = (path.relative_to(service) for path in (service / "tests" / "ports").rglob("test_*.py"))
    same = [one for one in tests if (whole / one).is_file() and filecmp.cmp(whole / one, service / one, shallow=False)]
    return tuple(sorted(one.as_posix() for one in same))


JSON = {"Content-Type": "application/json"}
# With the least, with servers, with everything.
INSIDE = ("preset-minimal", "queue-arq", "auth_provider-oidc", WHOLE)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs of mypy in this worker."""
    return tmp_path_factory.mktemp("mypy")


@pytest.fixture
def case(services: Services, rendered: Callable[[str], Path], cache: Path, tmp_path: Path, name: str) -> Case:
    return Case(services(name).folder, COMBINATIONS[name], tmp_path, cache, known(rendered, name))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        pytest.param(name, step, id=f"{name}-{step.__name__}", marks=pytest.mark.xdist_group(name))
        for name in MADE
        for step in steps(name)
    ],
)
def test_it_proves_itself(case: Case, step: Step) -> None:
    step(case)


def test_most_tests_of_ports_are_known_and_those_of_what_differs_are_not(rendered: Callable[[str], Path]) -> None:
    found = known(rendered, "all-oidc")
    assert "tests/ports/storage/test_s3.py" in found
    assert not {"tests/ports/test_oidc.py", "tests/ports/jobs/test_celery_redis.py"} & set(found)
    assert known(rendered, WHOLE) == known(rendered, "preset-minimal") == ()


# They ask what all services share, and answers change little of it; the kit and the database's port are in each.
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in INSIDE])
def test_hostile_cases_inside(services: Services, name: str) -> None:
    service = services(name).folder
    inside = service / "tests" / "skeleton"
    shutil.copytree(Path(__file__).with_name("skeleton"), inside)
    try:
        output = run(service / ".venv/bin/pytest", inside, cwd=service)
    finally:
        shutil.rmtree(inside)
    assert " passed" in output


@pytest.mark.xdist_group("queue-arq")
def test_the_job_that_the_readme_shows_runs(services: Services) -> None:
    """Its files, put where they say, pass the checks of the service, and the route has a job done."""
    service = services("queue-arq").folder
    readme = (service / "README.md").read_text("utf-8")
    shown = re.findall(r"^```python\n# (app/modules/greetings/\w+\.py)\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    statement = re.findall(r"`(from app\.modules\.greetings\.\w+ import greetings)`", readme)
    assert (len(shown), len(statement)) == (3, 1)
    installed = service / "app" / "installed.py"
    before = installed.read_text("utf-8")
    folder = service / "app" / "modules" / "greetings"
    try:
        folder.mkdir()
        for path, text in shown:
            (service / path).write_text(text, "utf-8")
        health = "from app.modules.health"
        after = before.replace("    jobs,\n", "    greetings,\n    jobs,\n")
        installed.write_text(after.replace(health, f"{statement[0]}\n{health}", 1), "utf-8")
        run("make", "lint", "types", cwd=service)
        with served(service) as (base, _), httpx2.Client(base_url=f"{base}/api/v1/app") as client:
            answer = client.post("/greetings", json=["Ada", "Grace"])
            assert answer.status_code == 202, answer.text
            until = time.monotonic() + 60
            while (job := client.get(f"/tasks/{answer.json()}").json())["state"] != "succeeded":
                assert time.monotonic() < until, job
                time.sleep(0.1)
            assert job["result"] == 2
            for wrong in ('"Ada"', '["Ada\\ud800"]', json.dumps(["Ada"] * 51), json.dumps(["A" * 70_000])):
                assert client.post("/greetings", content=wrong, headers=JSON).status_code == 422, wrong[:20]
    finally:
        installed.write_text(before, "utf-8")
        shutil.rmtree(folder)

"""Services as their owners get them: made with the hooks, they prove themselves.

At each change these are the presets, all lists at once, and each value of a question that takes one and puts code into
the service. Every other combination of two answers has its turn each night, in `combinations/`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import COMBINATIONS, Copy, questions, run
from treatment import Case, Step, treatment

pytestmark = pytest.mark.service

Services = Callable[[str], Copy]
# Of single values in lists, and of answers that only change project files, just the renderings are looked at.
PLAIN = ("license", "python_version", *(name for name, question in questions().items() if question.get("multiselect")))
MADE = [name for name in COMBINATIONS if not name.startswith(tuple(f"{question}-" for question in PLAIN))]


# One worker makes a service and runs all of its tests.
each_service = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in MADE]
)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs of mypy in this worker."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize(
    ("name", "step"),
    [
        pytest.param(name, step, id=f"{name}-{step.__name__}", marks=pytest.mark.xdist_group(name))
        for name in MADE
        for step in treatment(COMBINATIONS[name])
    ],
)
def test_it_proves_itself(services: Services, cache: Path, tmp_path: Path, name: str, step: Step) -> None:
    step(Case(services(name).folder, COMBINATIONS[name], tmp_path, cache))


@each_service
def test_hostile_cases_inside(services: Services, name: str) -> None:
    service = services(name).folder
    inside = service / "tests" / "skeleton"
    shutil.copytree(Path(__file__).with_name("skeleton"), inside)
    try:
        output = run(service / ".venv/bin/pytest", inside, cwd=service)
    finally:
        shutil.rmtree(inside)
    assert " passed" in output

"""What the design promises of sizes and shapes, and that the pins hold what the services ask for."""

import graphlib
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import grimp
import pytest
import yaml
from conftest import COMBINATIONS, ROOT, files
from packaging.requirements import Requirement

Rendered = Callable[[str], Path]


def test_at_least_95_percent_of_the_python_files_carry_no_jinja(template: Path) -> None:
    plain = list((template / "template").rglob("*.py"))
    seams = list((template / "template").rglob("*.py.jinja"))
    assert len(seams) <= 0.05 * (len(plain) + len(seams)), [path.name for path in seams]


def test_minimal_is_small(rendered: Rendered) -> None:
    service = rendered("preset-minimal")
    lines = {
        path: len((service / path).read_text("utf-8").splitlines()) for path in files(service) if path.endswith(".py")
    }
    assert len(files(service)) <= 60
    assert sum(lines.values()) <= 2500, sorted(lines.items(), key=lambda item: -item[1])


def test_there_is_no_import_circle(rendered: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole application, everything on, taken apart to modules."""
    # In a copy, because finding a package imports the one above it, and that leaves bytecode behind.
    monkeypatch.syspath_prepend(str(shutil.copytree(rendered("all-lists"), tmp_path / "service")))
    try:
        graph = grimp.build_graph(
            "app", "app.kit", "app.ports", "app.modules", cache_dir=None, exclude_type_checking_imports=True
        )
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "app"]:
            del sys.modules[name]
    assert "app.modules.projects.module" in graph.modules
    imports = {module: graph.find_modules_directly_imported_by(module) - {module} for module in graph.modules}
    assert len(list(graphlib.TopologicalSorter(imports).static_order())) == len(graph.modules)


def test_pins_are_plain_versions() -> None:
    pins = yaml.safe_load((ROOT / "extensions/pins.yml").read_text("utf-8"))
    known = yaml.safe_load(re.sub(r"\{\{.*?\}\}", "true", (ROOT / "extensions/modules.yml").read_text("utf-8")))
    assert set(pins) - {"base"} <= set(known)
    tools = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    for line in [*tools, *(line for lines in pins.values() for line in lines)]:
        assert re.fullmatch(r"[a-z0-9-]+==[a-z0-9.]+( ; [^@:/]+)?", line), line


@pytest.mark.parametrize("name", COMBINATIONS)
def test_pins_fit_what_is_declared(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    lines = (service / "constraints.txt").read_text("utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if not line.startswith("#")]
    assert [str(pin) for pin in pinned] == sorted(str(pin) for pin in pinned)
    project = tomllib.loads((service / "pyproject.toml").read_text("utf-8"))
    declared = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    for wanted in map(Requirement, declared):
        versions = [next(iter(pin.specifier)).version for pin in pinned if pin.name == wanted.name]
        assert versions, f"{wanted.name} has no pin: run `make pins`"
        assert all(map(wanted.specifier.contains, versions)), f"{wanted} does not fit {versions}: run `make pins`"

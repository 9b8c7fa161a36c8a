"""The proof finds each planted fault, names its file and line, and its counter-example fails when it is copied."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from evidence import Proof, Violation
from faults import FAULTS, UNMODELLED, Fault, Plant
from files import FIRST_PARTY, programs
from prove import prove, run
from space import UnmodelledError


def planted(template: Path, target: Path, *plants: Plant) -> Path:
    """Copy the template and plant a fault."""
    root = shutil.copytree(template, target)
    for plant in plants:
        plant(root)
    return root


@pytest.fixture(scope="module")
def clean(template: Path) -> Proof:
    """The proof of the template without a fault, which knows all that a fault leaves as it was."""
    return prove(template)


def find(fault: Fault, root: Path, scratch: Path, clean: Proof) -> tuple[Proof, Violation]:
    """Return the violation by which a fault has to be told."""
    scratch.mkdir()
    proof = prove(root, known=clean)
    found = run(proof, scratch)
    for one in found:
        if (one.check, one.path) == (fault.check, fault.path) and fault.words in one.message:
            return proof, one
    raise AssertionError("\n".join(map(str, found)) or "nothing was found")


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_and_its_counter_example_fails(
    template: Path, clean: Proof, tmp_path: Path, name: str
) -> None:
    fault = FAULTS[name]
    root = planted(template, tmp_path / "template", *fault.plants)
    proof, violation = find(fault, root, tmp_path / "scratch", clean)
    service = tmp_path / "service"
    if violation.example is not None and fault.check not in {"rule", "preset"}:
        data = violation.example | proof.projection.open_answers()
        copier.run_copy(str(root), service, data=data, defaults=True, quiet=True, skip_tasks=True)
    home = next(
        folder
        for folder in (service, root, root / "template", Path(__file__).parent)
        if (folder / fault.path).is_file()
    )
    lines = (home / fault.path).read_text("utf-8").splitlines()
    assert fault.line in lines[violation.line - 1]
    if violation.example is not None:
        assert FAILURES[fault.check](service, violation, root), "the counter-example does not fail"


def test_there_are_many_kinds_of_faults() -> None:
    assert len(FAULTS) + len(UNMODELLED) >= 60
    assert {fault.check for fault in FAULTS.values()} - {"ownership", "dead value"} == FAILURES.keys() - {"ownership"}


@pytest.mark.parametrize("name", UNMODELLED)
def test_what_has_no_model_is_refused(template: Path, tmp_path: Path, name: str) -> None:
    plant, words = UNMODELLED[name]
    root = planted(template, tmp_path / "template", plant)
    with pytest.raises(UnmodelledError, match=words):
        prove(root)


Failure = Callable[[Path, Violation, Path], bool]


def the_line(service: Path, violation: Violation) -> str:
    """Return the line that a violation names."""
    return (service / violation.path).read_text("utf-8").splitlines()[violation.line - 1]


def import_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether the module of the named line is not there, or does not have the name."""
    found = re.match(r"\s*(?:from ([\w.]+) )?import (\w[\w.]*)", the_line(service, violation))
    assert found
    for module in (f"{found[1]}.{found[2]}", found[1] or found[2]):
        path = service / module.replace(".", "/")
        if path.is_dir():
            return False
        if path.with_suffix(".py").exists():
            return not re.search(rf"\b{found[2]}\b", path.with_suffix(".py").read_text("utf-8"))
    return True


def dependency_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether the package is imported and not declared for where it is, or declared and not imported."""
    project = tomllib.loads((service / "pyproject.toml").read_text("utf-8"))
    name = violation.message.split()[0]
    declared = any(re.match(rf"{name}\b", one) for one in project["project"]["dependencies"])
    texts = [path.read_text("utf-8") for path in (service / "app").rglob("*.py")]
    imported = any(re.search(rf"^(import|from) {name}\b", text, re.MULTILINE) for text in texts)
    return declared != imported


def setting_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether the setting lacks its class, its example or its reader."""
    name = next(word for word in violation.message.split() if word.isupper())
    texts = "\n".join(path.read_text("utf-8") for path in (service / "app").rglob("*.py"))
    declared = f"{name.lower()}:" in texts
    example = f"{name}=" in (service / ".env.example").read_text("utf-8")
    read = f".{name.lower()}" in texts
    return not (declared and example and read)


def module_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether nobody names the thing where modules are put together, beside its import."""
    name = re.sub("no module contributes | is not among.*", "", violation.message)
    where = [service / "app/installed.py"]
    if violation.message.startswith("no module"):
        where += (service / "app").rglob("module.py")
    lines = [line for path in where for line in path.read_text("utf-8").splitlines()]
    users = [line for line in lines if re.search(rf"\b{name}\b", line)]
    return all(re.match(rf"from |import |class |.*load\({name}", line) for line in users)


def table_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether no file, or more than one, has the table."""
    name = violation.message.removeprefix("there is no table ").split()[0]
    tables = [
        path for path in (service / "app").rglob("*.py") if f'__tablename__ = "{name}"' in path.read_text("utf-8")
    ]
    return len(tables) != 1


def route_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether the files of the routes differ from those of the clean template by just this route."""
    if violation.path == "contract.yml":
        method, path = violation.message.split()[:2]
        last = path.rpartition("/")[2]
        texts = "".join(path.read_text("utf-8") for path in (service / "app").rglob("endpoints.py"))
        return f'@router.{method.lower()}("/{last}"' not in texts
    return the_line(service, violation).startswith("@")


def server_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether the pipeline's or the compose file's images are not those of the databases that were chosen."""
    assert violation.example is not None
    if "does not set" in violation.message:
        where, rest = violation.message.split(" does not set ", 1)
        return rest.partition(",")[0] not in (service / where).read_text("utf-8")
    text = (service / violation.path).read_text("utf-8")
    image = violation.message.split()[0]
    started = re.search(rf"(image|name): {image}:", text) is not None
    chosen = {"postgres": "postgresql"}.get(image, image) in violation.example["databases"]
    return started != chosen


def compose_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether a service of the compose file refers to what is not there, or something is there for nobody."""
    whole: dict[str, Any] = yaml.safe_load((service / "compose.yaml").read_text("utf-8"))
    used: dict[str, set[str]] = {"services": set(), "networks": set(), "volumes": set()}
    for one in whole["services"].values():
        used["services"] |= set(one.get("depends_on", []))
        used["networks"] |= set(one.get("networks", []))
        used["volumes"] |= {volume.partition(":")[0] for volume in one.get("volumes", [])}
    kind = violation.message.split()[-1]
    there = set(whole.get(kind) or [])
    return bool(used[kind] - there or (kind != "services" and there - used[kind]))


def ownership_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether the file is there and no other names its module."""
    module = violation.path.removesuffix(".py").replace("/", ".")
    others = [path for path in (service / "app").rglob("*.py") if path != service / violation.path]
    named = any(f"from {module} import" in path.read_text("utf-8") for path in others)
    return (service / violation.path).exists() and not named


def rule_fails(service: Path, violation: Violation, root: Path) -> bool:
    """Return whether Copier refuses the answers."""
    with pytest.raises(ValueError, match="Validation error"):
        copier.run_copy(str(root), service, data=violation.example, defaults=True, quiet=True, skip_tasks=True)
    return True


def preset_fails(service: Path, violation: Violation, root: Path) -> bool:
    """Return whether Copier cannot render the preset, or takes no notice of what it says."""
    assert violation.example is not None
    try:
        worker = copier.run_copy(str(root), service, data=violation.example, defaults=True, quiet=True, skip_tasks=True)
    except Exception:  # noqa: BLE001 - whatever Copier says then
        return True
    said = yaml.safe_load((root / "extensions/presets.yml").read_text("utf-8"))[violation.example["preset"]]
    return any(worker.answers.combined.get(key) != value for key, value in said.items())


def syntax_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether a parser refuses the file."""
    path = service / violation.path
    try:
        if path.suffix == ".py":
            compile(path.read_text("utf-8"), violation.path, "exec")
        elif path.suffix == ".toml":
            tomllib.loads(path.read_text("utf-8"))
        else:
            list(yaml.safe_load_all(path.read_text("utf-8")))
    except (SyntaxError, ValueError, yaml.YAMLError):
        return True
    return False


def ruff_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether ruff finds it in the service itself."""
    command = ["check", "--output-format=json"] if violation.check == "ruff" else ["format", "--check"]
    words = [sys.executable, "-m", "ruff", *command, "--no-cache", "--config", FIRST_PARTY, violation.path]
    done = subprocess.run(words, cwd=service, capture_output=True, text=True, check=False)
    if violation.check == "format":
        return done.returncode == 1
    return violation.line in {item["location"]["row"] for item in json.loads(done.stdout)}


def tool_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether the program refuses the file."""
    for _line, command, content in programs(violation.path, (service / violation.path).read_text("utf-8")):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = os.environ | {"PATH": path}
        if subprocess.run(command, env=env, input=content, text=True, capture_output=True, check=False).returncode:
            return True
    return False


def link_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether the target of the link is not there."""
    found = re.search(r"\]\(([^)]+)\)", the_line(service, violation))
    return found is not None and not (service / found[1]).exists()


def command_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether make knows no such target."""
    words = ["make", "--dry-run", violation.message.split()[-1]]
    return subprocess.run(words, cwd=service, capture_output=True, check=False).returncode != 0


def mention_fails(service: Path, violation: Violation, _: Path) -> bool:
    """Return whether nothing in the service has the name."""
    name = re.sub("there is no (command app|module) | is (no|not) .*", "", violation.message)
    if "/" in name:
        return not (service / name).exists()
    where = [*(service / "app").rglob("*.py"), service / ".env.example"]
    texts = "\n".join(path.read_text("utf-8") for path in where)
    # A setting is a field in lower case; a name of Python is itself.
    flags = re.NOFLAG if "." in name else re.IGNORECASE
    return re.search(rf"\b{name.rpartition('.')[2]}\b", texts, flags) is None


FAILURES: dict[str, Failure] = {
    "import": import_fails,
    "dependency": dependency_fails,
    "setting": setting_fails,
    "module": module_fails,
    "table": table_fails,
    "route": route_fails,
    "server": server_fails,
    "compose": compose_fails,
    "ownership": ownership_fails,
    "rule": rule_fails,
    "preset": preset_fails,
    "syntax": syntax_fails,
    "ruff": ruff_fails,
    "format": ruff_fails,
    "tool": tool_fails,
    "link": link_fails,
    "command": command_fails,
    "mention": mention_fails,
}

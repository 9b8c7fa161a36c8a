"""What holds for all combinations: each check looks at every variant of every file and asks the prover for a way out.

A violation names the file, the line and answers under which `copier copy` shows it.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement
from projection import ANSWERS_FILE, MOST_TEXTS, File, Leaf, Projection
from space import Answers, Prover, data_line

# Packages whose module has another name, and those that are used without an import.
MODULES = {"python-dotenv": "dotenv"}
USED_WITHOUT_IMPORT = {
    "aiosqlite": "SQLAlchemy's driver for SQLite",
    "anyio": "a plugin of pytest",
    "import-linter": "a command",
    "mypy": "a command",
    "pre-commit": "a command",
    "pytest-cov": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "ruff": "a command",
}
# What comes with another declared package, as its documented way in.
COMES_WITH = {"typing_extensions": "pydantic"}


@dataclass(frozen=True)
class Violation:
    """Something that does not hold, and answers under which it does not."""

    check: str
    path: str
    line: int
    message: str
    example: Answers | None

    def __str__(self) -> str:
        """Return one line with all of it."""
        shown = data_line(self.example) if self.example else "any answers"
        return f"{self.path}:{self.line}: {self.check}: {self.message}\n    {shown}"


@dataclass
class Proof:
    """The checks, over one projection."""

    projection: Projection

    @property
    def prover(self) -> Prover:
        """Return the prover."""
        return self.projection.prover

    def texts(self, file: File) -> list[Leaf]:
        """Return every whole text that a file can have, with the conditions for it."""
        found: list[Leaf] = []
        given = [self.prover.literal(file.present)]
        if not self.prover.possible(given):
            return found

        def go_on(number: int, parts: list[str], literals: list[int]) -> None:
            if len(found) > MOST_TEXTS:
                raise OverflowError(f"{file.path} has more than {MOST_TEXTS} texts")
            if number == len(file.pieces):
                found.append(Leaf("".join(parts), tuple(literals)))
                return
            known = set(literals)
            for leaf in file.pieces[number]:
                if any(-literal in known for literal in leaf.literals):
                    continue
                new = [literal for literal in leaf.literals if literal not in known]
                if not new or self.prover.possible([*literals, *new]):
                    go_on(number + 1, [*parts, leaf.text], [*literals, *new])

        if file.content is not None:
            try:
                return [Leaf(file.content.decode(), tuple(given))]
            except UnicodeDecodeError:
                return []
        go_on(0, [], given)
        return found

    @cached_property
    def all_texts(self) -> dict[str, list[Leaf]]:
        """Return the texts of all files, by path."""
        return {file.path: self.texts(file) for file in self.projection.files if file.path != ANSWERS_FILE}

    @cached_property
    def trees(self) -> dict[str, list[tuple[Leaf, ast.Module]]]:
        """Return the syntax trees of the Python files that parse."""
        found: dict[str, list[tuple[Leaf, ast.Module]]] = {}
        for path, leaves in self.all_texts.items():
            for leaf in leaves if path.endswith(".py") else ():
                try:
                    found.setdefault(path, []).append((leaf, ast.parse(leaf.text)))
                except SyntaxError:
                    continue
        return found

    def example(self, leaf: Leaf, *more: int) -> Answers | None:
        """Return answers under which a text is rendered and some more literals hold."""
        return self.prover.example([*leaf.literals, *more])

    def present(self, path: str) -> int | None:
        """Return the literal for a file's being rendered, if there is such a file."""
        for file in self.projection.files:
            if file.path == path:
                return self.prover.literal(file.present)
        return None

    def run(self, scratch: Path) -> list[Violation]:
        """Run all checks. `scratch` is an empty folder for tools that want files."""
        checks = (
            self.syntax(),
            self.imports(),
            self.dependencies(),
            self.settings(),
            self.ownership(),
            self.dead_values(),
        )
        return [
            violation for check in (*checks, self.lint(scratch), self.links(), self.commands()) for violation in check
        ]

    def syntax(self) -> Iterator[Violation]:
        """Every text parses in its language."""
        parsers: dict[str, Any] = {
            ".py": ast.parse,
            ".toml": tomllib.loads,
            ".yml": lambda text: list(yaml.safe_load_all(text)),
            ".yaml": lambda text: list(yaml.safe_load_all(text)),
            ".json": json.loads,
        }
        for path, leaves in self.all_texts.items():
            parse = parsers.get(Path(path).suffix)
            if parse is None:
                continue
            for leaf in leaves:
                try:
                    parse(leaf.text)
                except (SyntaxError, ValueError, yaml.YAMLError) as error:
                    line = (
                        getattr(error, "lineno", None) or getattr(getattr(error, "problem_mark", None), "line", 0) + 1
                    )
                    yield Violation("syntax", path, line, str(error).splitlines()[0], self.example(leaf))

    def lint(self, scratch: Path) -> Iterator[Violation]:
        """Every Python text is formatted, and ruff finds nothing in it."""
        where: dict[str, tuple[str, Leaf]] = {}
        most = max(len(leaves) for path, leaves in self.all_texts.items() if path.endswith(".py"))
        config = self.all_texts["pyproject.toml"][0].text
        for number in range(most):
            root = scratch / str(number)
            for path, leaves in self.all_texts.items():
                # Import sorting asks whether a module is first-party, so every tree is whole.
                if path.endswith(".py"):
                    leaf = leaves[number % len(leaves)]
                    target = root / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(leaf.text, "utf-8")
                    where[str(target.relative_to(scratch))] = (path, leaf)
            (root / "pyproject.toml").write_text(config, "utf-8")
        ruff = [sys.executable, "-m", "ruff"]
        found = subprocess.run(
            [*ruff, "check", "--no-cache", "--output-format=json", "."],
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
        for item in json.loads(found.stdout):
            path, leaf = where[str(Path(item["filename"]).relative_to(scratch.resolve()))]
            yield Violation(
                "ruff", path, item["location"]["row"], f"{item['code']} {item['message']}", self.example(leaf)
            )
        shown = subprocess.run(
            [*ruff, "format", "--no-cache", "--check", "."], cwd=scratch, capture_output=True, text=True, check=False
        )
        for name, line in re.findall(r"^unformatted: .*\n +--> (.+?):(\d+):", shown.stdout, re.MULTILINE):
            path, leaf = where[name]
            yield Violation("format", path, int(line), "ruff would format it in another way", self.example(leaf))

    def module_file(self, module: str) -> tuple[str, bool] | None:
        """Return the file of a module of the service, or its folder (and True), if the skeleton has it."""
        base = module.replace(".", "/")
        paths = self.all_texts.keys()
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if path in paths:
                return path, False
        return (base, True) if any(path.startswith(f"{base}/") for path in paths) else None

    def imports(self) -> Iterator[Violation]:
        """What a file imports from the service is there whenever the file is, and so is every name."""
        for path, variants in self.trees.items():
            for leaf, tree in variants:
                for node in ast.walk(tree):
                    wanted: list[tuple[str, str | None]]
                    if isinstance(node, ast.Import):
                        wanted = [(alias.name, None) for alias in node.names]
                    elif isinstance(node, ast.ImportFrom) and node.module:
                        wanted = [(node.module, alias.name) for alias in node.names]
                    else:
                        continue
                    for module, name in wanted:
                        if module.split(".")[0] in {"app", "tests", "conftest"}:
                            yield from self.one_import(path, leaf, node.lineno, module, name)

    def one_import(self, path: str, leaf: Leaf, line: int, module: str, name: str | None) -> Iterator[Violation]:
        """Check one import of one text."""
        if name and (inner := self.module_file(f"{module}.{name}")) and not inner[1]:
            module, name = f"{module}.{name}", None
        target = self.module_file(module)
        if target is None or target[1]:
            yield Violation("import", path, line, f"there is no module {module}", self.example(leaf))
            return
        there = self.present(target[0])
        if there is not None and (example := self.example(leaf, -there)):
            yield Violation("import", path, line, f"{module} is not rendered", example)
            return
        for other, tree in self.trees.get(target[0], []) if name and name != "*" else ():
            if name not in names_of(tree) and (example := self.example(leaf, *other.literals)):
                yield Violation("import", path, line, f"{module} has no {name}", example)

    def dependencies(self) -> Iterator[Violation]:  # noqa: C901
        """What is imported is declared, and what is declared is used."""
        projects = [(leaf, tomllib.loads(leaf.text)) for leaf in self.all_texts["pyproject.toml"]]
        uses: dict[str, list[tuple[str, int, Leaf]]] = {}
        for path, variants in self.trees.items():
            for leaf, tree in variants:
                for name, line in third_party(tree):
                    uses.setdefault(name, []).append((path, line, leaf))
        for project, found in projects:
            runtime = {Requirement(line).name for line in found["project"]["dependencies"]}
            development = {Requirement(line).name for line in found["dependency-groups"]["dev"]}
            modules = {MODULES.get(name, name.replace("-", "_")): name for name in runtime | development}
            for name, places in uses.items():
                for path, line, leaf in places:
                    known = runtime if path.startswith(("app/", "migrations/")) else runtime | development
                    if modules.get(name) not in known and (example := self.example(project, *leaf.literals)):
                        yield Violation("dependency", path, line, f"{name} is imported and not declared", example)
            for module, name in modules.items():
                if name in USED_WITHOUT_IMPORT:
                    continue
                folders = ("app/", "migrations/") if name in runtime else ("",)
                users = [leaf for path, _, leaf in uses.get(module, []) if path.startswith(folders)]
                if example := self.example(project, *(-self.prover.all_of(leaf.literals) for leaf in users)):
                    yield Violation("dependency", "pyproject.toml", 1, f"{name} is declared and not used", example)

    @cached_property
    def declared(self) -> dict[str, list[tuple[str, int, Leaf]]]:
        """Return where each setting is declared: file, line and text."""
        found: dict[str, list[tuple[str, int, Leaf]]] = {}
        for path, variants in self.trees.items():
            for leaf, tree in variants if path.startswith("app/") else ():
                for name, line in settings_of(tree):
                    found.setdefault(name, []).append((path, line, leaf))
        return found

    def settings(self) -> Iterator[Violation]:
        """What settings classes declare is in `.env.example`, and the other way round; compose sets nothing else."""
        examples = [
            (leaf, {name: number for number, name in numbered(leaf.text, r"^#? ?([A-Z][A-Z0-9_]*)=")})
            for leaf in self.all_texts[".env.example"]
        ]
        for name, places in self.declared.items():
            lacking = [text for text, names in examples if name not in names]
            for (path, line, leaf), text in product(places, lacking):
                if example := self.example(leaf, *text.literals):
                    yield Violation("setting", path, line, f"{name} is not in .env.example", example)
                    break
        composed = [
            (leaf, dict.fromkeys(composed_names(leaf.text), 1)) for leaf in self.all_texts.get("compose.yaml", [])
        ]
        for path, texts in ((".env.example", examples), ("compose.yaml", composed)):
            for text, names in texts:
                for name, number in names.items():
                    if found := self.undeclared(text, self.declared.get(name, [])):
                        yield Violation("setting", path, number, f"{name} is no setting", found)

    def undeclared(self, text: Leaf, places: list[tuple[str, int, Leaf]]) -> Answers | None:
        """Return answers under which a text is rendered and none of the places that declare what it names."""
        return self.example(text, *(-self.prover.all_of(leaf.literals) for _, _, leaf in places))

    def ownership(self) -> Iterator[Violation]:
        """Every path in `owns` exists and is owned once."""
        space = self.projection.space
        owner: dict[str, str] = {}
        for module in space.modules.values():
            for row in module.owns:
                paths = [
                    file.path
                    for file in self.projection.files
                    if f"/{file.path}" == row or f"/{file.path}".startswith(f"{row}/")
                ]
                if not row.startswith("/") or row.endswith("/") or not paths:
                    yield Violation(
                        "ownership", "extensions/modules.yml", 1, f"{module.name} owns {row}, which is not there", None
                    )
                for path in paths:
                    if path in owner:
                        yield Violation(
                            "ownership",
                            "extensions/modules.yml",
                            1,
                            f"{path} is owned by {owner[path]} and {module.name}",
                            None,
                        )
                    owner[path] = module.name

    def dead_values(self) -> Iterator[Violation]:
        """Every value of every question changes what is rendered."""
        matters: set[int] = set()
        for file in self.projection.files:
            if len(self.texts_or_none(file)) > 1:
                matters |= {
                    abs(literal)
                    for piece in file.pieces
                    if len({leaf.text for leaf in piece}) > 1
                    for leaf in piece
                    for literal in leaf.literals
                }
            matters.add(abs(self.prover.literal(file.present)))
        for question in self.projection.space.questions.values():
            if question.name in {"preset", "customize"}:
                continue  # They only move what is asked, and the defaults.
            for variable in question.variables():
                if not any(self.prover.depends(literal, variable) for literal in matters):
                    yield Violation(
                        "dead value", "copier.yml", 1, f"{question.name}: {variable.value} changes nothing", None
                    )

    def texts_or_none(self, file: File) -> Sequence[Leaf]:
        """Return the texts of a file that has pieces."""
        return self.all_texts.get(file.path, []) if file.pieces else []

    def links(self) -> Iterator[Violation]:
        """Every relative link of a document leads to a file that is there."""
        for path, leaves in self.all_texts.items():
            for leaf in leaves if path.endswith(".md") else ():
                for number, line in enumerate(leaf.text.splitlines(), 1):
                    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", line):
                        target = (Path(path).parent / link).as_posix()
                        there = self.present(target)
                        if there is None:
                            yield Violation("link", path, number, f"{link} is not there", self.example(leaf))
                        elif example := self.example(leaf, -there):
                            yield Violation("link", path, number, f"{link} is not rendered", example)

    def commands(self) -> Iterator[Violation]:
        """Every `make target` that a document names is one of the Makefile's."""
        makefiles = [
            (leaf, set(re.findall(r"^([a-z-]+):", leaf.text, re.MULTILINE))) for leaf in self.all_texts["Makefile"]
        ]
        for path, leaves in self.all_texts.items():
            for leaf in leaves if path.endswith((".md", ".yml", ".yaml")) else ():
                for number, line in enumerate(leaf.text.splitlines(), 1):
                    for target in re.findall(r"(?:`|run: |^)make ([a-z-]+)", line):
                        for makefile, targets in makefiles:
                            if target not in targets and (example := self.example(leaf, *makefile.literals)):
                                yield Violation("command", path, number, f"the Makefile has no {target}", example)
                                break


def numbered(text: str, pattern: str) -> Iterator[tuple[int, str]]:
    """Yield what a pattern finds in the lines of a text, with their numbers."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(pattern, line):
            yield number, found[1]


def composed_names(text: str) -> list[str]:
    """Return the environment variables that compose sets for the service; none of what does not parse."""
    try:
        return list(yaml.safe_load(text)["x-app"]["environment"])
    except (yaml.YAMLError, KeyError, TypeError):
        return []


def settings_of(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the environment variables that the settings classes of a file read, with their lines."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(base, ast.Name) and base.id == "ModuleSettings" for base in node.bases
        ):
            for item in node.body:
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                    yield item.target.id.upper(), item.lineno


def names_of(tree: ast.Module) -> set[str]:
    """Return the names that a module defines or imports at its top, also under conditions."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    return found


def third_party(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the top-level modules that a file imports from elsewhere, with their lines."""
    ours = {"app", "tests", "conftest", *sys.stdlib_module_names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            if top not in ours:
                yield top, node.lineno

"""What holds for all combinations: each check gathers what is used and what is there, and asks the prover for a gap.

A violation names the file, the line and answers under which `copier copy` shows it.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from facts import Fact, facts
from projection import ANSWERS_FILE, Projection
from space import Answers, Prover, data_line
from texts import Text, Texts

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
# isort asks the tree which modules are ours; these texts are checked without it.
FIRST_PARTY = 'lint.isort.known-first-party = ["app", "conftest", "migrations", "tests"]'
# What ruff has found clean in this process, by its settings: a planted fault leaves most texts as they were.
CLEAN: set[tuple[str, str, str]] = set()


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


@dataclass(frozen=True)
class Place:
    """A fact, where it stands, and when."""

    fact: Fact
    path: str
    literals: tuple[int, ...]


@dataclass
class Proof:
    """The checks, over one projection."""

    projection: Projection

    @property
    def prover(self) -> Prover:
        """Return the prover."""
        return self.projection.prover

    @cached_property
    def texts(self) -> dict[str, list[Text]]:
        """Return the whole texts of all files that are looked at, by path."""
        files = (file for file in self.projection.files if file.path != ANSWERS_FILE)
        return {file.path: list(Texts(file, self.prover)) for file in files}

    @cached_property
    def places(self) -> dict[str, list[Place]]:
        """Return everything that all texts say, by kind; once for each condition under which it is said."""
        found: dict[str, dict[tuple[str, str, str, frozenset[int]], Place]] = defaultdict(dict)
        for path, texts in self.texts.items():
            for text in texts:
                for fact in facts(path, text.text):
                    literals = text.when(fact.line, fact.last)
                    key = (path, fact.name, fact.of, frozenset(literals))
                    found[fact.kind].setdefault(key, Place(fact, path, literals))
        return {kind: list(places.values()) for kind, places in found.items()}

    def said(self, kind: str, where: str = "") -> list[Place]:
        """Return what is said of one kind, in the files whose paths begin in some way."""
        return [place for place in self.places.get(kind, []) if place.path.startswith(where)]

    def named(self, kind: str, where: str = "") -> dict[str, list[Place]]:
        """Return what is said of one kind, by name."""
        found: dict[str, list[Place]] = defaultdict(list)
        for place in self.said(kind, where):
            found[place.fact.name].append(place)
        return found

    def gap(self, place: Place, *ways: Iterable[int]) -> Answers | None:
        """Return answers under which something is said and none of the ways to make it right is there."""
        return self.prover.example([*place.literals, *(-self.prover.all_of(way) for way in ways)])

    def unless(self, check: str, place: Place, message: str, ways: Iterable[Iterable[int]]) -> Iterator[Violation]:
        """Yield a violation if there are answers under which none of the ways is there."""
        if example := self.gap(place, *ways):
            yield Violation(check, place.path, place.fact.line, message, example)

    def present(self, path: str) -> int | None:
        """Return the literal for a file's being rendered, if there is such a file."""
        return self.presences.get(path)

    @cached_property
    def presences(self) -> dict[str, int]:
        """Return the literals for files' being rendered."""
        return {file.path: self.prover.literal(file.present) for file in self.projection.files}

    def run(self, scratch: Path) -> list[Violation]:
        """Run all checks. `scratch` is an empty folder for tools that want files."""
        checks = (
            self.syntax(),
            self.imports(),
            self.dependencies(),
            self.settings(),
            self.compose(),
            self.ownership(),
            self.dead_values(),
            self.lint(scratch),
            self.links(),
            self.commands(),
        )
        return [violation for check in checks for violation in check]

    def syntax(self) -> Iterator[Violation]:
        """Every text parses in its language."""
        parsers: dict[str, Any] = {
            ".py": ast.parse,
            ".toml": tomllib.loads,
            ".yml": lambda text: list(yaml.safe_load_all(text)),
            ".yaml": lambda text: list(yaml.safe_load_all(text)),
            ".json": json.loads,
        }
        for path, texts in self.texts.items():
            parse = parsers.get(Path(path).suffix, str)
            for text in texts:
                try:
                    parse(text.text)
                except (SyntaxError, ValueError, yaml.YAMLError) as error:
                    marked = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
                    line = getattr(error, "lineno", None) or marked
                    yield Violation("syntax", path, line, str(error).splitlines()[0], self.whole(text))

    def whole(self, text: Text) -> Answers | None:
        """Return answers under which a whole text is rendered."""
        return self.prover.example(text.literals)

    def lint(self, scratch: Path) -> Iterator[Violation]:
        """Every Python text is formatted, and ruff finds nothing in it."""
        config = self.texts["pyproject.toml"][0].text
        where: dict[str, Text] = {}
        for path, texts in self.texts.items():
            for number, text in enumerate(texts if path.endswith(".py") else ()):
                if (config, path, text.text) not in CLEAN:
                    target = scratch / str(number) / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(text.text, "utf-8")
                    (scratch / str(number) / "pyproject.toml").write_text(config, "utf-8")
                    where[target.relative_to(scratch).as_posix()] = text
        if not where:
            return
        options = ["--no-cache", "--config", FIRST_PARTY]
        unclean = set()
        found = ruff(scratch, "check", *options, "--output-format=json")
        for item in json.loads(found):
            text = where[Path(item["filename"]).relative_to(scratch.resolve()).as_posix()]
            unclean.add(text)
            message = f"{item['code']} {item['message']}"
            yield Violation("ruff", text.path, item["location"]["row"], message, self.whole(text))
        shown = ruff(scratch, "format", *options, "--check")
        for name, line in re.findall(r"^unformatted: .*\n +--> (.+?):(\d+):", shown, re.MULTILINE):
            text = where[name]
            unclean.add(text)
            yield Violation("format", text.path, int(line), "ruff would format it in another way", self.whole(text))
        CLEAN.update((config, text.path, text.text) for text in where.values() if text not in unclean)

    def module_file(self, module: str) -> str | None:
        """Return the file of a module of the service, or its folder, which ends with a slash, if there is one."""
        base = module.replace(".", "/")
        for path in (f"{base}.py", f"{base}/__init__.py"):
            if path in self.presences:
                return path
        return f"{base}/" if any(path.startswith(f"{base}/") for path in self.presences) else None

    def imports(self) -> Iterator[Violation]:
        """What a file imports from the service is there whenever the file is, and so is every name."""
        defined: dict[tuple[str, str], list[Place]] = defaultdict(list)
        for place in self.said("define"):
            defined[place.path, place.fact.name].append(place)
        for place in self.said("import"):
            module, name = place.fact.name, place.fact.of
            if name and (inner := self.module_file(f"{module}.{name}")) and not inner.endswith("/"):
                module, name = f"{module}.{name}", ""
            target = self.module_file(module)
            if target is None or target.endswith("/"):
                yield Violation("import", place.path, place.fact.line, f"there is no module {module}", self.gap(place))
            elif example := self.gap(place, [self.presences[target]]):
                yield Violation("import", place.path, place.fact.line, f"{module} is not rendered", example)
            elif name and name != "*":
                ways = [there.literals for there in defined[target, name]]
                yield from self.unless("import", place, f"{module} has no {name}", ways)

    def dependencies(self) -> Iterator[Violation]:
        """What is imported is declared, and what is declared is used."""
        declared: dict[str, dict[str, list[Place]]] = {}
        for kind in ("runtime", "development"):
            declared[kind] = defaultdict(list)
            for place in self.said(kind):
                module = MODULES.get(place.fact.name, place.fact.name.replace("-", "_"))
                declared[kind][module].append(place)
        for place in self.said("package"):
            known = list(declared["runtime"][place.fact.name])
            if not place.path.startswith(("app/", "migrations/")):
                known += declared["development"][place.fact.name]
            message = f"{place.fact.name} is imported and not declared"
            yield from self.unless("dependency", place, message, [one.literals for one in known])
        imported = self.named("package")
        for kind, folders in (("runtime", ("app/", "migrations/")), ("development", ("",))):
            for module, places in declared[kind].items():
                for place in (one for one in places if one.fact.name not in USED_WITHOUT_IMPORT):
                    users = [one.literals for one in imported[module] if one.path.startswith(folders)]
                    yield from self.unless("dependency", place, f"{place.fact.name} is declared and not used", users)

    def settings(self) -> Iterator[Violation]:
        """Settings are declared, in `.env.example`, read by somebody, and contributed by what is installed."""
        declared, examples = self.named("setting", "app/"), self.named("example")
        read = self.named("attribute", "app/")
        for name, places in declared.items():
            for place in places:
                ways = [one.literals for one in examples[name]]
                yield from self.unless("setting", place, f"{name} is not in .env.example", ways)
                users = [one.literals for one in read[place.fact.of]]
                yield from self.unless("setting", place, f"nobody reads {name}", users)
        for kind, where in (("example", ".env.example"), ("composed", "compose.yaml")):
            for place in self.said(kind, where):
                ways = [one.literals for one in declared[place.fact.name]]
                yield from self.unless("setting", place, f"{place.fact.name} is no setting", ways)
        for place in self.said("environment", "app/"):
            ways = [one.literals for one in declared[place.fact.name]]
            yield from self.unless("setting", place, f"{place.fact.name} is read past the settings", ways)

    def compose(self) -> Iterator[Violation]:
        """What a service of the compose file needs is defined there, and what is defined is needed."""
        for kind in ("services", "networks", "volumes"):
            there, needed = self.named(f"compose {kind}"), self.named(f"compose needs {kind}")
            for name, places in needed.items():
                for place in places:
                    ways = [one.literals for one in there[name]]
                    yield from self.unless("compose", place, f"{name} is not among the {kind}", ways)
            for name, places in there.items() if kind != "services" else ():
                for place in places:
                    ways = [one.literals for one in needed[name]]
                    yield from self.unless("compose", place, f"nothing uses {name} of the {kind}", ways)

    def ownership(self) -> Iterator[Violation]:
        """Every path in `owns` exists and is owned once."""
        manifest = "extensions/modules.yml"
        rows = (self.projection.space.root / manifest).read_text("utf-8").splitlines()
        owner: dict[str, str] = {}
        for module in self.projection.space.modules.values():
            begin = next(number for number, text in enumerate(rows, 1) if text.startswith(f"{module.name}:"))
            for row in module.owns:
                line = next((at for at, text in enumerate(rows[begin - 1 :], begin) if row in text), begin)
                paths = [path for path in self.presences if f"/{path}" == row or f"/{path}".startswith(f"{row}/")]
                if not row.startswith("/") or row.endswith("/") or not paths:
                    message = f"{module.name} owns {row}, which is not there"
                    yield Violation("ownership", manifest, line, message, None)
                for path in paths:
                    if path in owner:
                        message = f"{path} is owned by {owner[path]} and {module.name}"
                        yield Violation("ownership", manifest, line, message, None)
                    owner[path] = module.name

    def dead_values(self) -> Iterator[Violation]:
        """Every value of every question changes what is rendered."""
        matters = {abs(literal) for literal in self.presences.values()}
        for file in self.projection.files:
            for piece in file.pieces:
                if len({leaf.text for leaf in piece}) > 1:
                    matters |= {abs(literal) for leaf in piece for literal in leaf.literals}
        entries = (self.projection.space.root / "copier.yml").read_text("utf-8").splitlines()
        for question in self.projection.space.questions.values():
            if question.name in {"preset", "customize"}:
                continue  # They only move what is asked, and the defaults.
            line = next(number for number, text in enumerate(entries, 1) if text.startswith(f"{question.name}:"))
            for variable in question.variables():
                if not any(self.prover.depends(literal, variable) for literal in matters):
                    message = f"{question.name}: {variable.value} changes nothing"
                    yield Violation("dead value", "copier.yml", line, message, None)

    def links(self) -> Iterator[Violation]:
        """Every relative link of a document leads to a file that is there."""
        for place in self.said("link"):
            target = (Path(place.path).parent / place.fact.name).as_posix()
            there = self.present(target)
            message = f"{place.fact.name} is not {'there' if there is None else 'rendered'}"
            yield from self.unless("link", place, message, [] if there is None else [[there]])

    def commands(self) -> Iterator[Violation]:
        """Every `make target` that a document or a pipeline names is one of the Makefile's."""
        targets = self.named("target", "Makefile")
        for place in self.said("make"):
            ways = [one.literals for one in targets[place.fact.name]]
            yield from self.unless("command", place, f"the Makefile has no {place.fact.name}", ways)


def ruff(folder: Path, *command: str) -> str:
    """Run ruff over a folder and return what it prints."""
    words = [sys.executable, "-m", "ruff", *command, "."]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False).stdout

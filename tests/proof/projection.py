"""The projection: every file of the skeleton, rendered once for each way in which the answers can matter to it.

A file is cut where its template's top-level nodes meet, so that a seam with many independent lines costs the sum of
their variants and not the product. Each piece is rendered in Copier's own environment with answers that note what is
read of them; whatever is noted is then tried the other way, as far as the space allows. So a piece's variants are the
leaves of a decision tree over just what it reads, and each leaf is the condition under which its text is rendered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from jinja2 import nodes
from jinja2.runtime import Context
from space import And, Formula, Prover, Space, UnmodelledError, Var

SUFFIX = ".jinja"
ANSWERS_FILE = ".copier-answers.yml"
# How many whole texts of one file are looked at; a file with more is looked at piece by piece, and in pairs of pieces.
MOST_TEXTS = 20_000


@dataclass(frozen=True)
class Leaf:
    """A text, and the literals of the conditions under which it is rendered."""

    text: str
    literals: tuple[int, ...]


@dataclass
class File:
    """A file of the skeleton: where it is rendered to, when, and the variants of its pieces."""

    path: str
    source: Path
    present: Formula
    pieces: list[list[Leaf]] = field(default_factory=list)
    content: bytes | None = None

    def variants(self) -> int:
        """Return how many texts were rendered for it."""
        return sum(len(piece) for piece in self.pieces)


class Run:
    """One rendering: the choices that were made beforehand, and those that had to be made on the way."""

    def __init__(self, prover: Prover, chosen: Sequence[tuple[Formula, bool]], given: Sequence[int]) -> None:
        self.prover = prover
        self.chosen = list(chosen)
        self.given = list(given)
        self.known = dict(chosen)

    def literals(self) -> list[int]:
        """Return all that holds so far."""
        return [*self.given, *(self.literal(what, holds=holds) for what, holds in self.chosen)]

    def literal(self, what: Formula, *, holds: bool) -> int:
        """Return the literal of a condition or of its opposite."""
        return self.prover.literal(what) if holds else -self.prover.literal(what)

    def holds(self, what: Formula) -> bool:
        """Choose whether a condition holds, as far as that is still open, and note it."""
        if what not in self.known:
            self.known[what] = self.prover.possible([*self.literals(), self.prover.literal(what)])
            self.chosen.append((what, self.known[what]))
        return self.known[what]


class Many(Sequence[str]):
    """The answer to a question with many values. Looking at it notes the values that are looked at."""

    def __init__(self, run: Run, question: str, values: Sequence[str]) -> None:
        self._run, self._question, self._values = run, question, values

    def _found(self) -> list[str]:
        return [value for value in self._values if self._run.holds(Var(self._question, value))]

    def __contains__(self, value: object) -> bool:
        return value in self._values and self._run.holds(Var(self._question, str(value)))

    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())

    def __getitem__(self, index: Any) -> Any:
        return self._found()[index]


class Row(Mapping[str, Any]):
    """A row of the manifest. Looking at whether it is selected notes it."""

    def __init__(self, run: Run, space: Space, name: str) -> None:
        self._run, self._space, self._name = run, space, name

    def __getitem__(self, key: str) -> Any:
        module = self._space.modules[self._name]
        if key == "selected":
            return self._run.holds(self._space.selected(self._name))
        return {"owns": list(module.owns), "needs": list(module.needs)}[key]

    def __iter__(self) -> Iterator[str]:
        return iter(("selected", "owns", "needs"))

    def __len__(self) -> int:
        return 3


class Tracing(Context):
    """A Jinja context that gives closed questions and the manifest as things that note what is read of them."""

    def resolve_or_missing(self, key: str) -> Any:
        """Look a name up."""
        state: Any = self.environment.globals.get("_proof")
        if state is None or key in self.vars:
            return super().resolve_or_missing(key)
        run, space = state
        if question := space.questions.get(key):
            if question.kind == "many":
                return Many(run, key, question.values)
            if question.kind == "bool":
                return run.holds(Var(key, "true"))
            return next(value for value in question.values if run.holds(Var(key, value)))
        if key == "modules":
            return {name: Row(run, space, name) for name in space.modules}
        if key.startswith("_copier") or key == "_external_data":
            raise UnmodelledError(f"{key} is read, which is no answer")
        return super().resolve_or_missing(key)


class Projection:
    """All files of the skeleton, with all of their variants."""

    def __init__(self, space: Space, prover: Prover) -> None:
        self.space, self.prover = space, prover
        self.renders = 0
        self.files: list[File] = []
        root = space.root / "template"
        self.constants = self.open_answers() | self.hidden_constants()
        for source in sorted(path for path in root.rglob("*") if path.is_file()):
            relative = source.relative_to(root).as_posix()
            if "__pycache__" in relative or "_cache/" in relative:
                continue
            self.files.append(self.project(source, relative))

    def open_answers(self) -> dict[str, Any]:
        """Return the defaults of the open questions: what is written into files, and decides nothing."""
        return {
            "project_name": "My Service",
            "project_slug": "my-service",
            "project_description": "A FastAPI service.",
            "author_name": "My Service authors",
            "author_email": "my-service@example.com",
        }

    def hidden_constants(self) -> dict[str, Any]:
        """Return the hidden questions that are the same for all answers."""
        found = {}
        for key in self.space.hidden:
            if key in {"modules", "presets", "taken_names"}:
                continue
            path = self.space.root / "extensions" / f"{key}.yml"
            found[key] = yaml.safe_load(path.read_text("utf-8"))
        return found

    def project(self, source: Path, relative: str) -> File:
        """Render all variants of a file."""
        path = relative.removesuffix(SUFFIX)
        present = self.present(path)
        if "{{" in path:
            # The answers file: Copier writes it from the answers, and it holds nothing else.
            return File(ANSWERS_FILE, source, present)
        file = File(path, source, present)
        given = [self.prover.literal(present)]
        if not relative.endswith(SUFFIX):
            file.content = source.read_bytes()
            return file
        for piece in pieces(self.space.environment.parse(source.read_text("utf-8"))):
            try:
                file.pieces.append(list(self.leaves(piece, given)))
            except UnmodelledError as error:
                raise UnmodelledError(f"{relative}: {error}") from None
        return file

    def present(self, path: str) -> Formula:
        """Return when a path is rendered: when every module that owns it is selected."""
        owners = [name for name, module in self.space.modules.items() if any(owns(row, path) for row in module.owns)]
        return And(tuple(self.space.selected(name) for name in owners))

    def leaves(self, piece: nodes.Template, given: Sequence[int]) -> Iterator[Leaf]:
        """Render a piece for every way in which the answers can matter to it."""
        environment = self.space.environment
        environment.context_class = Tracing
        template = environment.from_string(piece)
        left: list[list[tuple[Formula, bool]]] = [[]]
        while left:
            prefix = left.pop()
            run = Run(self.prover, prefix, given)
            environment.globals["_proof"] = (run, self.space)
            try:
                text = template.render(self.constants)
            finally:
                del environment.globals["_proof"]
            self.renders += 1
            yield Leaf(text, tuple(run.literals()[len(given) :]))
            for number in range(len(prefix), len(run.chosen)):
                before, (what, holds) = run.chosen[:number], run.chosen[number]
                literals = [*given, *(run.literal(*step[:1], holds=step[1]) for step in before)]
                if self.prover.possible([*literals, run.literal(what, holds=not holds)]):
                    left.append([*before, (what, not holds)])

    def tree(self, literals: Sequence[int]) -> dict[str, bytes]:
        """Return the files of one combination, which the literals settle; without the answers file."""
        found = {}
        true = set(literals)
        for file in self.files:
            if file.path != ANSWERS_FILE and self.prover.literal(file.present) in true:
                found[file.path] = file.content if file.content is not None else self.text(file, true).encode()
        return found

    def text(self, file: File, true: set[int]) -> str:
        """Return the text of a file where these literals hold."""
        return "".join(next(leaf.text for leaf in piece if true.issuperset(leaf.literals)) for piece in file.pieces)


def owns(row: str, path: str) -> bool:
    """Return whether a path is the one of a row of `owns`, or below it."""
    anchored = row.lstrip("/").rstrip("/")
    return path == anchored or path.startswith(f"{anchored}/")


def pieces(template: nodes.Template) -> Iterator[nodes.Template]:
    """Cut a template where its top-level nodes meet; what it imports and sets goes into every piece that follows."""
    shared: list[nodes.Node] = []
    for node in template.body:
        if isinstance(node, (nodes.Assign, nodes.AssignBlock, nodes.FromImport, nodes.Import, nodes.Macro)):
            shared.append(node)
        elif isinstance(node, nodes.Output):
            for part in node.nodes:
                yield nodes.Template([*shared, nodes.Output([part], lineno=node.lineno)], lineno=1)
        elif any(node.find_all((nodes.NSRef, nodes.Assign))) and not any(node.find_all(nodes.Output)):
            shared.append(node)
        else:
            yield nodes.Template([*shared, node], lineno=1)

"""The projection: every file of the skeleton, rendered once for each way in which the answers can matter to it.

A file is cut where its template's nodes meet, inside conditions and loops too, so that a seam with many independent
lines costs the sum of their variants and not the product. Each piece is rendered in Copier's own environment with
answers that note what is read of them; whatever is noted is then tried the other way, as far as the space allows. So a
piece's variants are the leaves of a decision tree over just what it reads, and each leaf is the condition under which
its text is rendered. Pieces that share a line are joined again: every piece is some whole lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any

import yaml
from jinja2 import nodes
from jinja2.runtime import Context
from space import And, Formula, Prover, Space, UnmodelledError, Var

SUFFIX = ".jinja"
ANSWERS_FILE = ".copier-answers.yml"
# How many variants the pieces of one line may have together before they stay apart.
MOST_VARIANTS = 8


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
    """All files of the skeleton, with all of their variants.

    `known` is a projection into the same space: what it knows of a file that has not changed is taken from it.
    """

    def __init__(self, space: Space, prover: Prover, known: Projection | None = None) -> None:
        self.space, self.prover = space, prover
        self.renders = 0
        self.files: list[File] = []
        self.kept: set[str] = set()
        before = {file.source.relative_to(known.space.root): file for file in known.files} if known else {}
        root = space.root / "template"
        self.constants = self.open_answers() | self.hidden_constants()
        for source in sorted(path for path in root.rglob("*") if path.is_file()):
            relative = source.relative_to(root).as_posix()
            if "__pycache__" in relative or "_cache/" in relative:
                continue
            file = before.get(source.relative_to(space.root))
            if file and file.source.read_bytes() == source.read_bytes():
                self.kept.add(file.path)
                self.files.append(replace(file, source=source))
            else:
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
        try:
            cut = Cut(self, given).pieces(self.space.environment.parse(source.read_text("utf-8")))
            file.pieces = self.whole_lines([self.variants(self.leaves(piece, given)) for piece in cut], given)
        except UnmodelledError as error:
            raise UnmodelledError(f"{relative}: {error}") from None
        return file

    def variants(self, leaves: Iterable[Leaf]) -> list[Leaf]:
        """Return leaves with different texts: what gives the same text is one, under any of its conditions."""
        found: dict[str, list[Leaf]] = {}
        for leaf in leaves:
            found.setdefault(leaf.text, []).append(leaf)
        return [
            same[0] if len(same) == 1 else Leaf(text, (self.prover.any_of(leaf.literals for leaf in same),))
            for text, same in found.items()
        ]

    def whole_lines(self, cut: Sequence[list[Leaf]], given: Sequence[int]) -> list[list[Leaf]]:
        """Join the pieces that share a line, unless they would have too many variants together."""
        found: list[list[Leaf]] = []
        line: list[list[Leaf]] = []
        for piece in chain.from_iterable(map(split, cut)):
            line.append(piece)
            if self.ends(line):
                found += self.joined(line, given)
                line = []
        found += self.joined(line, given)
        return [piece for piece in found if any(leaf.text for leaf in piece)]

    def ends(self, line: Sequence[list[Leaf]]) -> bool:
        """Return whether pieces end a line, whichever of the last ones say nothing."""
        for piece in reversed(line):
            if not all(leaf.text == "" or leaf.text.endswith("\n") for leaf in piece):
                return False
            if all(leaf.text for leaf in piece):
                return True
        return True

    def joined(self, line: Sequence[list[Leaf]], given: Sequence[int]) -> list[list[Leaf]]:
        """Return the pieces of a line as one, or as they are when they have too many variants together."""
        if prod(map(len, line)) > MOST_VARIANTS:
            return list(line)
        found = [Leaf("", ())]
        for piece in line:
            found = [
                Leaf(left.text + right.text, tuple(dict.fromkeys(left.literals + right.literals)))
                for left in found
                for right in piece
                if self.prover.possible([*given, *left.literals, *right.literals])
            ]
        return [self.variants(found)]

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


def split(piece: list[Leaf]) -> Iterator[list[Leaf]]:
    """Split a piece with one text after its first and its last line end, so that few lines are joined to others."""
    if len(piece) > 1 or "\n" not in piece[0].text:
        yield piece
        return
    first, last = (find("\n") + 1 for find in (piece[0].text.find, piece[0].text.rfind))
    for start, end in ((0, first), (first, last), (last, None)):
        if text := piece[0].text[start:end]:
            yield [Leaf(text, piece[0].literals)]


class Cut:
    """Cuts a template into the smallest pieces whose texts, one after the other, are its text."""

    SETS = (nodes.Assign, nodes.AssignBlock, nodes.FromImport, nodes.Import, nodes.Macro)

    def __init__(self, projection: Projection, given: Sequence[int]) -> None:
        self.projection, self.given = projection, given
        self.shared: list[nodes.Node] = []

    def pieces(self, template: nodes.Template) -> Iterator[nodes.Template]:
        """Yield the pieces; what the template imports and sets goes into the pieces after it that use it."""
        for node in template.body:
            sets = any(node.find_all((*self.SETS, nodes.NSRef)))
            if isinstance(node, self.SETS) or (sets and not any(node.find_all(nodes.Output))):
                self.shared.append(node)
            else:
                for part in [node] if sets else self.cut(node):
                    yield self.with_sets(part)

    def with_sets(self, part: nodes.Node) -> nodes.Template:
        """Make a template of a part and of what it uses of the things that are set before it, directly or not."""
        body, needed = [part], uses(part)
        for node in reversed(self.shared):
            if needed & sets_names(node):
                body.insert(0, node)
                needed |= uses(node)
        return nodes.Template(body, lineno=1)

    def cut(self, node: nodes.Node) -> Iterator[nodes.Node]:
        """Cut one node; what it would not be the same without stays around each part."""
        if isinstance(node, nodes.Output):
            for part in node.nodes:
                yield nodes.Output([part], lineno=node.lineno)
        elif isinstance(node, nodes.If):
            tests: list[nodes.Node] = [node.test, *(other.test for other in node.elif_)]
            for number, body in enumerate([node.body, *(other.body for other in node.elif_), node.else_]):
                for inner in chain.from_iterable(map(self.cut, body)):
                    yield branch(tests, number, inner)
        elif isinstance(node, nodes.For) and not node.else_ and not node.recursive and (count := self.rounds(node)):
            rounds = nodes.Filter(node.iter, "list", [], [], None, None, lineno=node.lineno)
            for number in range(count):
                one = nodes.Slice(nodes.Const(number), nodes.Const(number + 1), None)
                only = nodes.Getitem(rounds, one, "load", lineno=node.lineno)
                yield nodes.For(node.target, only, node.body, [], node.test, False, lineno=node.lineno)  # noqa: FBT003
        else:
            yield node

    def rounds(self, node: nodes.For) -> int:
        """Return how often a loop goes round, before its condition; 0 when that depends on the answers."""
        if any(name.name == "loop" for name in node.find_all(nodes.Name) if name.ctx == "load"):
            inner = {name for loop in node.find_all(nodes.For) for name in loop.find_all(nodes.Name)}
            if any(name.name == "loop" and name not in inner for name in node.find_all(nodes.Name)):
                return 0
        letter = nodes.Output([nodes.TemplateData("x")])
        count = nodes.For(nodes.Name("_", "store"), node.iter, [letter], [], None, False, lineno=node.lineno)  # noqa: FBT003
        texts = list(self.projection.leaves(self.with_sets(count), self.given))
        return len(texts[0].text) if len(texts) == 1 else 0


def uses(node: nodes.Node) -> set[str]:
    """Return the names that a node reads, and the namespaces that it changes."""
    read = {name.name for name in node.find_all(nodes.Name) if name.ctx == "load"}
    return read | {name.name for name in node.find_all(nodes.NSRef)}


def sets_names(node: nodes.Node) -> set[str]:
    """Return the names that a node sets, imports or defines, and the namespaces that it changes."""
    found = {name.name for name in node.find_all(nodes.Name) if name.ctx != "load"}
    found |= {name.name for name in node.find_all(nodes.NSRef)}
    if isinstance(node, nodes.Macro):
        found = {node.name}
    if isinstance(node, nodes.FromImport):
        found |= {name if isinstance(name, str) else name[1] for name in node.names}
    return found | ({node.target} if isinstance(node, nodes.Import) else set())


def branch(tests: Sequence[nodes.Node], number: int, part: nodes.Node) -> nodes.If:
    """Return a condition with the same branches, of which only one has a body."""
    bodies = [[part] if at == number else [] for at in range(len(tests) + 1)]
    elifs: list[nodes.If] = [
        nodes.If(test, body, [], [], lineno=test.lineno)
        for test, body in zip(tests[1 : number + 1], bodies[1:], strict=False)
    ]
    return nodes.If(tests[0], bodies[0], elifs, bodies[-1], lineno=tests[0].lineno)

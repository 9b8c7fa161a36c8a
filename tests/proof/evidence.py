"""What all texts of a template say, and when: the ground that the checks stand on.

A check gathers what is used and what is there, and asks the prover for answers under which the one lacks the other.
A violation names the file, the line and those answers as they are typed for `copier copy`.
"""

from __future__ import annotations

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

CONTRACT = Path(__file__).with_name("contract.yml")


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
    quote: str = ""


@dataclass
class Proof:
    """One projection with all that its texts say, some of which another proof in the same space may know."""

    projection: Projection
    contract_file: Path = CONTRACT
    known: Proof | None = None

    @cached_property
    def contract(self) -> dict[str, Any]:
        """Return what the template is held to."""
        found: dict[str, Any] = yaml.safe_load(self.contract_file.read_text("utf-8"))
        return found

    @property
    def prover(self) -> Prover:
        """Return the prover."""
        return self.projection.prover

    @cached_property
    def texts(self) -> dict[str, list[Text]]:
        """Return the whole texts of all files that are looked at, by path."""
        files = (file for file in self.projection.files if file.path != ANSWERS_FILE)
        known = {path: self.known.texts[path] for path in self.projection.kept - {ANSWERS_FILE}} if self.known else {}
        return {file.path: known.get(file.path) or list(Texts(file, self.prover)) for file in files}

    @cached_property
    def places(self) -> dict[str, list[Place]]:
        """Return everything that all texts say, by kind; once for each condition under which it is said."""
        found: dict[str, dict[tuple[str, str, str, frozenset[int]], Place]] = defaultdict(dict)
        for path, texts in self.texts.items():
            for text in texts:
                lines = text.text.splitlines()
                for fact in facts(path, text.text):
                    literals = text.when(fact.line, fact.last)
                    key = (path, fact.name, fact.of, frozenset(literals))
                    found[fact.kind].setdefault(key, Place(fact, path, literals, lines[fact.line - 1]))
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
            yield self.violation(check, place, message, example)

    def violation(self, check: str, place: Place, message: str, example: Answers | None) -> Violation:
        """Return a violation with the line on which it stands in what the example renders."""
        line = place.fact.line
        file = next(file for file in self.projection.files if file.path == place.path)
        if example and file.content is None:
            text = self.projection.text(file, self.prover.settled(example))
            same = [number for number, words in enumerate(text.splitlines(), 1) if words == place.quote]
            line = min(same, key=lambda number: abs(number - line), default=line)
        return Violation(check, place.path, line, message, example)

    def present(self, path: str) -> int | None:
        """Return the literal for a file's being rendered, if there is such a file."""
        return self.presences.get(path)

    @cached_property
    def presences(self) -> dict[str, int]:
        """Return the literals for files' being rendered."""
        return {file.path: self.prover.literal(file.present) for file in self.projection.files}

    def whole(self, text: Text) -> Answers | None:
        """Return answers under which a whole text is rendered."""
        return self.prover.example(text.literals)

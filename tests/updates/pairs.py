"""Covering pairs of answers: rows of (version, answers before, after) in which any two that can be together are.

Factors and rules are read from the template by the proof's space; the generator is covertable's; what is feasible, and
what the rows cover, is counted here with the solver.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import covertable  # type: ignore[import-untyped]
import yaml
from arrays import apart, constraint, factors, levels_of
from space import Answers, Prover, Space, Var

Level = tuple[str, Any]


@dataclass(frozen=True)
class Pair:
    """A service of a version with answers, to be updated with others."""

    version: str
    before: Answers
    after: Answers


class Pairs:
    """The pairs that are possible between the versions of a template and its newest one."""

    def __init__(self, versions: dict[str, Path], newest: Path) -> None:
        """Read the space of the newest version. `versions` says where the template of each lies."""
        self.prover = Prover(Space.read(newest))
        self.factors = factors(self.prover)
        self.absent = {version: list(self._absent(root)) for version, root in versions.items()}
        before = [[("before", level) for level in factor] for factor in self.factors]
        after = [[("after", level) for level in factor] for factor in self.factors]
        self.columns: list[list[Level]] = [[("version", version) for version in versions], *before, *after]

    def _absent(self, root: Path) -> Iterator[int]:
        """Yield, negated, the answers that an older version does not know."""
        entries = yaml.safe_load((root / "copier.yml").read_text("utf-8"))
        for question in self.prover.space.questions.values():
            offered = entries.get(question.name, {}).get("choices", {})
            known = set(map(str, offered.values() if isinstance(offered, dict) else offered))
            if question.kind == "one" and not known:
                # The question is younger; its first value is what there was before.
                known = {question.values[0]}
            for value in question.values:
                if question.kind != "bool" and value not in known:
                    yield -self.prover.literal(Var(question.name, value))

    def possible(self, one: Level, other: Level) -> bool:
        """Return whether two levels can be in one row."""
        levels = [one, other]
        before, after = ([level for side, level in levels if side == name] for name in ("before", "after"))
        of_version = [version for side, version in levels if side == "version"]
        versions = [self.absent[version] for version in of_version or self.absent]
        return self.prover.possible(after) and any(self.prover.possible([*before, *absent]) for absent in versions)

    def feasible(self) -> Iterator[frozenset[Level]]:
        """Yield all pairs of levels that can be in one row."""
        for one, other in combinations(self.columns, 2):
            for levels in product(one, other):
                if self.possible(*levels):
                    yield frozenset(levels)

    def rows(self) -> list[Pair]:
        """Return rows that cover all of these. Raises RuntimeError if the generator fails to."""
        number_of = {abs(level): number for number, factor in enumerate(self.factors) for level in factor}
        constraints = []
        for side, first in (("before", 1), ("after", 1 + len(self.factors))):
            shifted = {level: number + first for level, number in number_of.items()}
            constraints += [sided(constraint(self.prover, shifted, rule), side) for rule in self.prover.space.rules]
        for version, absent in self.absent.items():
            for level in absent:
                old = {"operator": "eq", "left": 0, "value": ("version", version)}
                has = {"operator": "eq", "left": 1 + number_of[-level], "value": ("before", -level)}
                constraints.append({"operator": "not", "condition": {"operator": "and", "conditions": [old, has]}})
        made = covertable.make(self.columns, strength=2, constraints=constraints)
        found = [self._pair(row) for row in made]
        if left := self.uncovered(found):
            raise RuntimeError(f"the generator left {len(left)} pairs out, such as {next(iter(left))}")
        return found

    def _pair(self, row: list[Level]) -> Pair:
        """Return the answers of a row."""
        version = row[0][1]
        sides = []
        for name, absent in (("before", self.absent[version]), ("after", [])):
            answers = self.prover.example([*(level for side, level in row if side == name), *absent])
            if answers is None:
                raise RuntimeError(f"the generator made a row that the rules refuse: {row}")
            sides.append(answers | apart(self.prover.space))
        return Pair(version, *sides)

    def uncovered(self, rows: list[Pair]) -> set[frozenset[Level]]:
        """Return the pairs of levels that no row has, recounted from the answers alone."""
        left = set(self.feasible())
        for row in rows:
            levels: list[Level] = [("version", row.version)]
            levels += [("before", level) for level in levels_of(self.prover, row.before)]
            levels += [("after", level) for level in levels_of(self.prover, row.after)]
            left -= {frozenset(two) for two in combinations(levels, 2)}
        return left


def sided(condition: dict[str, Any], side: str) -> dict[str, Any]:
    """Return a condition on the levels of one side."""
    if "value" in condition:
        return condition | {"value": (side, condition["value"])}
    if "condition" in condition:
        return condition | {"condition": sided(condition["condition"], side)}
    return condition | {"conditions": [sided(part, side) for part in condition["conditions"]]}

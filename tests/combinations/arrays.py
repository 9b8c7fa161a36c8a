"""Covering arrays over the space of answers: few rows in which any answers that can be together are so at least once.

A factor is what one answer decides: the value of a question that has one, whether a value is in a list, yes or no. Its
levels are literals of the prover, so a row is known by the literals that hold in it. The generator is covertable's;
what is feasible, and what the rows cover, is counted here with the solver and without it.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import Any

import covertable  # type: ignore[import-untyped]
from copier import run_copy
from copier.errors import DirtyLocalWarning
from space import And, Answers, Formula, Not, Prover, Space, Var

# These only move what is asked, and the defaults.
APART = ("preset", "customize")
Factor = tuple[int, ...]
Interaction = frozenset[int]


def factors(prover: Prover) -> list[Factor]:
    """Return all factors, each as its levels."""
    found: list[Factor] = []
    for question in prover.space.questions.values():
        if question.name in APART:
            continue
        levels = tuple(prover.literal(variable) for variable in question.variables())
        found += [levels] if question.kind == "one" else [(level, -level) for level in levels]
    return found


def feasible(prover: Prover, strength: int) -> Iterator[Interaction]:
    """Yield the interactions of so many factors that the rules allow."""
    for chosen in combinations(factors(prover), strength):
        for levels in product(*chosen):
            if prover.possible(levels):
                yield frozenset(levels)


def levels_of(prover: Prover, answers: Answers) -> list[int]:
    """Return the level of each factor in a row."""
    holds = prover.settled(answers)
    return [next(level for level in factor if level in holds) for factor in factors(prover)]


def uncovered(prover: Prover, rows: Iterable[Answers], strength: int) -> set[Interaction]:
    """Return the interactions that no row has, recounted from the answers alone."""
    left = set(feasible(prover, strength))
    for row in rows:
        left -= {frozenset(levels) for levels in combinations(levels_of(prover, row), strength)}
    return left


def cover(prover: Prover, strength: int) -> list[Answers]:
    """Return rows that cover all interactions of so many factors. Raises RuntimeError if the generator fails to."""
    found = factors(prover)
    number_of = {abs(level): number for number, factor in enumerate(found) for level in factor}
    constraints = [constraint(prover, number_of, rule) for rule in prover.space.rules]
    made: Sequence[Sequence[int]] = covertable.make(
        [list(factor) for factor in found], strength=strength, constraints=constraints
    )
    rows = [row for levels in made if (row := prover.example(levels)) is not None]
    if len(rows) < len(made) or uncovered(prover, rows, strength):
        raise RuntimeError("the generator made a row that the rules refuse, or left an interaction out")
    return [row | apart(prover.space) for row in rows]


def apart(space: Space) -> Answers:
    """Return answers to the questions that are no factors: the first preset, and nothing is asked."""
    found = {"preset": space.questions["preset"].values[0]} if "preset" in space.questions else {}
    return found | ({"customize": False} if "customize" in space.questions else {})


def constraint(prover: Prover, number_of: dict[int, int], rule: Formula) -> dict[str, Any]:
    """Translate a rule for the generator."""
    if isinstance(rule, Var):
        level = prover.literal(rule)
        return {"operator": "eq", "left": number_of[level], "value": level}
    if isinstance(rule, Not):
        return {"operator": "not", "condition": constraint(prover, number_of, rule.of)}
    operator = "and" if isinstance(rule, And) else "or"
    return {"operator": operator, "conditions": [constraint(prover, number_of, part) for part in rule.of]}


def nearest(prover: Prover, wanted: Iterable[int], *, on: bool) -> Answers:
    """Return answers in which the wanted literals hold, and of the others as many as the rules allow are on, or off.

    A question that has one value takes the first that is possible.
    """
    chosen = list(wanted)
    for factor in factors(prover):
        levels = factor if len(factor) != 2 or factor[0] != -factor[1] or on else factor[::-1]
        chosen.append(next(level for level in levels if prover.possible([*chosen, level])))
    row = prover.example(chosen)
    assert row is not None
    return row | apart(prover.space)


def by_preset(space: Space, preset: str) -> Answers:
    """Return all that a preset says, as Copier understands it."""
    with tempfile.TemporaryDirectory() as nowhere, warnings.catch_warnings():
        warnings.simplefilter("ignore", DirtyLocalWarning)
        source, data = str(space.root), {"preset": preset}
        worker = run_copy(source, nowhere, data=data, defaults=True, quiet=True, pretend=True, skip_tasks=True)
    return {name: worker.answers.combined[name] for name in space.questions}


def treated(prover: Prover) -> dict[str, Answers]:
    """Return the rows that get the full treatment: every preset, all, none, each value alone, and all pairs."""
    space = prover.space
    rows = {f"preset-{name}": by_preset(space, name) for name in space.questions["preset"].values}
    rows |= {"nothing": nearest(prover, [], on=False), "everything": nearest(prover, [], on=True)}
    for variable in space.variables():
        if variable.question not in APART:
            name = f"{variable.question}-{variable.value}"
            rows[name] = nearest(prover, [prover.literal(variable)], on=False)
    rows |= {f"pairs-{number}": row for number, row in enumerate(cover(prover, 2))}
    found: dict[str, Answers] = {}
    for name, row in rows.items():
        known = ({**row, **apart(space)} for row in found.values())
        if name.startswith("preset-") or {**row, **apart(space)} not in known:
            found[name] = row
    return found

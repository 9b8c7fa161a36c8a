"""The covering arrays cover what they say, also where rules stand in the way and where there are many answers."""

import itertools
import random
from pathlib import Path

import pytest
from arrays import cover, factors, feasible, levels_of, nearest, treated, uncovered
from space import Answers, Not, Or, Prover, Question, Space, Var


@pytest.fixture(scope="module")
def prover(template: Path) -> Prover:
    return Prover(Space.read(template))


def made_up(*questions: Question, rules: tuple[tuple[Var, Var], ...] = ()) -> Prover:
    """Return a prover of a space in which some values need others."""
    space = Space(Path(), {question.name: question for question in questions})
    space.rules = [Or((Not(one), other)) for one, other in rules]
    return Prover(space)


DATABASES = Question("databases", "many", ("postgresql", "pgvector", "mongodb"))
FEATURES = Question("features", "many", ("projects", "documents", "admin"))
AUTH = Question("auth_provider", "one", ("none", "local", "oidc", "supabase", "clerk"))
NEEDS = (
    (Var("databases", "pgvector"), Var("databases", "postgresql")),
    (Var("features", "documents"), Var("databases", "mongodb")),
)


@pytest.mark.parametrize("strength", [2, 3])
def test_all_interactions_of_the_template_are_covered(prover: Prover, strength: int) -> None:
    rows = cover(prover, strength)
    seen = {frozenset(levels) for row in rows for levels in itertools.combinations(levels_of(prover, row), strength)}
    assert seen == set(feasible(prover, strength))


@pytest.mark.parametrize("strength", [2, 3])
def test_rules_are_kept_and_nothing_they_allow_is_left_out(strength: int) -> None:
    prover = made_up(DATABASES, FEATURES, AUTH, rules=NEEDS)
    rows = cover(prover, strength)
    for row in rows:
        assert "postgresql" in row["databases"] or "pgvector" not in row["databases"]
        assert "mongodb" in row["databases"] or "documents" not in row["features"]
    every = [
        {"databases": list(databases), "features": list(features), "auth_provider": auth}
        for size in range(4)
        for databases in itertools.combinations(DATABASES.values, size)
        for more in range(4)
        for features in itertools.combinations(FEATURES.values, more)
        for auth in AUTH.values
        if ("pgvector" not in databases or "postgresql" in databases)
        and ("documents" not in features or "mongodb" in databases)
    ]
    # Enumerated without the solver: what some valid combination has, some row has.
    assert interactions(every, strength) == interactions(rows, strength)


def interactions(rows: list[Answers], strength: int) -> set[frozenset[tuple[str, object]]]:
    """Return what stands together in rows, read from the answers alone."""
    found = set()
    for row in rows:
        said: list[tuple[str, object]] = [("auth_provider", row["auth_provider"])]
        said += [(value, value in row["databases"]) for value in DATABASES.values]
        said += [(value, value in row["features"]) for value in FEATURES.values]
        found |= {frozenset(together) for together in itertools.combinations(said, strength)}
    return found


def test_a_missing_row_is_noticed(prover: Prover) -> None:
    rows = cover(prover, 2)
    assert uncovered(prover, rows, 2) == set()
    assert any(uncovered(prover, [row for row in rows if row is not one], 2) for one in rows)
    assert len(uncovered(prover, [], 2)) == len(set(feasible(prover, 2)))


def test_a_space_as_large_as_it_will_be_needs_few_rows() -> None:
    dice = random.Random(1)  # noqa: S311
    lists = [Question(f"list{number}", "many", tuple(f"v{number}_{one}" for one in range(6))) for number in range(8)]
    ones = [Question(f"one{number}", "one", tuple("abcde")) for number in range(4)]
    values = [variable for question in lists for variable in question.variables()]
    rules = tuple((values[number], values[dice.randrange(number)]) for number in range(1, len(values), 6))
    prover = made_up(*lists, *ones, rules=rules)
    assert len(factors(prover)) == 52
    assert len(cover(prover, 2)) <= 60


def test_each_value_stands_alone_and_with_all_others(prover: Prover) -> None:
    rows = treated(prover)
    space = prover.space
    for question in space.questions.values():
        for value in question.values if question.kind == "many" else ():
            alone = [row for row in rows.values() if row[question.name] == [value]]
            others = [
                other.name for other in space.questions.values() if other.kind == "many" and other is not question
            ]
            assert any(not any(row[other] for other in others) for row in alone), value
            assert value in rows["everything"][question.name]
    assert {f"preset-{name}" for name in space.questions["preset"].values} <= rows.keys()


def test_what_stands_alone_has_what_it_needs() -> None:
    prover = made_up(DATABASES, FEATURES, AUTH, rules=NEEDS)
    row = nearest(prover, [prover.literal(Var("features", "documents"))], on=False)
    assert row == {"databases": ["mongodb"], "features": ["documents"], "auth_provider": "none"}

"""Compares the projection with what Copier renders, byte for byte, on every preset and on random answers."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from copier import run_copy
from evidence import Proof
from projection import ANSWERS_FILE
from space import Answers, Prover, data_line


def random_answers(prover: Prover, dice: random.Random) -> Answers:
    """Return random answers that the rules allow."""
    variables = [prover.literal(variable) for variable in prover.space.variables()]
    dice.shuffle(variables)
    chosen: list[int] = []
    for variable in variables:
        wanted = variable if dice.random() < 0.5 else -variable
        chosen.append(wanted if prover.possible([*chosen, wanted]) else -wanted)
    row = prover.example(chosen)
    assert row is not None
    return row


def disagreements(proof: Proof, scratch: Path, seed: int, count: int) -> Iterator[str]:
    """Render every preset and so many random answers into an empty folder. Yield what Copier renders differently."""
    projection, space, dice = proof.projection, proof.projection.space, random.Random(seed)  # noqa: S311
    samples: list[Answers] = [{"preset": name} for name in space.questions["preset"].values]
    samples += [random_answers(proof.prover, dice) for _ in range(count)]
    for number, sample in enumerate(samples):
        folder = scratch / str(number)
        data = sample | projection.open_answers()
        worker = run_copy(str(space.root), folder, data=data, defaults=True, quiet=True, skip_tasks=True)
        answers = {name: worker.answers.combined[name] for name in space.questions}
        rendered = {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        rendered.pop(ANSWERS_FILE)
        projected = projection.tree(list(proof.prover.settled(answers)))
        for path in sorted(rendered.keys() | projected.keys()):
            if rendered.get(path) != projected.get(path):
                yield f"{path}: Copier renders this differently (seed {seed})\n    {data_line(answers)}"

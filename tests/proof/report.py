"""The figures of the proof, the covering arrays and the updates, as `make proof` prints and writes them.

Nobody writes them by hand: `make proof ARGS=--write` makes `docs/figures.md`. What follows from the template alone
stands apart from what was measured, and a test holds the first to the template as it is.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "combinations")]

from agreement import disagreements  # noqa: E402
from arrays import cover, feasible, treated  # noqa: E402
from conftest import lay_out  # noqa: E402
from evidence import Proof, Violation  # noqa: E402
from faults import FAULTS, UNMODELLED  # noqa: E402
from grown import grow  # noqa: E402
from prove import CHECKS, prove, run  # noqa: E402
from records import digest, passed  # noqa: E402
from space import UnmodelledError  # noqa: E402

PAGE = ROOT / "docs" / "figures.md"
UPDATES = ROOT / "build" / "updates.json"
# How many random combinations are compared with what Copier renders, beside the presets.
RANDOM = 4
CURVE = (0, 50, 100, 200)
MEASURED = "## What was measured"
Figures = dict[str, str]


def derived(proof: Proof) -> Figures:
    """Return the figures that follow from the template."""
    projection, prover = proof.projection, proof.prover
    space = projection.space
    return {
        "valid combinations": f"{space.count():,}",
        "variables": str(len(space.variables())),
        "files of the skeleton": str(len(projection.files)),
        "renders": f"{projection.renders:,}",
        "distinct texts": f"{sum(len(texts) for texts in proof.texts.values()):,}",
        "checks": str(len(CHECKS) + 1),
        "kinds of planted faults, each of them found": str(len(FAULTS) + len(UNMODELLED)),
        "interactions of two answers": f"{len(set(feasible(prover, 2))):,}, in {len(cover(prover, 2))} rows",
        "interactions of three answers": f"{len(set(feasible(prover, 3))):,}, in {len(cover(prover, 3))} rows",
        "services that are made and tested every night": str(len(treated(prover))),
    }


def measured(proof: Proof, seconds: float, rendering: float) -> Figures:
    """Return the figures of this run, and of the last runs of the long suites."""
    rows = treated(proof.prover)
    settled = (proof.prover.settled(row) for row in rows.values())
    records = [passed(digest(proof.projection.tree(list(literals)))) for literals in settled]
    done = [record for record in records if record]
    spent = sum(float(record["seconds"]) for record in done)
    found = {
        "seconds": f"{seconds:.1f}",
        "renders per second": f"{proof.projection.renders / rendering:,.0f}",
        "queries to the solver": f"{proof.prover.queries:,}",
        "services that went through everything as they are": f"{len(done)} of {len(rows)}, in {spent / 60:.0f} minutes",
    }
    if UPDATES.exists():
        updates: dict[str, Any] = json.loads(UPDATES.read_text("utf-8"))
        runs = updates["passed"]["runs"]
        spent = updates["seconds of all runs"] / 60
        found |= {
            "pairs of answers before and after an update": f"{updates['pairs']:,}, in {updates['rows']} rows",
            "updates that passed": f"{len(runs)}, and {updates['failed']} failed; {spent:.0f} minutes",
        }
    return found


class Point(NamedTuple):
    """A point of the curve: what the proof of so many modules more takes."""

    modules: int
    files: int
    texts: int
    violations: int
    seconds: float


def curve(template: Path, sizes: Iterable[int]) -> list[Point]:
    """Prove the template with more and more modules."""
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="espalier-curve-") as folder:
            root, contract = grow(template, Path(folder), size)
            (Path(folder) / "scratch").mkdir()
            begin = time.perf_counter()
            proof = prove(root, contract)
            violations = run(proof, Path(folder) / "scratch")
            texts = sum(len(texts) for texts in proof.texts.values())
            seconds = time.perf_counter() - begin
            found.append(Point(size, len(proof.projection.files), texts, len(violations), seconds))
    return found


def table(figures: Mapping[str, str]) -> str:
    """Return figures as a table of Markdown."""
    return "\n".join(["| | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in figures.items())])


def page(follows: Figures, measures: Figures, grown: Iterable[Point]) -> str:
    """Return the page."""
    rows = [
        f"| {one.modules} | 2^{one.modules} times as many | {one.files:,} | {one.texts:,} | {one.seconds:.1f} |"
        for one in grown
    ]
    return "\n".join(
        [
            "# Figures",
            "",
            "`make proof ARGS=--write` writes this page; [the proof](proof.md) says what the figures are of.",
            "",
            table(follows),
            "",
            MEASURED,
            "",
            "On a machine with two cores. Services count as tested when one with just these files has passed.",
            "",
            table(measures),
            "",
            "## How it grows",
            "",
            "The template with its slice of projects again and again under other names, each an answer of its own.",
            "",
            "| modules more | combinations | files | texts | seconds |",
            "|---:|---|---:|---:|---:|",
            *rows,
            "",
        ]
    )


def main(arguments: list[str]) -> int:
    """Prove, tell, and write the page when asked to."""
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="espalier-proof-") as folder:
        template = lay_out(Path(folder) / "template")
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        begin = time.perf_counter()
        try:
            proof = prove(template)
        except UnmodelledError as error:
            print(error)
            return 1
        rendering = time.perf_counter() - begin
        violations: list[Violation | str] = [*run(proof, scratch)]
        seconds = time.perf_counter() - begin
        seed = int(os.environ.get("PROOF_SEED", random.SystemRandom().randrange(10**6)))
        violations += disagreements(proof, scratch / "services", seed, RANDOM)
        follows, measures = derived(proof), measured(proof, seconds, rendering)
        compared = f"{len(proof.projection.space.questions['preset'].values) + RANDOM}, PROOF_SEED={seed}"
        last = {"combinations compared with what Copier renders": compared, "violations": str(len(violations))}
        for name, value in {**follows, **measures, **last}.items():
            print(f"  {name:<52}{value:>24}")
        for violation in violations:
            print(violation)
        if not violations and "--write" in arguments:
            PAGE.write_text(page(follows, measures, curve(template, CURVE)), "utf-8")
            print(f"written to {PAGE.relative_to(ROOT)}")
    return int(bool(violations))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Prove for all valid combinations what a service promises; `make proof` runs this.

A table is printed, and every violation with answers under which `copier copy` shows it. The exit status is 1 when
there are some.
"""

import sys
import tempfile
import time
import warnings
from pathlib import Path

import checks
import files
import wiring
from copier.errors import DirtyLocalWarning
from evidence import Proof, Violation
from projection import Projection
from space import Prover, Space, UnmodelledError
from unmodelled import refuse_unmodelled

ROOT = Path(__file__).resolve().parents[2]
CHECKS = (
    files.syntax,
    checks.imports,
    checks.dependencies,
    checks.settings,
    checks.ownership,
    checks.floor,
    checks.dead_values,
    wiring.modules,
    wiring.tables,
    wiring.routes,
    wiring.servers,
    wiring.rules,
    wiring.presets,
    files.compose,
    files.links,
    files.commands,
    files.mentions,
    files.tools,
)


def prove(root: Path) -> Proof:
    """Read a template and render its projection. Raises UnmodelledError for what has no counterpart in the space."""
    space = Space.read(root)
    refuse_unmodelled(space)
    return Proof(Projection(space, Prover(space)))


def run(proof: Proof, scratch: Path) -> list[Violation]:
    """Run all checks. `scratch` is an empty folder for tools that want files."""
    found = [violation for check in CHECKS for violation in check(proof)]
    return [*found, *files.lint(proof, scratch)]


def main() -> int:
    """Prove, and tell."""
    warnings.simplefilter("ignore", DirtyLocalWarning)
    start = time.perf_counter()
    try:
        proof = prove(ROOT)
    except UnmodelledError as error:
        print(error)
        return 1
    rendered = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="espalier-proof-") as scratch:
        violations = run(proof, Path(scratch))
    space, projection = proof.projection.space, proof.projection
    figures = {
        "valid combinations": f"{space.count():,}",
        "variables": len(space.variables()),
        "files of the skeleton": len(projection.files),
        "renders": projection.renders,
        "renders per second": f"{projection.renders / (rendered - start):,.0f}",
        "distinct texts": sum(len(texts) for texts in proof.texts.values()),
        "queries to the solver": f"{proof.prover.queries:,}",
        "seconds": f"{time.perf_counter() - start:.1f}",
        "violations": len(violations),
    }
    for name, value in figures.items():
        print(f"  {name:<24}{value:>10}")
    for violation in violations:
        print(violation)
    return int(bool(violations))


if __name__ == "__main__":
    sys.exit(main())

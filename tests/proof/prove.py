"""Proves for all valid combinations what a service promises.

Every violation comes with answers under which `copier copy` shows it.
"""

from pathlib import Path

import checks
import files
import wiring
from evidence import CONTRACT, Proof, Violation
from projection import Projection
from space import Prover, Space
from unmodelled import refuse_unmodelled

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


def prove(root: Path, contract: Path = CONTRACT, known: Proof | None = None) -> Proof:
    """Read a template and render its projection. Raises UnmodelledError for what has no counterpart in the space.

    What a known proof says of files that are the same is not found out again, if the two ask and select the same.
    """
    space = Space.read(root)
    refuse_unmodelled(space)
    if known is None or asked(root) != asked(known.projection.space.root):
        return Proof(Projection(space, Prover(space)), contract)
    return Proof(Projection(space, known.prover, known.projection), contract, known)


def asked(root: Path) -> dict[str, bytes]:
    """Return all that the space is read from, and what templates include."""
    paths = [root / "copier.yml", *(root / "extensions").rglob("*")]
    read = (path for path in paths if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in read}


def run(proof: Proof, scratch: Path) -> list[Violation]:
    """Run all checks. `scratch` is an empty folder for tools that want files."""
    found = [violation for check in CHECKS for violation in check(proof)]
    return [*found, *files.lint(proof, scratch)]

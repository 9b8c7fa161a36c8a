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


def prove(root: Path, contract: Path = CONTRACT) -> Proof:
    """Read a template and render its projection. Raises UnmodelledError for what has no counterpart in the space."""
    space = Space.read(root)
    refuse_unmodelled(space)
    return Proof(Projection(space, Prover(space)), contract)


def run(proof: Proof, scratch: Path) -> list[Violation]:
    """Run all checks. `scratch` is an empty folder for tools that want files."""
    found = [violation for check in CHECKS for violation in check(proof)]
    return [*found, *files.lint(proof, scratch)]

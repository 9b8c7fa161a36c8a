"""Whatever owners do to their files, an update keeps it, marks it or names it."""

import tempfile
from pathlib import Path

import pytest
from edits import Edit, Life, Step, live_through
from hypothesis import HealthCheck, Phase, given, settings
from lab import CURRENT, LATER, Lab, make_repository

# `make updates` lives through more of them.
EXAMPLES = 2
STEPS = {
    "projects come": Step(CURRENT, {}, LATER, {"features": ["projects"], "license": "Apache-2.0"}),
    "projects go": Step(CURRENT, {"features": ["projects"], "databases": ["redis"]}, LATER, {"features": []}),
    "an answer alone": Step(CURRENT, {}, CURRENT, {"databases": ["postgresql"], "project_name": "Another"}),
}


def check(lab: Lab, folder: Path, examples: int, step: Step) -> None:
    """Live through some lists of edits."""
    life = Life.begin(lab, step, folder)

    # An example takes seconds: the first counter-example is told as it was drawn, and no smaller one is looked for.
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(drawn=life.edits())
    def live(drawn: list[Edit]) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            live_through(life, drawn, Path(scratch))

    live()


@pytest.mark.parametrize("name", ["projects come", "projects go"])
def test_no_edit_is_lost(tmp_path: Path, name: str) -> None:
    check(Lab(make_repository(tmp_path / "template")), tmp_path, EXAMPLES, STEPS[name])

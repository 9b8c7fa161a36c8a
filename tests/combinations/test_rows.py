"""Any two answers together, every preset, each value alone, all and none: each is made and goes through everything.

`make combinations` runs these, each night as well. `ARGS='--shard 2/4'` takes every fourth, beginning with the second.
What passed is remembered by content, so a run that was cut short goes on where it was.
"""

import re
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest
from arrays import treated
from conftest import copy, lay_out
from projection import Projection
from prove import prove
from records import digest, note, passed
from space import Answers, Prover, Space, data_line
from treatment import Case, treatment

pytestmark = pytest.mark.nightly


@cache
def rows() -> dict[str, Answers]:
    """Return all rows, before there are fixtures."""
    with tempfile.TemporaryDirectory() as folder:
        return treated(Prover(Space.read(lay_out(Path(folder)))))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each row that is this shard's to a test of its own."""
    shard = re.fullmatch(r"(\d+)/(\d+)", metafunc.config.getoption("--shard"))
    if not shard or not 1 <= int(shard[1]) <= int(shard[2]):
        raise pytest.UsageError("--shard takes a number and how many there are, such as 2/4")
    metafunc.parametrize("name", list(rows())[int(shard[1]) - 1 :: int(shard[2])])


@pytest.fixture(scope="module")
def projection(template: Path) -> Projection:
    return prove(template).projection


@pytest.fixture(scope="module")
def types_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all runs of mypy in this worker."""
    return tmp_path_factory.mktemp("mypy")


def test_a_row_goes_through_everything(
    projection: Projection, template: Path, types_cache: Path, tmp_path: Path, name: str
) -> None:
    row = rows()[name]
    print(f"copier copy --trust --defaults {data_line(row)}")
    key = digest(projection.tree(list(projection.prover.settled(row))))
    if passed(key):
        return
    begin = time.monotonic()
    made = copy(template, tmp_path / "service", "--trust", answers=row)
    assert made.status == 0, made.output
    steps = treatment(row)
    for step in steps:
        step(Case(made.folder, row, tmp_path, types_cache))
    note(key, {"answers": row, "steps": [step.__name__ for step in steps], "seconds": time.monotonic() - begin})
    shutil.rmtree(made.folder)

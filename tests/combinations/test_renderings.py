"""Any three answers together: what Copier renders is what the proof looked at, whole, and shows no template."""

from itertools import chain
from pathlib import Path

import pytest
from arrays import cover
from conftest import contents, files, render
from formats import parse, shows_jinja
from projection import ANSWERS_FILE, Projection
from prove import prove
from space import Answers, data_line

# Rows are dealt to so many tests, which the workers share.
HANDS = 8


@pytest.fixture(scope="module")
def projection(template: Path) -> Projection:
    return prove(template).projection


@pytest.fixture(scope="module")
def rows(projection: Projection) -> list[Answers]:
    return cover(projection.prover, 3)


@pytest.mark.parametrize("hand", range(HANDS))
def test_copier_renders_what_was_proved(
    projection: Projection, rows: list[Answers], template: Path, tmp_path: Path, hand: int
) -> None:
    for number, row in enumerate(rows[hand::HANDS]):
        service = render(template, tmp_path / str(number), row | projection.open_answers())
        found = contents(service)
        found.pop(ANSWERS_FILE)
        assert found == projection.tree(list(projection.prover.settled(row))), data_line(row)
        for path in files(service):
            parse(service / path)
            text = (service / path).read_text("utf-8")
            assert not shows_jinja(path, text), f"{path} under {data_line(row)}"
        folders = {path for path in service.rglob("*") if path.is_dir()}
        assert folders == set(chain.from_iterable((service / path).parents for path in files(service))) - {
            service,
            *service.parents,
        }

"""The proof itself: it agrees with Copier byte for byte, finds what is wrong, and nothing where all is well."""

import os
import random
import shutil
from pathlib import Path

import pytest
from agreement import disagreements
from evidence import Proof
from grown import grow
from prove import prove, run
from report import MEASURED, PAGE, derived, page
from space import Space

SEED = int(os.environ.get("PROOF_SEED", random.SystemRandom().randrange(10**6)))
pytestmark = pytest.mark.xdist_group("proof")


@pytest.fixture(scope="module")
def proof(template: Path) -> Proof:
    return prove(template)


def test_the_template_has_no_violation(proof: Proof, tmp_path: Path) -> None:
    assert [str(violation) for violation in run(proof, tmp_path)] == []


def test_the_count_is_that_of_the_questions(proof: Proof) -> None:
    space = proof.projection.space
    product = 1
    for question in space.questions.values():
        product *= len(question.values) if question.kind == "one" else 2 ** len(question.values)
    # No rule speaks about today's values.
    assert space.rules == []
    assert space.count() == product


def test_the_projection_is_what_copier_renders(proof: Proof, tmp_path: Path) -> None:
    print(f"PROOF_SEED={SEED}")
    assert list(disagreements(proof, tmp_path, SEED, 8)) == []


def test_a_projection_that_is_off_by_a_letter_is_noticed(template: Path, proof: Proof, tmp_path: Path) -> None:
    changed = shutil.copytree(template, tmp_path / "template")
    proof = prove(changed, known=proof)
    readme = changed / "template" / "README.md.jinja"
    readme.write_text(readme.read_text("utf-8").replace("## Run it", "## Run it!"), "utf-8")
    found = list(disagreements(proof, tmp_path / "services", SEED, 0))
    assert found
    assert all(one.startswith("README.md: ") for one in found)


CHOICES = """
_subdirectory: template
databases:
  type: str
  multiselect: true
  choices:
    PostgreSQL: postgresql
    pgvector:
      value: pgvector
      validator: "{% if 'postgresql' not in databases %}pgvector needs postgresql{% endif %}"
  default: []
size:
  type: str
  choices:
    small: small
    large:
      value: large
      validator: "{% if not databases %}large needs a database{% endif %}"
  default: small
"""


def test_a_choice_that_is_refused_is_no_combination(tmp_path: Path) -> None:
    (tmp_path / "extensions").mkdir()
    (tmp_path / "template").mkdir()
    (tmp_path / "copier.yml").write_text(CHOICES, "utf-8")
    (tmp_path / "extensions" / "modules.yml").write_text("{}\n", "utf-8")
    # pgvector alone is out, and so is large without any: of 2 x 2 x 2 there are 5.
    assert Space.read(tmp_path).count() == 5


@pytest.fixture(scope="module")
def grown(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Proof]:
    """The template with more modules, each of them an answer, by how many."""
    folder = tmp_path_factory.mktemp("grown")
    return {modules: prove(*grow(template, folder / str(modules), modules)) for modules in (20, 40)}


def test_renders_grow_with_the_modules_and_not_with_the_combinations(
    proof: Proof, grown: dict[int, Proof], tmp_path: Path
) -> None:
    zero, twenty, forty = (one.projection for one in (proof, grown[20], grown[40]))
    assert twenty.space.count() == zero.space.count() * 2**20
    assert forty.space.count() == zero.space.count() * 2**40
    assert forty.renders - twenty.renders == twenty.renders - zero.renders
    assert run(grown[40], tmp_path) == []
    texts = {modules: sum(len(texts) for texts in one.texts.values()) for modules, one in grown.items()}
    # A slice has eight files, and a word in some of the others.
    assert texts[40] - texts[20] <= 20 * 10


def test_a_fault_among_so_many_combinations_is_found(grown: dict[int, Proof], tmp_path: Path) -> None:
    known = grown[40]
    root = shutil.copytree(known.projection.space.root, tmp_path / "template")
    schemas = "app/modules/proaaays/schemas.py"
    path = root / "template" / schemas
    path.write_text("import app.modules.proaabbs.models  # noqa: F401\n" + path.read_text("utf-8"), "utf-8")
    (tmp_path / "scratch").mkdir()
    proof = prove(root, known.contract_file, known)
    found = [one for one in run(proof, tmp_path / "scratch") if one.check == "import"]
    assert [(one.path, one.line) for one in found] == [(schemas, 1)]
    assert found[0].example is not None
    assert "proaaays" in found[0].example["features"]
    assert "proaabbs" not in found[0].example["features"]


def test_the_page_of_figures_is_that_of_this_template(proof: Proof) -> None:
    written = PAGE.read_text("utf-8").partition(MEASURED)[0]
    assert written == page(derived(proof), {}, []).partition(MEASURED)[0], "run make proof ARGS=--write"

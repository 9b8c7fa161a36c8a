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


def test_a_projection_that_is_off_by_a_letter_is_noticed(template: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(template, tmp_path / "template")
    proof = prove(changed)
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


def test_renders_grow_with_the_modules_and_not_with_the_combinations(template: Path, tmp_path: Path) -> None:
    proofs = []
    for modules in (0, 20, 40):
        root, contract = grow(template, tmp_path / str(modules), modules)
        proofs.append(prove(root, contract))
    zero, twenty, forty = (one.projection for one in proofs)
    assert twenty.space.count() == zero.space.count() * 2**20
    assert forty.space.count() == zero.space.count() * 2**40
    assert forty.renders - twenty.renders == twenty.renders - zero.renders
    (tmp_path / "scratch").mkdir()
    assert run(proofs[-1], tmp_path / "scratch") == []
    assert sum(len(texts) for texts in proofs[-1].texts.values()) < 1_000


def test_a_fault_among_2_to_the_51_combinations_is_found(template: Path, tmp_path: Path) -> None:
    root, contract = grow(template, tmp_path, 40)
    schemas = "app/modules/ppaaaays/schemas.py"
    path = root / "template" / schemas
    path.write_text("import app.modules.ppaaabbs.models  # noqa: F401\n" + path.read_text("utf-8"), "utf-8")
    (tmp_path / "scratch").mkdir()
    found = [one for one in run(prove(root, contract), tmp_path / "scratch") if one.check == "import"]
    assert [(one.path, one.line) for one in found] == [(schemas, 1)]
    assert found[0].example is not None
    assert "ppaaaays" in found[0].example["features"]
    assert "ppaaabbs" not in found[0].example["features"]


def test_the_page_of_figures_is_that_of_this_template(proof: Proof) -> None:
    written = PAGE.read_text("utf-8").partition(MEASURED)[0]
    assert written == page(derived(proof), {}, []).partition(MEASURED)[0], "run make proof ARGS=--write"

"""The proof itself: it agrees with Copier byte for byte, finds what is wrong, and nothing where all is well."""

import os
import random
from pathlib import Path

import copier
import pytest
from evidence import Proof
from grown import grow
from projection import ANSWERS_FILE
from prove import prove, run
from report import MEASURED, PAGE, derived, page
from space import Answers, Question, Space, data_line

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


def some_answers(space: Space, dice: random.Random) -> Answers:
    """Return random answers to the closed questions."""

    def answer(question: Question) -> object:
        if question.kind == "many":
            return [value for value in question.values if dice.random() < 0.5]
        return dice.choice(question.values) if question.kind == "one" else dice.random() < 0.5

    return {question.name: answer(question) for question in space.questions.values()}


def test_the_projection_is_what_copier_renders(proof: Proof, template: Path, tmp_path: Path) -> None:
    print(f"PROOF_SEED={SEED}")
    space, projection, dice = proof.projection.space, proof.projection, random.Random(SEED)  # noqa: S311
    samples: list[Answers] = [{"preset": name} for name in space.questions["preset"].values]
    samples += [some_answers(space, dice) for _ in range(8)]
    for number, sample in enumerate(samples):
        target = tmp_path / str(number)
        data = sample | projection.open_answers()
        worker = copier.run_copy(str(template), target, data=data, defaults=True, quiet=True, skip_tasks=True)
        answers = {key: worker.answers.combined[key] for key in space.questions}
        rendered = {
            path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()
        }
        rendered.pop(ANSWERS_FILE)
        assert projection.tree(list(proof.prover.settled(answers))) == rendered, data_line(answers)


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

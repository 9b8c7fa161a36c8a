"""The proof itself: it agrees with Copier byte for byte, finds what is wrong, and nothing where all is well."""

import os
import random
from pathlib import Path

import copier
import pytest
from evidence import Proof
from projection import ANSWERS_FILE, Projection
from prove import prove, run
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


def synthetic(root: Path, modules: int) -> Path:
    """Make a template of many modules, each with a file, a need and a line in one seam."""
    (root / "extensions").mkdir(parents=True)
    names = [f"m{number}" for number in range(modules)]
    choices = "".join(f"    {name}: {name}\n" for name in names)
    (root / "copier.yml").write_text(
        "_subdirectory: template\n_envops: {trim_blocks: true, lstrip_blocks: true, keep_trailing_newline: true}\n"
        f"chosen:\n  type: str\n  multiselect: true\n  choices:\n{choices}  default: []\n",
        "utf-8",
    )
    rows = [
        f"{name}:\n  selected: {{{{ '{name}' in chosen }}}}\n  owns: [/app/{name}.py]\n"
        f"  needs: [{names[number - 1] if number % 5 else ''}]\n"
        for number, name in enumerate(names)
    ]
    (root / "extensions" / "modules.yml").write_text("".join(rows), "utf-8")
    app = root / "template" / "app"
    app.mkdir(parents=True)
    for number, name in enumerate(names):
        need = f"import app.{names[number - 1]}\n" if number % 5 else ""
        (app / f"{name}.py").write_text(need, "utf-8")
    lines = [f"{{% if modules.{name}.selected %}}\nimport app.{name}\n{{% endif %}}\n" for name in names]
    (app / "installed.py.jinja").write_text("".join(lines), "utf-8")
    return root


@pytest.mark.parametrize("modules", [50, 200])
def test_renders_grow_with_the_pieces_and_not_with_the_combinations(tmp_path: Path, modules: int) -> None:
    proof = prove(synthetic(tmp_path / "template", modules))
    projection: Projection = proof.projection
    assert projection.space.count() == 2**modules
    assert projection.renders == 2 * modules

"""The proof itself: it agrees with Copier byte for byte, finds what is wrong, and nothing where all is well."""

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import checks
import copier
import pytest
import yaml
from conftest import ROOT
from evidence import Proof, Violation
from projection import ANSWERS_FILE, Projection
from prove import prove, run
from space import Answers, Question, Space, UnmodelledError, data_line

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
    presets: dict[str, Answers] = yaml.safe_load((ROOT / "extensions" / "presets.yml").read_text("utf-8"))
    defaults: Answers = {
        "preset": "minimal",
        "customize": False,
        "license": "MIT",
        "python_version": "3.13",
        "databases": [],
        "features": [],
        "ci": ["github"],
        "deploy": ["docker"],
    }
    samples = [defaults | {"preset": name} | dict(answers) for name, answers in presets.items()]
    samples += [some_answers(space, dice) for _ in range(8)]
    for number, answers in enumerate(samples):
        target = tmp_path / str(number)
        data = answers | projection.open_answers()
        copier.run_copy(str(template), target, data=data, defaults=True, quiet=True, skip_tasks=True)
        rendered = {
            path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()
        }
        rendered.pop(ANSWERS_FILE)
        assert projection.tree(list(proof.prover.settled(answers))) == rendered, data_line(answers)


@dataclass(frozen=True)
class Fault:
    """A fault that is planted in a copy of the template, and how it is to be told."""

    plant: Callable[[Path], None]
    check: str
    path: str
    words: str


def append(path: str, text: str) -> Callable[[Path], None]:
    """Return what adds a text to the end of a file."""

    def plant(root: Path) -> None:
        with (root / path).open("a", encoding="utf-8") as file:
            file.write(text)

    return plant


def replace(path: str, old: str, new: str) -> Callable[[Path], None]:
    """Return what replaces a text, which has to be there."""

    def plant(root: Path) -> None:
        text = (root / path).read_text("utf-8")
        assert old in text, f"{path} does not hold {old}"
        (root / path).write_text(text.replace(old, new), "utf-8")

    return plant


FAULTS = {
    "an import of an unselected module": Fault(
        append("template/app/modules/users/service.py", "\nfrom app.modules.projects.models import Project\n"),
        "import",
        "app/modules/users/service.py",
        "app.modules.projects.models is not rendered",
    ),
    "an import of a name that is not there": Fault(
        append("template/app/kit/ids.py", "\nfrom app.kit.clock import later\n"),
        "import",
        "app/kit/ids.py",
        "app.kit.clock has no later",
    ),
    "an import of a module that is not there": Fault(
        append("template/app/kit/ids.py", "\nimport app.kit.nothing\n"),
        "import",
        "app/kit/ids.py",
        "there is no module",
    ),
    "an import in a seam without its condition": Fault(
        replace(
            "template/app/installed.py.jinja",
            "{% if modules.redis.selected %}\nfrom app.ports.redis.module import redis\n{% endif %}\n",
            "from app.ports.redis.module import redis\n",
        ),
        "import",
        "app/installed.py",
        "app.ports.redis.module is not rendered",
    ),
    "a dependency that is not declared": Fault(
        append("template/app/kit/ids.py", "\nimport numpy\n"), "dependency", "app/kit/ids.py", "numpy is imported"
    ),
    "a dependency under too narrow a condition": Fault(
        replace(
            "template/pyproject.toml.jinja",
            '{% if modules.postgresql.selected %}\n    "asyncpg',
            '{% if modules.redis.selected %}\n    "asyncpg',
        ),
        "dependency",
        "app/ports/db/postgresql.py",
        "asyncpg is imported and not declared",
    ),
    "a dependency that nobody uses": Fault(
        replace("template/pyproject.toml.jinja", '    "alembic>=', '    "aardvark>=1,<2",\n    "alembic>='),
        "dependency",
        "pyproject.toml",
        "aardvark is declared and not used",
    ),
    "a setting that no example names": Fault(
        replace(
            "template/app/ports/redis/module.py",
            "    redis_url: SecretURL",
            "    redis_size: int = 4\n    redis_url: SecretURL",
        ),
        "setting",
        "app/ports/redis/module.py",
        "REDIS_SIZE is not in .env.example",
    ),
    "an example under the wrong condition": Fault(
        replace("template/.env.example.jinja", "{% if modules.redis.selected %}", "{% if modules.docker.selected %}"),
        "setting",
        ".env.example",
        "REDIS_URL is no setting",
    ),
    "a variable in compose that is no setting": Fault(
        replace("template/compose.yaml.jinja", "    HOST: 0.0.0.0\n", "    HOST: 0.0.0.0\n    HOTS: 0.0.0.0\n"),
        "setting",
        "compose.yaml",
        "HOTS is no setting",
    ),
    "a path that is not there": Fault(
        replace("extensions/modules.yml", "/app/ports/redis,", "/app/ports/reddis,"),
        "ownership",
        "extensions/modules.yml",
        "/app/ports/reddis, which is not there",
    ),
    "a path that is owned twice": Fault(
        replace("extensions/modules.yml", "owns: [/.gitlab-ci.yml]", "owns: [/.gitlab-ci.yml, /.github]"),
        "ownership",
        "extensions/modules.yml",
        "is owned by github and gitlab",
    ),
    "a dead value": Fault(
        replace("copier.yml", '    "Redis - rate', '    "MySQL": mysql\n    "Redis - rate'),
        "dead value",
        "copier.yml",
        "databases: mysql changes nothing",
    ),
    "a Python text that does not parse": Fault(
        replace("template/app/installed.py.jinja", "    postgresql,\n", "    postgresql\n"),
        "syntax",
        "app/installed.py",
        "",
    ),
    "a YAML text that does not parse": Fault(
        replace("template/compose.yaml.jinja", "  redis:\n    <<: *hardened", "  redis:\n   <<: *hardened"),
        "syntax",
        "compose.yaml",
        "",
    ),
    "a line that is not formatted, in one variant": Fault(
        replace("template/app/installed.py.jinja", "    projects,\n", "    projects ,\n"),
        "format",
        "app/installed.py",
        "",
    ),
    "an unsorted import, in one variant": Fault(
        replace(
            "template/app/ports/db/adapters.py.jinja",
            "{% if modules.postgresql.selected %}\nfrom app.ports.db.postgresql import open_postgresql\n{% endif %}\n"
            "from app.ports.db.sqlite import open_sqlite\n",
            "from app.ports.db.sqlite import open_sqlite\n"
            "{% if modules.postgresql.selected %}\nfrom app.ports.db.postgresql import open_postgresql\n{% endif %}\n",
        ),
        "ruff",
        "app/ports/db/adapters.py",
        "I001",
    ),
    "a link that leads nowhere": Fault(
        append("template/AGENTS.md.jinja", "See [the image](Dockerfile).\n"),
        "link",
        "AGENTS.md",
        "Dockerfile is not rendered",
    ),
    "a command that is gone": Fault(
        append("template/README.md.jinja", "Run `make up`.\n"), "command", "README.md", "the Makefile has no up"
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(template: Path, tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    root = shutil.copytree(template, tmp_path / "template")
    fault.plant(root)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    found = run(prove(root), scratch)
    named = [
        item for item in found if (item.check, item.path) == (fault.check, fault.path) and fault.words in item.message
    ]
    assert named, [str(violation) for violation in found]


@pytest.mark.parametrize("name", ["an import of an unselected module", "an import in a seam without its condition"])
def test_a_counter_example_fails_when_copied(template: Path, tmp_path: Path, name: str) -> None:
    fault = FAULTS[name]
    root = shutil.copytree(template, tmp_path / "template")
    fault.plant(root)
    violation: Violation = next(item for item in checks.imports(prove(root)) if item.path == fault.path)
    assert violation.example is not None
    copier.run_copy(str(root), tmp_path / "service", data=violation.example, defaults=True, quiet=True, skip_tasks=True)
    line = (tmp_path / "service" / violation.path).read_text("utf-8").splitlines()[violation.line - 1]
    module = line.split()[1].replace(".", "/")
    assert not (tmp_path / "service" / f"{module}.py").exists()


@pytest.mark.parametrize(
    ("plant", "words"),
    [
        (append("template/README.md.jinja", "{{ _copier_conf.src_path }}\n"), "_copier_conf is read"),
        (replace("extensions/modules.yml", "{{ 'redis' in databases }}", "{{ project_name == 'x' }}"), "no condition"),
        (replace("extensions/modules.yml", "needs: [users, lists, soft_delete]", "needs: [nobody]"), "no such module"),
    ],
)
def test_what_has_no_model_is_refused(
    template: Path, tmp_path: Path, plant: Callable[[Path], None], words: str
) -> None:
    root = shutil.copytree(template, tmp_path / "template")
    plant(root)
    with pytest.raises(UnmodelledError, match=words):
        prove(root)


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

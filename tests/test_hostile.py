"""Open answers may hold anything: each is refused with a sentence, or stands in every file as it was given."""

import ast
import shutil
import tempfile
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import Answers, files, render, run
from formats import parse
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

FIRST_PARTY = 'lint.isort.known-first-party = ["app", "conftest", "migrations", "tests"]'
SENTENCES = ("holds a line break", "is empty: write", "is the most: shorten it")
NASTY = [
    '"quotes"',
    "it's",
    "'''",
    '"""',
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{# no #}",
    "# heading",
    "key: value",
    "- item",
    "\\n \\",
    "$HOME $$ ${X}",
    "`id` $(id)",
    "%s %(x)s {x}",
    "<b>&amp;</b>",
    "[link](x)",
    "*",
    "&anchor",
    "!tag",
    "| pipe >",
    "@at",
    "~",
    "null",
    "yes",
    "0x10",
    "1e3",
    "\U0001f680\U0001f469\u200d\U0001f4bb\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "مرحبا بالعالم",
    "עברית (מאוד)",
    "日本語のサービス",
    "It’s – ‘so’ “said”",
    " spaced ",
    "/* x */",
    "<!-- x -->",
    "--",
    "a\xa0b",
    "x" * 200,
    "é" * 60,
    "line\nbreak",
    "\x00",
    "\x1b[31m",
    "\ufeff",
    "",
    "   ",
    "a\u2028b",
    "a\u202eb",
]
text = st.one_of(
    st.sampled_from(NASTY),
    st.text(st.characters(codec="utf-8"), max_size=60),
    st.text(st.sampled_from("\"'\\{}%#:$`<>|&-*![]@ \n"), max_size=60),
    st.text(st.characters(codec="utf-8", categories=("L", "M", "N", "P", "S", "Zs")), min_size=1, max_size=200),
)


@pytest.fixture(scope="session")
def seams(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with only those files of the skeleton that Jinja renders: the others never change."""
    target = tmp_path_factory.mktemp("seams") / "template"

    def others(folder: str, names: list[str]) -> list[str]:
        skeleton = Path(folder).is_relative_to(template / "template")
        return [name for name in names if skeleton and Path(folder, name).is_file() and not name.endswith(".jinja")]

    shutil.copytree(template, target, ignore=others)
    return target


def check(seams: Path, answers: Answers) -> bool:
    """Render with these answers, and read them back. Returns whether they were taken."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "service"
        try:
            service = render(seams, target, answers)
        except ValueError as refusal:
            assert any(sentence in str(refusal) for sentence in SENTENCES), refusal  # noqa: PT017
            assert not target.exists()
            return False
        for path in files(service):
            parse(service / path)
        recorded = yaml.safe_load((service / ".copier-answers.yml").read_text("utf-8"))
        assert {key: recorded[key] for key in answers} == answers
        project = tomllib.loads((service / "pyproject.toml").read_text("utf-8"))["project"]
        assert project["description"] == recorded["project_description"]
        assert project["authors"][0]["name"] == recorded["author_name"]
        constants = python_constants(service / "app" / "installed.py")
        assert constants["TITLE"] == recorded["project_name"]
        assert constants["DESCRIPTION"] == recorded["project_description"]
        run("ruff", "format", "--no-cache", "--check", ".", cwd=service)
        # The modules that imports name are not there to be seen.
        run("ruff", "check", "--no-cache", "--config", FIRST_PARTY, ".", cwd=service)
    return True


def python_constants(path: Path) -> dict[str, object]:
    """Return the constants of a Python file that are written out in it."""
    return {
        node.targets[0].id: node.value.value
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }


@pytest.mark.parametrize("nasty", NASTY, ids=lambda nasty: ascii(nasty)[:30])
def test_what_is_known_to_break_things(seams: Path, nasty: str) -> None:
    # What is taken in all places at once is taken in each; what is refused may be so for one of them.
    if not check(seams, {"project_name": nasty, "project_description": nasty, "author_name": nasty}):
        taken = [key for key in ("project_name", "project_description", "author_name") if check(seams, {key: nasty})]
        if taken:
            check(seams, dict.fromkeys(taken, nasty))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=text, description=text, author=text)
@example(name="'" * 55, description='"' * 104, author="\\")
@example(name="日" * 55, description="日" * 104, author="日")
def test_anything_else(seams: Path, name: str, description: str, author: str) -> None:
    check(seams, {"project_name": name, "project_description": description, "author_name": author})

"""What the Markdown says is so: commands, files and links are there, and nothing is said of what was not chosen."""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import COMBINATIONS, ROOT, questions, servers_of

Rendered = Callable[[str], Path]
each_combination = pytest.mark.parametrize("name", COMBINATIONS)
# Words that give a module away. Lower case is for code, such as a path, and a word's other spellings are not meant.
WORDS = {
    "postgresql": r"postgres|asyncpg",
    "redis": r"redis",
    "arq": r"\barq\b",
    "celery_redis": r"celery_redis",
    "celery_rabbitmq": r"celery_rabbitmq|rabbitmq",
    "smtp": r"smtp",
    "resend": r"resend",
    "sendgrid": r"sendgrid",
    "s3": r"\bs3_|minio",
    "r2": r"\br2",
    "cloudinary": r"cloudinary",
    "projects": r"app/modules/projects|projects\b(?! that)",
    "realtime": r"realtime|REALTIME_|WebSocket",
    "docker": r"docker|compose\.yaml|\bimage\b",
    "github": r"github actions|dependabot",
    "gitlab": r"gitlab",
    "prometheus": r"prometheus|METRICS_|/metrics",
    "oidc": r"oidc|openid",
    "supabase": r"supabase",
    "clerk": r"clerk",
    "local": r"argon2|(?<!S3_)PUBLIC_URL|\bAUTH_|/auth/|create-admin",
}
QUESTION_OF = {
    "postgresql": "databases",
    "redis": "databases",
    "arq": "queue",
    "celery_redis": "queue",
    "celery_rabbitmq": "queue",
    "smtp": "email_providers",
    "resend": "email_providers",
    "sendgrid": "email_providers",
    "s3": "storage_providers",
    "r2": "storage_providers",
    "cloudinary": "storage_providers",
    "projects": "features",
    "realtime": "features",
    "prometheus": "observability",
    "docker": "deploy",
    "github": "ci",
    "gitlab": "ci",
    "oidc": "auth_provider",
    "supabase": "auth_provider",
    "clerk": "auth_provider",
    "local": "auth_provider",
}
DEFAULT = {
    "auth_provider": "none",
    "databases": [],
    "queue": "none",
    "email_providers": [],
    "storage_providers": [],
    "features": [],
    "observability": [],
    "deploy": ["docker"],
    "ci": ["github"],
}
DOCUMENTS = ("README.md", "AGENTS.md", "CHANGELOG.md")
OWN_DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
)
PATH = re.compile(
    r"\.[a-z][\w.-]+|(app|tests|migrations|scripts|data)/[\w./*-]*|\w+(\.(md|toml|txt|lock|yaml)|file)|LICENSE"
)
# What setup makes.
MADE_LATER = {".env", "uv.lock", "data/app.db", "migrations/versions"}


def code(text: str) -> Iterator[str]:
    """Yield what stands between backticks, and the lines of fenced blocks."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from (line.split("  #")[0].strip() for line in block.splitlines())
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def words_of(commands: Iterator[str], program: str) -> set[str]:
    """Return the words that stand behind a program's name in some commands."""
    found = (re.match(rf"{program} ([a-z][a-z -]*[a-z])", command) for command in commands)
    return {word for match in found if match for word in match[1].split()}


def targets(makefile: Path) -> set[str]:
    """Return the targets of a Makefile."""
    return set(re.findall(r"^([a-z][a-z-]*):", makefile.read_text("utf-8"), re.MULTILINE))


@each_combination
def test_nothing_is_said_of_what_was_not_chosen(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    for module, question in QUESTION_OF.items():
        answers = COMBINATIONS[name]
        if module in answers.get(question, DEFAULT[question]) or module in servers_of(answers):
            continue
        for path in (*DOCUMENTS, "pyproject.toml", "Makefile", ".env.example"):
            text = (service / path).read_text("utf-8")
            found = re.search(WORDS[module], text, re.IGNORECASE)
            assert not found, (
                f"{path} speaks of {module}: {found and text[max(0, found.start() - 60) : found.end() + 20]}"
            )


@each_combination
def test_make_targets_exist(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    known = targets(service / "Makefile")
    for document in DOCUMENTS:
        said = words_of(code((service / document).read_text("utf-8")), "make")
        assert said - {"m"} <= known, document
    assert known >= {"help", "setup", "dev", "test", "lint", "format", "types", "migrate", "env-example"}


def test_every_target_has_its_plain_command(rendered: Rendered) -> None:
    """On Windows there is no make: README.md names the commands behind each target, as they are."""
    service = rendered("all-lists")
    rows = dict(
        re.findall(r"^\| `make ([a-z-]+)` \| (.+?) \|", (service / "README.md").read_text("utf-8"), re.MULTILINE)
    )
    assert set(rows) == targets(service / "Makefile") - {"help", "setup"}
    makefile = (service / "Makefile").read_text("utf-8").replace("$(BIN)/", "").replace("$(PYTHON)", "python")
    for target, commands in rows.items():
        for command in re.findall(r"`([^`]+)`", commands):
            assert command in makefile, f"make {target} does something else than {command}"


@each_combination
def test_commands_of_the_service_exist(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    known = set(re.findall(r"^@cli\.command\(\)\ndef (\w+)", (service / "app/cli.py").read_text("utf-8"), re.MULTILINE))
    groups: dict[str, Path] = {}
    for path in service.glob("app/*/*/commands.py"):
        named = re.search(r'typer\.Typer\(name="([\w-]+)"', path.read_text("utf-8"))
        groups[named[1] if named else path.parent.name] = path
    options = set(re.findall(r'"(--[a-z-]+)"', (service / "app/cli.py").read_text("utf-8")))
    said = [
        part for document in DOCUMENTS for part in code((service / document).read_text("utf-8")) if part[:4] == "app "
    ]
    assert said
    for command in said:
        _, subcommand, *rest = command.split()
        assert subcommand in known | groups.keys(), command
        if subcommand in groups:
            text = groups[subcommand].read_text("utf-8")
            ways = (
                [f"def {rest[0].replace('-', '_')}(", f'.command("{rest[0]}")']
                if rest
                else ["invoke_without_command=True"]
            )
            assert any(way in text for way in ways), command
        else:
            assert set(rest) <= options, command


@each_combination
def test_what_the_documents_run_is_installed(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    project = tomllib.loads((service / "pyproject.toml").read_text("utf-8"))
    wanted = "\n".join([*project["project"]["dependencies"], *project["dependency-groups"]["dev"]])
    packages = {
        "lint-imports": "import-linter",
        "pytest": "pytest",
        "ruff": "ruff",
        "mypy": "mypy",
        "alembic": "alembic",
    }
    text = (service / "README.md").read_text("utf-8")
    for command, package in packages.items():
        assert f"`{command}" in text
        assert f"{package}" in wanted
    for option, package in {
        "--numprocesses": "pytest-xdist",
        "--cov": "pytest-cov",
        "pre-commit": "pre-commit",
    }.items():
        assert option in text
        assert package in wanted


@each_combination
def test_files_that_are_named_exist(rendered: Rendered, name: str) -> None:
    service = rendered(name)
    for document in DOCUMENTS:
        said = re.findall(r"`([^`\n]+)`", (service / document).read_text("utf-8"))
        paths = [text for text in said if PATH.fullmatch(text) and text.strip("/") not in MADE_LATER]
        assert paths or document == "CHANGELOG.md"
        for path in paths:
            assert any(service.glob(path.strip("/"))), f"{document} names {path}"


@each_combination
def test_links_of_the_service_lead_somewhere(rendered: Rendered, name: str) -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)]+)\)", (rendered(name) / document).read_text("utf-8")):
            assert target.startswith("https://") or (rendered(name) / target).exists(), f"{document} links to {target}"


@each_combination
def test_settings_that_are_named_exist(rendered: Rendered, name: str) -> None:
    """A setting is spelled as in .env.example; a `_FILE` one stands for the setting that it reads."""
    service = rendered(name)
    known = set(re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", (service / ".env.example").read_text("utf-8"), re.MULTILINE))
    if (service / "compose.yaml").exists():
        known |= set(re.findall(r"\$\{(\w+)", (service / "compose.yaml").read_text("utf-8")))
    known |= {"TEST_POSTGRES_URL", "TEST_REDIS_URL", "TEST_RABBITMQ_URL", "LICENSE", "MODULES", "SIGTERM"}
    said = re.findall(r"`([A-Z][A-Z_]+)(?:=[^`]*)?`", (service / "README.md").read_text("utf-8"))
    assert said
    assert {setting.removesuffix("_FILE") for setting in said} <= known


def test_a_printed_update_can_be_run_as_it_is(rendered: Rendered) -> None:
    """It needs trust, because there is a task; and only the one that asks again leaves `--defaults` out."""
    service = rendered("all-lists")
    paths = [ROOT / document for document in OWN_DOCUMENTS]
    paths += [ROOT / "copier.yml", service / "README.md", service / ".copier-answers.yml"]
    found = [
        (path.name, command)
        for path in paths
        for command in re.findall(r"copier update (?!--trust` )[^`\n]*?--[^`\n#]*", path.read_text("utf-8"))
    ]
    assert {name for name, _ in found} >= {"updating.md", "copier.yml", "README.md", ".copier-answers.yml"}
    for name, command in found:
        assert "--trust" in command, f"{name}: {command}"
        assert ("--defaults" in command) is ("customize=true" not in command), f"{name}: {command}"


@pytest.mark.parametrize("document", OWN_DOCUMENTS)
def test_links_of_the_template_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text("utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), f"{document} links to {target}"


@pytest.mark.parametrize("document", OWN_DOCUMENTS)
def test_targets_of_the_template_exist(document: str) -> None:
    known = targets(ROOT / "Makefile") | targets(ROOT / "template" / "Makefile.jinja")
    assert words_of(code((ROOT / document).read_text("utf-8")), "make") - {"m"} <= known


def test_every_question_and_choice_is_documented() -> None:
    text = (ROOT / "docs" / "questions.md").read_text("utf-8")
    for key, question in questions().items():
        assert f"`{key}`" in text, key
        offered = question.get("choices", [])
        for choice in offered.values() if isinstance(offered, dict) else offered:
            assert f"`{choice}`" in text, f"{key}: {choice}"


def test_the_site_has_every_page() -> None:
    text = (ROOT / "mkdocs.yml").read_text("utf-8")
    named = set(re.findall(r": ([a-z-]+\.md)$", text, re.MULTILINE))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}

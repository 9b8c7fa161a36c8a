"""The questions are the ones of the contract; what makes no sense is refused before anything is written."""

import re
import shutil
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from conftest import ROOT, choices, copy, files, questions, render, run

ANSWERS_FILE = "{{ _copier_conf.answers_file }}.jinja"
OPEN = ["project_name", "project_slug", "project_description", "author_name", "author_email"]
CLOSED = {
    "preset": ["minimal", "async_tasks"],
    "customize": [],
    "license": ["MIT", "Apache-2.0", "BSD-3-Clause", "Proprietary"],
    "python_version": ["3.11", "3.12", "3.13", "3.14"],
    "auth_provider": ["none", "local", "oidc", "supabase", "clerk"],
    "databases": ["postgresql", "redis"],
    "queue": ["none", "arq", "celery_redis", "celery_rabbitmq"],
    "email_providers": ["smtp", "resend", "sendgrid"],
    "storage_providers": ["s3", "r2", "cloudinary"],
    "features": ["projects", "files", "realtime", "contact"],
    "observability": ["prometheus"],
    "ci": ["github", "gitlab"],
    "deploy": ["docker"],
}


@pytest.fixture(scope="session")
def questionnaire(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template without its skeleton but for the answers file, for tests of the answers alone."""
    target = tmp_path_factory.mktemp("questionnaire") / "template"
    shutil.copytree(template, target, ignore=lambda folder, names: names if Path(folder).name == "template" else [])
    (target / "template").mkdir(exist_ok=True)
    shutil.copy(template / "template" / ANSWERS_FILE, target / "template")
    return target


def answers(folder: Path) -> dict[str, Any]:
    """Return what the answers file of a service says."""
    text = (folder / ".copier-answers.yml").read_text("utf-8")
    return {key: value for key, value in yaml.safe_load(text).items() if key[0] != "_"}


def test_keys_order_and_choices_are_those_of_the_contract() -> None:
    assert list(questions()) == [*OPEN, *CLOSED]
    assert {key: choices(questions()[key]) for key in CLOSED} == CLOSED


def test_every_question_has_a_help_text_and_closed_ones_wait_for_customize() -> None:
    for key, question in questions().items():
        assert len(question["help"]) > 20, key
        assert question.get("ask") == (None if key in (*OPEN, "preset", "customize") else "{{ customize }}"), key


def test_the_macros_know_the_same_questions() -> None:
    text = (ROOT / "extensions" / "answers.jinja").read_text("utf-8")
    for name, expected in (
        ("questions", list(questions())),
        ("lists", [key for key, question in questions().items() if question.get("multiselect")]),
    ):
        block = text.split(f"{{% set {name} = ")[1].split(" %}")[0]
        assert yaml.safe_load(block) == expected


def test_the_answers_file_records_every_answer(template: Path, tmp_path: Path) -> None:
    recorded = answers(render(template, tmp_path / "service"))
    assert sorted(recorded) == sorted(questions())
    assert recorded["databases"] == recorded["features"] == []
    assert recorded["ci"] == ["github"]
    assert recorded["python_version"] == "3.13"
    assert recorded["customize"] is False


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Service", "my-service"),
        ("Éclair für Straße", "eclair-fur-strasse"),
        ("e\u0301clair", "eclair"),
        ("İstanbul", "istanbul"),
        ("Łódź – Đà Nẵng", "lodz-da-nang"),
        ("🚀🚀", "service"),
        ("مرحبا", "service"),
        ("日本語", "service"),
        ("---", "service"),
        ("3D Printer", "service-3d-printer"),
        ("X", "x-service"),
        ("FastAPI", "fastapi-service"),
        ("Pydantic_Settings", "pydantic-settings-service"),
        ("{{ 7 * 7 }}", "service-7-7"),
        ("a" * 60, "a" * 40),
        ("a" * 39 + " b", "a" * 39),
    ],
)
def test_the_slug_follows_from_the_name(questionnaire: Path, tmp_path: Path, name: str, slug: str) -> None:
    recorded = answers(render(questionnaire, tmp_path / "service", {"project_name": name}))
    assert recorded["project_slug"] == slug


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "name empty": ({"project_name": ""}, "project_name is empty"),
    "name blank": ({"project_name": "  "}, "project_name is empty"),
    "name too long": ({"project_name": "x" * 61}, "project_name has 61 characters, and 60 is the most"),
    "name of two lines": ({"project_name": "a\nb"}, "project_name holds a line break"),
    "name with a tab": ({"project_name": "a\tb"}, "project_name holds a line break"),
    "name that runs backwards": ({"project_name": "a\u202eb"}, "project_name holds a line break"),
    "name with half a character": ({"project_name": "a\ud800b"}, "project_name holds a line break"),
    "description of two lines": ({"project_description": "a\r\nb"}, "project_description holds a line break"),
    "description too long": ({"project_description": "x" * 201}, "200 is the most"),
    "author of two lines": ({"author_name": "a\u2028b"}, "author_name holds a line break"),
    "slug too short": ({"project_slug": "a"}, "change project_slug"),
    "slug with capitals": ({"project_slug": "My-Service"}, "change project_slug"),
    "slug with a line break": ({"project_slug": "ab\n"}, "change project_slug"),
    "slug too long": ({"project_slug": "a" * 41}, "change project_slug"),
    "slug of a dependency": ({"project_slug": "fastapi"}, "change project_slug"),
    "slug of a module's dependency": ({"project_slug": "asyncpg"}, "change project_slug"),
    "no address": ({"author_email": "nobody"}, "author_email is not an e-mail address"),
    "address without a dot": ({"author_email": "a@b"}, "author_email is not an e-mail address"),
    "address with a space": ({"author_email": "a b@c.de"}, "author_email is not an e-mail address"),
    "address of two lines": ({"author_email": "a@b.de\nx"}, "author_email is not an e-mail address"),
    "unknown preset": ({"preset": "huge"}, "Invalid choice for 'preset'"),
    "preset of later": ({"preset": "saas"}, "Invalid choice for 'preset'"),
    "unknown licence": ({"license": "GPL-3.0"}, "Invalid choice for 'license'"),
    "old Python": ({"python_version": "3.10"}, "Invalid choice for 'python_version'"),
    "unknown database": ({"databases": ["oracle"]}, "Invalid choice for 'databases'"),
    "database of later": ({"databases": ["postgresql", "pgvector"]}, "Invalid choice for 'databases'"),
    "neither yes nor no": ({"customize": "maybe"}, 'customize is yes or no, and "maybe" is neither'),
    "a number for yes": ({"customize": 2}, "customize is yes or no"),
    "nothing for no": ({"customize": None}, "customize is yes or no"),
    "nothing for a licence": ({"license": None}, "license takes one value, and null is none"),
    "a list of licences": ({"license": ["MIT"]}, 'license takes one value, and ["MIT"] is none'),
    "a list of Pythons": ({"python_version": ["3.13"]}, "python_version takes one value"),
    "nothing for a preset": ({"preset": None}, "preset takes one value"),
    "nothing for none": ({"ci": None}, "ci takes a list: write ci='[]' for none"),
    "a number": ({"deploy": 1}, "deploy takes a list"),
    "a mapping": ({"features": {"projects": True}}, "features takes a list"),
    "an open list": ({"databases": "[redis"}, "databases takes a list: write databases='[redis]', or databases='[]'"),
    "a list of a comma": ({"databases": "[,]"}, "databases takes a list: write databases='[]' for none"),
    "no list": ({"databases": "redis"}, "databases takes a list: write databases='[redis]'"),
    "empty instead of no": ({"features": ""}, "features takes a list"),
    "misspelt key": ({"databse": ["redis"]}, 'Nothing here is called "databse"; did you mean "databases"?'),
    "key in the singular": ({"feature": ["projects"]}, 'did you mean "features"?'),
    "key of later": ({"payments": ["stripe"]}, 'Nothing here is called "payments": leave it out'),
    "provider of later": ({"auth_provider": "saml"}, "Invalid choice for 'auth_provider'"),
    "key that is not asked": ({"modules": {}}, 'Nothing here is called "modules"'),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_names_what_to_change_and_writes_nothing(template: Path, tmp_path: Path, case: str) -> None:
    data, sentence = REFUSED[case]
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        render(template, tmp_path / "service", data)
    assert sentence in str(refusal.value)
    assert not (tmp_path / "service").exists()


def test_the_command_line_refuses_too_and_leaves_an_existing_folder_alone(template: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", "utf-8")
    done = copy(template, tmp_path, "--skip-tasks", answers={"databse": ["redis"]})
    assert done.status == 1
    assert 'did you mean "databases"?' in done.output.splitlines()[-1]
    assert files(tmp_path) == ["mine.txt"]


def test_suggestions_for_the_author_come_from_this_machine(
    questionnaire: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Ada Lovelace")
    monkeypatch.setenv("EMAIL", "not an address")
    recorded = answers(render(questionnaire, tmp_path / "one"))
    assert recorded["author_name"] == "Ada Lovelace"
    assert recorded["author_email"] == "my-service@example.com"

    settings = tmp_path / "settings.yml"
    settings.write_text(
        "defaults: {user_name: Grace, user_email: grace@example.org, author_email: g@example.org}\n", "utf-8"
    )
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(settings))
    recorded = answers(render(questionnaire, tmp_path / "two"))
    assert (recorded["author_name"], recorded["author_email"]) == ("Grace", "g@example.org")


def test_a_key_that_is_gone_does_not_stop_an_update(questionnaire: Path, tmp_path: Path) -> None:
    """An answers file of an older version may hold an answer to a question that no longer is one."""
    repository, target = tmp_path / "template", tmp_path / "service"
    shutil.copytree(questionnaire, repository)
    commit(repository, "v1.0.0")
    copier.run_copy(str(repository), target, defaults=True, quiet=True, skip_tasks=True)
    with (target / ".copier-answers.yml").open("a", encoding="utf-8") as file:
        file.write("gone: yes\n")
    commit(target, "v0")
    (repository / "template" / "new.txt").write_text("new", "utf-8")
    commit(repository, "v1.1.0")
    copier.run_update(target, defaults=True, quiet=True, overwrite=True, unsafe=True)
    assert (target / "new.txt").exists()
    assert "gone" not in answers(target)


def test_the_printed_updates_work_as_they_are(questionnaire: Path, tmp_path: Path) -> None:
    """The one of the message, then the one in the answers file, by somebody who just copies them."""
    repository, service = tmp_path / "template", tmp_path / "service"
    shutil.copytree(questionnaire, repository)
    commit(repository, "v1.0.0")
    copier.run_copy(str(repository), service, defaults=True, quiet=True, skip_tasks=True)
    commit(service, "v0")
    said = re.search(
        r"`(copier update .+)`", yaml.safe_load((ROOT / "copier.yml").read_text("utf-8"))["_message_before_update"]
    )
    assert said
    run("sh", "-c", said[1], cwd=service)
    assert answers(service)["databases"] == ["postgresql"]
    commit(service, "v1")
    header = (service / ".copier-answers.yml").read_text("utf-8").splitlines()[0]
    command = header.partition(": ")[2].replace("name=value", "license=Apache-2.0")
    run("sh", "-c", command, cwd=service)
    assert answers(service)["license"] == "Apache-2.0"
    assert answers(service)["databases"] == ["postgresql"]


def commit(folder: Path, tag: str) -> None:
    """Commit all of a folder as somebody, and tag it."""
    git = ("git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
    run(*git, "init", "--quiet", cwd=folder)
    run(*git, "add", "--all", cwd=folder)
    run(*git, "commit", "--quiet", "-m", tag, cwd=folder)
    run(*git, "tag", tag, cwd=folder)

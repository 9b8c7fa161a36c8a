"""A module that is off leaves nothing, and the manifest is right about what belongs to whom."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import COMBINATIONS, Answers, files, render

Rendered = Callable[[str], Path]

# What is said of a module by other names than its own. A plain word of the language is told by what stands around it.
WORDS = {
    "anonymous": r"(?<!is_)anonymous(?!_user| user|ly)|built.in user",
    "access": r"\baccess\.|\baccess import|app access|/admin/users|readonly|deactivat",
    "oidc": r"oidc|openid(?! connect core)",
    "supabase": r"supabase",
    "clerk": r"\bclerk|clerk_",
    "local": r"local accounts|modules.accounts|argon2|zxcvbn|(?<!s3_)PUBLIC_URL|\bAUTH_(?!require)|create.admin"
    r"|\bmfa\b|totp|passkey|webauthn",
    "projects": r"\bprojects\b",
    "contact": r"\bcontact\b|contact_|outgoing|webhooks that are sent",
    "realtime": r"\brealtime\b",
    "files": r"\bFILES_|modules[./]files|app/files|upload-url",
    "postgresql": r"postgres|asyncpg",
    "redis": r"\bredis(?!tribut)|_redis",
    "arq": r"\barq\b",
    "celery": r"celery|kombu",
    "celery_redis": r"celery_redis|redis\+socket",
    "celery_rabbitmq": r"celery_rabbitmq|quorum",
    "rabbitmq": r"rabbitmq",
    "smtp": r"smtp(?!utf8|api)",
    "resend": r"\bresend|_resend",
    "sendgrid": r"sendgrid",
    "s3": r"\bs3_(?!api|server|client)|s3storage|minio",
    "r2": r"\br2|r2_",
    "cloudinary": r"cloudinary",
    "s3_api": r"\bboto|\bmoto\b",
    "storage": r"STORAGE_|storage port",
    "prometheus": r"prometheus|METRICS_|modules[./]metrics|metrics_",
    "docker": r"docker|\bcompose\b",
    "github": r"github(?!\.com/)",
    "gitlab": r"gitlab",
}


# What only one of several answers brings.
_SIGNED_IN = {
    "access",
    "api_keys",
    "bearer",
    "contact_users",
    "privacy",
    "privacy_objects",
    "realtime_access",
    "reports",
    "reports_files",
}
_PROVIDER = {*_SIGNED_IN, "mirror", "jwks"}
_DIRECTORY = {*_PROVIDER, "directory", "webhooks"}
BEHIND: dict[str, dict[str, set[str]]] = {
    "auth_provider": {
        "none": {"anonymous"},
        "local": {*_SIGNED_IN, "privacy_accounts", "accounts", "mfa", "local"},
        "oidc": {*_PROVIDER, "oidc"},
        "supabase": {*_DIRECTORY, "supabase"},
        "clerk": {*_DIRECTORY, "clerk"},
    },
    "queue": {
        "none": set(),
        "arq": {"brokers", "arq"},
        "celery_redis": {"brokers", "celery", "celery_redis"},
        "celery_rabbitmq": {"brokers", "celery", "celery_rabbitmq", "rabbitmq"},
    },
}
# What is there only where something else is not.
INSTEAD = {"privacy_rows"}
# Between them, these have everything but that.
WHOLE = [name for name in COMBINATIONS if name.startswith("all-")]


def modules(template: Path, target: Path, answers: Answers | None = None) -> dict[str, dict[str, Any]]:
    """Return what the manifest says under some answers, seen through a template of one file."""
    skeleton = target / "probe" / "template"
    skeleton.mkdir(parents=True)
    (skeleton / "modules.json.jinja").write_text("{{ modules | to_json }}\n", "utf-8")
    (target / "probe" / "copier.yml").write_bytes((template / "copier.yml").read_bytes())
    extensions = target / "probe" / "extensions"
    extensions.mkdir()
    for path in (template / "extensions").iterdir():
        if path.is_file():
            (extensions / path.name).write_bytes(path.read_bytes())
    found = render(target / "probe", target / "probed", answers) / "modules.json"
    return dict(json.loads(found.read_text("utf-8")))


def owned(path: str, patterns: list[str]) -> bool:
    """Return whether a path lies under one of the patterns of the manifest."""
    return any(f"/{path}" == pattern or f"/{path}".startswith(f"{pattern}/") for pattern in patterns)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_what_is_off_leaves_no_file_and_no_word(rendered: Rendered, template: Path, tmp_path: Path, name: str) -> None:
    service = rendered(name)
    manifest = modules(template, tmp_path, COMBINATIONS[name])
    off = {module: entry for module, entry in manifest.items() if not entry["selected"]}
    found = [
        f"{path} belongs to {module}"
        for module, entry in off.items()
        for path in files(service)
        if owned(path, entry["owns"])
    ]
    for module in off.keys() & WORDS.keys():
        word = re.compile(WORDS[module], re.IGNORECASE)
        for path in files(service):
            if path == ".copier-answers.yml":
                continue
            text = (service / path).read_text("utf-8")
            for number, line in enumerate([path, *text.splitlines()]):
                if word.search(line):
                    found.append(f"{path}:{number} speaks of {module}: {line.strip()}")
    assert found == []


def test_each_choice_that_can_be_off_has_its_words(template: Path, tmp_path: Path) -> None:
    alternatives = {module for behind in BEHIND.values() for modules in behind.values() for module in modules}
    for name in WHOLE:
        manifest = modules(template, tmp_path / name, COMBINATIONS[name])
        off = {module for module, entry in manifest.items() if not entry["selected"]}
        assert off == INSTEAD | alternatives.difference(
            *(behind[COMBINATIONS[name].get(question, "none")] for question, behind in BEHIND.items())
        ), name
    chosen = [choice for choices in COMBINATIONS["all-lists"].values() for choice in choices]
    others = [value for behind in BEHIND.values() for value in behind if value != "none"]
    assert sorted(WORDS) == sorted([*chosen, "access", "anonymous", "celery", "rabbitmq", "s3_api", "storage", *others])


def test_every_owned_path_is_there_when_all_is_on(rendered: Rendered, template: Path, tmp_path: Path) -> None:
    whole = {path for name in WHOLE for path in files(rendered(name))}
    single = {path for name in COMBINATIONS if name not in WHOLE for path in files(rendered(name))}
    for name, entry in modules(template, tmp_path).items():
        there = single - whole if name in INSTEAD else whole
        for pattern in entry["owns"]:
            assert any(owned(path, [pattern]) for path in there), f"{name} owns {pattern}, which is not there"


def test_every_module_folder_has_its_owner(rendered: Rendered, template: Path, tmp_path: Path) -> None:
    manifest = modules(template, tmp_path)
    for path in sorted({path for name in WHOLE for path in files(rendered(name))}):
        if path.startswith(("app/modules/", "tests/modules/")) and len(Path(path).parts) > len(("app", "modules", "x")):
            owner = Path(path).parts[2]
            assert owned(path, manifest[owner]["owns"]), path


def test_needs_are_closed_over(template: Path, tmp_path: Path) -> None:
    """A chain of needs of any length is followed, in whatever order the manifest lists it."""
    changed = tmp_path / "changed"
    (changed / "extensions").mkdir(parents=True)
    for path in (template / "extensions").iterdir():
        if path.is_file():
            (changed / "extensions" / path.name).write_bytes(path.read_bytes())
    (changed / "copier.yml").write_bytes((template / "copier.yml").read_bytes())
    chain = {"d": [], "b": ["c"], "lonely": ["d"], "c": ["d", "b"], "a": ["b"]}
    manifest = {name: {"selected": name == "a", "owns": [], "needs": needs} for name, needs in chain.items()}
    (changed / "extensions" / "modules.yml").write_text(yaml.safe_dump(manifest), "utf-8")
    found = modules(changed, tmp_path)
    assert {name for name, entry in found.items() if entry["selected"]} == {"a", "b", "c", "d"}

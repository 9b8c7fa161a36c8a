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
    "local": r"local accounts|modules.accounts|argon2|zxcvbn|PUBLIC_URL|\bAUTH_(?!require)|create.admin",
    "projects": r"\bprojects\b",
    "postgresql": r"postgres|asyncpg",
    "redis": r"\bredis(?!tribut)|_redis",
    "smtp": r"smtp(?!utf8|api)",
    "resend": r"\bresend|_resend",
    "sendgrid": r"sendgrid",
    "docker": r"docker|\bcompose\b",
    "github": r"github(?!\.com/)",
    "gitlab": r"gitlab",
}


# Between them, these have everything.
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
    for name in WHOLE:
        manifest = modules(template, tmp_path / name, COMBINATIONS[name])
        off = {module for module, entry in manifest.items() if not entry["selected"]}
        here, there = {"accounts", "local"}, {"jwks", "mirror"}
        told = {"directory", "webhooks"}
        others = {"clerk", "oidc", "supabase"}
        assert off == {
            "all-lists": {"access", "api_keys", "bearer", *there, *told, *others, *here},
            "all-local": {"anonymous", *there, *told, *others},
            "all-oidc": {"anonymous", *here, *told, *others - {"oidc"}},
            "all-supabase": {"anonymous", *here, *others - {"supabase"}},
            "all-clerk": {"anonymous", *here, *others - {"clerk"}},
        }.get(name)
    choices = [choice for choices in COMBINATIONS["all-lists"].values() for choice in choices]
    assert sorted(WORDS) == sorted([*choices, "access", "anonymous", "local", *others])


def test_every_owned_path_is_there_when_all_is_on(rendered: Rendered, template: Path, tmp_path: Path) -> None:
    there = {path for name in WHOLE for path in files(rendered(name))}
    for name, entry in modules(template, tmp_path).items():
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

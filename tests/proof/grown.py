"""The template with many more modules than it has: the slice of projects, again and again under other names.

It shows how the proof grows, with files, imports, tables, routes and seams as they really are.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from string import ascii_lowercase

from evidence import CONTRACT

SLICES = ("app/modules/projects", "tests/modules/projects")
# A line that only projects have, a condition around lines, and a word in a sentence.
BLOCK = re.compile(r"^\{% if modules\.projects\.selected %\}\n(?:(?!\{% ).*\n)+\{% endif %\}\n", re.MULTILINE)
WORD = "{{ ', projects' if modules.projects.selected }}"


def word(number: int) -> str:
    """Return a word as long as `project` that sorts before it, so that texts stay formatted."""
    letters = ""
    for _ in range(4):
        number, letter = divmod(number, 26)
        letters = ascii_lowercase[letter] + letters
    return f"pro{letters}"


def renamed(text: str, name: str) -> str:
    """Return a text about projects as one about something else."""
    for form in (str.lower, str.capitalize, str.upper):
        text = text.replace(form("project"), form(name))
    return text


def grow(template: Path, target: Path, modules: int) -> tuple[Path, Path]:
    """Copy a template and add modules. Returns it, and the contract for it."""
    root = shutil.copytree(template, target / "template")
    names = [word(number) for number in range(modules)]
    for path in sorted((root / "template").rglob("*.jinja")):
        if path.name in {"installed.py.jinja", "README.md.jinja"}:
            text = BLOCK.sub(
                lambda found: "".join(renamed(found[0], name) for name in [*names, "project"]), path.read_text()
            )
            path.write_text(text.replace(WORD, "".join(renamed(WORD, name) for name in ["project", *names])))
    for name in names:
        for part in SLICES:
            for source in (path for path in (root / "template" / part).rglob("*") if path.is_file()):
                copy = root / "template" / renamed(source.relative_to(root / "template").as_posix(), name)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(renamed(source.read_text("utf-8"), name), "utf-8")
    add(root / "extensions" / "modules.yml", r"^projects:\n(?:  .*\n)+", names)
    add(root / "copier.yml", r'^    "projects - .*\n', names)
    contract = target / CONTRACT.name
    shutil.copy(CONTRACT, contract)
    add(contract, r"^  - when: \"'projects' in features\"\n    paths:\n(?:      .*\n)+", names)
    return root, contract


def add(path: Path, pattern: str, names: list[str]) -> None:
    """Repeat what a file says of projects under other names."""
    text = path.read_text("utf-8")
    found = re.search(pattern, text, re.MULTILINE)
    assert found, f"{path.name} does not speak of projects as it did"
    copies = "".join(renamed(found[0], name) for name in names)
    path.write_text(text[: found.end()] + copies + text[found.end() :], "utf-8")

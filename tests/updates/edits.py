"""What owners do to their services between two updates, drawn at random, and what has to be left of it afterwards."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hypothesis import strategies as st
from lab import OWN, ROOT, Answers, Lab, commit, contents, recorded, run, status

Kind = Literal["insert", "replace", "cut", "empty", "bytes", "run", "link", "delete", "rename", "add"]
KINDS: tuple[Kind, ...] = ("insert", "replace", "cut", "empty", "bytes", "run", "link", "delete", "rename", "add")
BYTES = b"\x00\xff\xfe owner \x00"
# Copier writes it at each update and says so in its first line; what setup makes is checked on its own.
NOT_TO_EDIT = {".copier-answers.yml"}
# An update makes it anew where it is missing: Copier skips such files only where they exist.
MADE_ANEW = {"CHANGELOG.md"}
REPORT = """
import json, sys
sys.path.insert(0, sys.argv[1])
import post_update

lost, doubt = post_update.find_losses(post_update.Call(sys.executable, ".copier-answers.yml"))
print(json.dumps([*post_update.conflicts(), *lost]), doubt, sep="\\n")
"""


@dataclass(frozen=True)
class Edit:
    """One edit; `place` says where in the file, from 0 to 1."""

    kind: Kind
    path: str
    place: float

    @property
    def token(self) -> str:
        """A text that is nowhere else."""
        return f"owner {self.kind} {int(self.place * 1000)} {self.path}"

    @property
    def renamed(self) -> str:
        """Where the file is after it was renamed."""
        path = Path(self.path)
        return path.with_name(f"own_{path.name.lstrip('.')}").as_posix()

    def apply(self, service: Path) -> None:
        """Do it."""
        path = service / self.path
        lines = [] if self.kind == "add" else path.read_text("utf-8").splitlines(keepends=True)
        at = min(int(self.place * len(lines)), max(len(lines) - 1, 0))
        mine = f"# {self.token}\n"
        texts = {
            "insert": [*lines[:at], mine, *lines[at:]],
            "replace": [*lines[:at], mine, *lines[at + 1 :]],
            "cut": [*lines[:at], *lines[at + 3 :]],
            "empty": [],
            "add": [mine],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.kind in texts:
            path.write_text("".join(texts[self.kind]), "utf-8")
        elif self.kind == "bytes":
            path.write_bytes(BYTES)
        elif self.kind == "run":
            path.chmod(0o755)
        elif self.kind == "rename":
            path.rename(service / self.renamed)
        else:
            path.unlink()
            if self.kind == "link":
                path.symlink_to("README.md")

    def survives(self, made: Path, before: Path, service: Path) -> bool:
        """Return whether what was done is still there. `before` is the service as its owner had committed it."""
        path, old = service / self.path, before / self.path
        gone = not path.exists() or self.path in MADE_ANEW
        same = path.is_file() and old.is_file() and path.read_bytes() == old.read_bytes()
        moved, kept = service / self.renamed, (before / self.renamed).read_bytes() if self.kind == "rename" else b""
        if self.kind == "cut":
            return path.is_file() and not cut_lines(made / self.path, old) & cut_lines(path, None)
        return {
            "insert": path.is_file() and self.token.encode() in path.read_bytes(),
            "replace": path.is_file() and self.token.encode() in path.read_bytes(),
            "add": path.is_file() and self.token.encode() in path.read_bytes(),
            "empty": same,
            "bytes": same,
            "run": path.is_file() and bool(path.stat().st_mode & 0o100),
            "link": path.is_symlink(),
            "delete": gone,
            "rename": gone and moved.is_file() and moved.read_bytes() == kept,
        }[self.kind]


def cut_lines(old: Path, new: Path | None) -> set[str]:
    """Return the lines that are in one text once, and not in another."""
    lines = old.read_text("utf-8").splitlines()
    others = new.read_text("utf-8").splitlines() if new else []
    return {line for line in lines if lines.count(line) == 1 and line not in others}


def edits(there: list[str], coming: list[str]) -> st.SearchStrategy[list[Edit]]:
    """Draw edits of files that are there, and additions, among them of files that the update brings too."""
    old = st.builds(
        Edit,
        st.sampled_from([kind for kind in KINDS if kind != "add"]),
        st.sampled_from([path for path in there if path not in NOT_TO_EDIT]),
        st.floats(0, 1),
    )
    own = ["notes.md", "app/modules/shop/module.py", "tests/modules/shop/test_shop.py", "größe & co.txt", "a b/c d.md"]
    new = st.builds(Edit, st.just("add"), st.sampled_from([*own, *coming]), st.floats(0, 1))
    return st.lists(old | new, min_size=3, max_size=14, unique_by=lambda edit: edit.path)


@dataclass(frozen=True)
class Step:
    """From a version with answers to another with others."""

    version: str
    answers: Answers
    to_version: str
    to_answers: Answers


class LossError(AssertionError):
    """Edits that are neither there nor reported."""


@dataclass(frozen=True)
class Life:
    """A service as it was made, and what an untouched one has to become: what a copy with the new answers gives."""

    lab: Lab
    step: Step
    made: Path
    oracle: Path

    @classmethod
    def begin(cls, lab: Lab, step: Step, folder: Path) -> Life:
        """Render both."""
        made = lab.copy(folder / "made", step.version, step.answers)
        oracle = lab.copy(folder / "oracle", step.to_version, recorded(made) | step.to_answers)
        commit(made, "Begin")
        return cls(lab, step, made, oracle)

    def edits(self) -> st.SearchStrategy[list[Edit]]:
        """Draw edits of this service."""
        there = ordinary(self.made)
        return edits(there, [path for path in ordinary(self.oracle) if path not in there])


def live_through(life: Life, drawn: list[Edit], folder: Path) -> None:
    """Edit a copy of a service, update it, and look for every edit. Raises LossError."""
    lab, step, made, oracle = life.lab, life.step, life.made, life.oracle
    before, service = folder / "before", folder / "service"
    shutil.copytree(made, service)
    (service / ".env").write_text("SECRET_KEY=owner\n", "utf-8")
    for edit in drawn:
        edit.apply(service)
    commit(service, "The owner's")
    shutil.copytree(service, before, symlinks=True)
    lab.update(service, step.to_version, step.to_answers)

    said, doubt = run(sys.executable, "-c", REPORT, ROOT / "hooks", cwd=service).splitlines()[-2:]
    reported = set(json.loads(said))
    if doubt:
        raise LossError(doubt)
    lost = [edit for edit in drawn if edit.path not in reported and not edit.survives(made, before, service)]
    if lost:
        raise LossError(f"lost in {step}: {lost}; reported were {sorted(reported)}")
    if (service / ".env").read_text("utf-8") != "SECRET_KEY=owner\n":
        raise LossError(".env was touched")
    touched = {path for edit in drawn for path in (edit.path, edit.renamed)} | NOT_TO_EDIT
    now, expected = contents(service), contents(oracle)
    for path in {*now, *expected} - touched:
        if now.get(path) != expected.get(path) and not path.endswith(".rej"):
            raise LossError(f"{path}, which nobody edited, is not what a copy gives in {step}, with {drawn}")
    # What an owner would do next, with the conflicts as they are: the update is done and does not come again.
    commit(service, "Update")
    lab.update(service, step.to_version)
    if told := status(service):
        raise LossError(f"a second update changes something in {step}, with {drawn}:\n{told}")


def ordinary(folder: Path) -> list[str]:
    """Return the text files of a rendering that an owner may edit."""
    return [name for name in contents(folder, OWN.match) if name not in NOT_TO_EDIT]

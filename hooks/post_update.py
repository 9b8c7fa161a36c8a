"""Finish the update that Copier has just applied to the service in the current directory.

Copier runs this once, in the service itself, when its files are merged, whether the template's version or only an
answer has changed. What Copier does not tell is told here: conflicts, edits of files that went, what came and what
went. Then the new dependencies are installed and the migration is written that the new tables need. Neither `.env` nor
a database is touched, nothing is committed, and git alone takes all of it back. It reads the folder and its last
commit, and keeps no notes, so running it again changes nothing.
"""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# The template may be a folder that is not ours to write to.
sys.dont_write_bytecode = True

import post_copy  # noqa: E402
from post_copy import ROOT, Failed, Step, read, run, settings_in, tool  # noqa: E402

MARKER = "<<<<<<< before updating"
# Where there is no `.env`, and on a database of its own: what is written depends on the code alone.
WRITE_REVISION = """
import logging, os, sys
from alembic.config import main

root, folder, message = sys.argv[1:]
os.chdir(folder)
sys.path.insert(0, root)
logging.basicConfig(stream=sys.stdout, format="%(message)s")
logging.getLogger("alembic.autogenerate").setLevel(logging.INFO)
for command in (["upgrade", "head"], ["revision", "--autogenerate", "--message", message]):
    main(argv=["--config", os.path.join(root, "pyproject.toml"), *command])
"""


@dataclass(frozen=True)
class Call:
    """What Copier says of itself: its Python, and where the service keeps its answers."""

    python: str
    answers: str


def git(*arguments: str, typed: str = "") -> str:
    """Return what git prints. Raises Failed with git's own words."""
    return run("git", *arguments, typed=typed).stdout


def names(*arguments: str) -> list[str]:
    """Return the paths that a command of git lists with `-z`, from the root of the service."""
    return [name for name in git(*arguments).split("\0") if name]


def committed(path: str) -> str:
    """Return the text of a file in the last commit, nothing where there was none."""
    done = run("git", "show", f"HEAD:./{path}", check=False)
    return done.stdout if done.returncode == 0 else ""


@cache
def changed() -> tuple[str, ...]:
    """Return the files of the last commit that the update changed or deleted."""
    return tuple(names("diff", "--name-only", "--no-renames", "--diff-filter=MDTU", "--relative", "-z", "HEAD"))


@cache
def conflicts() -> tuple[str, ...]:
    """Return the files that wait for their owner: unmerged, with markers, or with hunks that did not apply."""
    found = names("diff", "--name-only", "--diff-filter=U", "--relative", "-z")
    touched = set(changed())
    marked = run("git", "grep", "--name-only", "-z", "-e", f"^{MARKER}", check=False).stdout.split("\0")
    found += [name for name in marked if name in touched]
    found += names("ls-files", "--others", "-z", "--", "*.rej", ":(exclude).venv")
    return tuple(dict.fromkeys(found))


def parts(answers: str, installed: str) -> set[str]:
    """Return what a service consists of: the values of its lists of answers, and the modules of `app/installed.py`."""
    listed = re.findall(r"^ *- ['\"]?([\w.-]+)['\"]?$", answers, re.MULTILINE)
    return {*listed, *re.findall(r"^from app\.\S+ import ([a-z]\w*)$", installed, re.MULTILINE)}


def compare_modules(call: Call) -> tuple[list[str], list[str]]:
    """Return what the service has now and did not have before, and the other way round."""
    seam = "app/installed.py"
    before = parts(committed(call.answers), committed(seam))
    after = parts(read(call.answers), read(seam))
    return sorted(after - before), sorted(before - after)


def tell_changes(call: Call) -> str:
    """Say which modules came and went, and how many files did."""
    status = run("git", "status", "--porcelain", "--no-renames", "-z", "--untracked-files=all", ".").stdout
    kinds = [entry[:2] for entry in status.split("\0") if entry]
    gone = sum("D" in kind for kind in kinds)
    counts = {"changed": len(changed()) - gone, "new": kinds.count("??"), "deleted": gone}
    told = [f"{count} {kind}" for kind, count in counts.items() if count > 0]
    came, went = compare_modules(call)
    lines = [f"came: {', '.join(came)}"] if came else []
    lines += [f"went: {', '.join(went)}"] if went else []
    return "\n".join([", ".join(told) or "nothing has changed", *lines, *tell_provider(call)])


def tell_provider(call: Call) -> list[str]:
    """Say what becomes of users when another provider vouches for them. Their rows are the owner's matter."""
    before, after = (
        re.findall(r"^auth_provider: *(.*)$", text, re.MULTILINE)
        for text in (committed(call.answers), read(call.answers))
    )
    if not before or before == after:
        return []
    return [
        f"Users are known by other names now: auth_provider was {before[0]}. Rows stay, and whoever signs in gets a",
        "new one, unless theirs bears the new name first. What to do before that:",
        '"Another provider of identity" in the template\'s docs/updating.md.',
    ]


def tell_edits(call: Call) -> str:
    """Name every file whose edits are not where they were: in conflict, deleted or overwritten. Git has them all."""
    lines = []
    if conflicts():
        lines += ["These have conflicts:", *(f"  {name}" for name in conflicts())]
    lost, doubt = find_losses(call)
    if lost:
        paths = " ".join(map(shlex.quote, lost))
        lines += ["You had edited these, and the template has them no more, or others in their place:"]
        lines += [*(f"  {name}" for name in lost), f"To see your edits: git diff HEAD -- {paths}"]
        lines += [f"To have your files back: git checkout HEAD -- {paths}"]
    if doubt:
        lines += [doubt]
    states = [f"{len(conflicts())} in conflict"] if conflicts() else []
    states += [f"{len(lost)} to look at"] if lost else []
    return "\n".join([", ".join(states) or ("not compared" if doubt else "all are kept"), *lines])


def find_losses(call: Call) -> tuple[list[str], str]:
    """Return the files whose edits are only in git now, and why that could not be found out, if so.

    Copier deletes what only the old rendering had, and cannot merge what is not text. An edit is what differs from the
    old rendering, which is made once more; it is lost where the new rendering's file stands in its place, or none.
    """
    touched = [name for name in changed() if name not in conflicts() and name != call.answers]
    if not touched:
        return [], ""
    head = {}
    for entry in names("ls-tree", "-r", "-z", "HEAD"):
        about, _, name = entry.partition("\t")
        head[name] = described(about.split()[0], about.split()[2])
    now = blobs(ROOT, touched)
    try:
        old = rendered(call, committed(call.answers), touched)
        edited = [name for name in touched if head[name] not in (old.get(name), now.get(name))]
        gone = [name for name in edited if name not in now]
        merged = [name for name in edited if name in now]
        new = rendered(call, read(call.answers), merged) if merged else {}
    except Failed as error:
        reason = (str(error).splitlines() or [""])[-1]
        return [], f"The template could not be rendered for a comparison ({reason}): read git diff HEAD yourself."
    return sorted([*gone, *(name for name in merged if now[name] == new.get(name))]), ""


def rendered(call: Call, answers: str, wanted: list[str]) -> dict[str, str]:
    """Return the blobs of files as the template renders them with the answers and the version of an answers file."""
    with tempfile.TemporaryDirectory(prefix="post_update.", ignore_cleanup_errors=True) as folder:
        path = Path(folder, call.answers)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(answers, "utf-8")
        options = ("--answers-file", call.answers, "--vcs-ref=:current:", "--skip-tasks", "--force", "--quiet")
        run(call.python, "-W", "ignore", "-m", "copier", "recopy", *options, folder)
        return blobs(Path(folder), wanted)


def blobs(folder: Path, wanted: list[str]) -> dict[str, str]:
    """Return what git would say of those files that a folder has."""
    found, plain = {}, []
    for name in wanted:
        path = folder / name
        if path.is_symlink():
            found[name] = described("120000", git("hash-object", "--stdin", typed=str(path.readlink())).strip())
        elif path.is_file():
            plain.append(name)
    paths = "".join(f"{folder / name}\n" for name in plain)
    hashes = git("hash-object", "--no-filters", "--stdin-paths", typed=paths).split() if plain else []
    for name, digest in zip(plain, hashes, strict=True):
        found[name] = described("100755" if (folder / name).stat().st_mode & 0o100 else "100644", digest)
    return found


def described(mode: str, digest: str) -> str:
    """Return a file's content and mode, as far as git looks at modes here."""
    return f"{mode} {digest}" if looks_at_modes() else digest


@cache
def looks_at_modes() -> bool:
    """Return whether this file system has a mode for programs."""
    return run("git", "config", "core.fileMode", check=False).stdout.strip() != "false"


def install() -> str:
    """Install what is new. What stood at the tried version moves to the one that is tried now."""
    if not (ROOT / "pyproject.toml").exists():
        return "there is no pyproject.toml"
    before, after = pins(committed("constraints.txt")), pins(read("constraints.txt"))
    locked = pins(read("uv.lock"), r'^name = "(.+)"\nversion = "(.+)"$')
    moved = {name for name in after if before.get(name, after[name]) != after[name]}
    moved = {name for name in moved if locked.get(name, set()) <= before[name]}
    try:
        return post_copy.make_environment(moved)
    except Failed:
        if not moved:
            raise
        # The owner's own bounds may not allow them.
        return f"{post_copy.make_environment()}, without the newly tried versions"


def pins(text: str, pattern: str = r"^([a-z][\w.-]*)==(\S+)") -> dict[str, set[str]]:
    """Return the versions of each package that a text pins."""
    found: dict[str, set[str]] = {}
    for name, version in re.findall(pattern, text, re.MULTILINE):
        found.setdefault(name, set()).add(version)
    return found


def write_migration(call: Call) -> str:
    """Write the migration that the tables need, and apply it nowhere."""
    if not (ROOT / "migrations" / "env.py").exists():
        return "there is no migrations/env.py"
    versions = ROOT / "migrations" / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    before = set(versions.glob("*.py"))
    with tempfile.TemporaryDirectory(prefix="post_update.", ignore_cleanup_errors=True) as folder:
        url = f"sqlite:///{Path(folder, 'update.db').as_posix()}"
        said = run(tool("python"), "-c", WRITE_REVISION, ROOT, folder, message(call), DATABASE_URL=url).stdout
    told = [line for line in said.splitlines() if line.startswith(("Detected", "Required", "Only in the"))]
    written = [path.stem for path in sorted(set(versions.glob("*.py")) - before)]
    if not written:
        return "\n".join(["the tables are as they were", *told])
    return "\n".join([f"{written[0]} written, not applied", *told, "Read it; make migrate applies it."])


def message(call: Call) -> str:
    """Return what a migration is called: after the modules that came, if some did."""
    came, _ = compare_modules(call)
    modules = [name for name in came if (ROOT / "app" / "modules" / name).is_dir()]
    # It is the first line of the migration, which has room for some.
    rest = modules[3:]
    named = [*modules[:3], f"{len(rest)} more"] if rest else modules
    return f"add {' and '.join(named)}" if modules else "update"


def tell_settings() -> str:
    """Compare `.env` with what the service reads now. It is the owner's, and stays as it is."""
    example = settings_in(read(".env.example"))
    before = settings_in(committed(".env.example"))
    if not (ROOT / ".env").exists():
        return "there is no .env: make setup writes it"
    own = {name.removesuffix("_FILE") for name in settings_in(re.sub(r"^#.*", "", read(".env"), flags=re.MULTILINE))}
    new = [name for name in example if name not in before and name not in own]
    old = [name for name in before if name not in example and name in own]
    lines = [f"New, and not in it: {', '.join(new)}. .env.example says more; make setup adds secrets."] if new else []
    lines += [f"In it, and read no more: {', '.join(old)}."] if old else []
    if tool("app").exists():
        done = run(tool("app"), "settings", check=False)
        if done.returncode:
            lines += [line.strip() for line in post_copy.without_secrets(done.stderr or done.stdout).splitlines()]
    return "\n".join([".env is as it was" + ("; look below" if lines else ""), *lines])


def check() -> str:
    """Lint. Findings may be the owner's own, so they fail nothing."""
    if not tool("ruff").exists():
        return "there is no ruff in .venv"
    clean = all(
        run(tool("ruff"), *arguments, ".", check=False).returncode == 0
        for arguments in (("check",), ("format", "--check"))
    )
    return "no findings" if clean else "there are findings: make lint shows them"


def steps(call: Call) -> list[Step]:
    """Return what to do: with conflicts no program of the service can run yet."""
    revision = f'make migrate m="{message(call)}"'
    told = [
        Step("changes", lambda: tell_changes(call), "git status"),
        Step("edits", lambda: tell_edits(call), "git diff HEAD"),
    ]
    if conflicts():
        return told
    return [
        *told,
        Step("environment", install, post_copy.AGAIN),
        Step("migration", lambda: write_migration(call), f"make setup && {revision}", ("environment",)),
        Step("settings", tell_settings, "app settings"),
        Step("checks", check, "make lint", ("environment",)),
    ]


def main(python: str = sys.executable, answers: str = ".copier-answers.yml") -> int:
    """Do all that can be done now, and say what is left. The exit status tells of a step that failed."""
    call = Call(python, answers)
    try:
        left = list(post_copy.work(steps(call)))
    except (Failed, OSError) as error:
        print(f"The files are updated, and no more could be done: {error}\nNext: git status, then {post_copy.AGAIN}")
        return 1
    except KeyboardInterrupt:
        print(f"\nInterrupted. The files are updated; to go on: {post_copy.AGAIN}")
        return 130
    if conflicts():
        print(
            "\nNothing was installed and no migration was written: settle the conflicts first. Keep in each file\n"
            "what is right between <<<<<<< and >>>>>>>, and tell git with git add. Next:\n"
            f'  make setup\n  make migrate m="{message(call)}"    writes a migration if tables changed, to read\n'
            "  make migrate                applies it",
            flush=True,
        )
    if left:
        commands = "".join(f"  {step.name:<12} {step.later}\n" for step in left)
        print(f"\nThe files are updated. Left to do, in this order:\n{commands}", end="", flush=True)
    return int(bool(left))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""Make the service that Copier has just rendered into the current directory ready to run.

Repository, environment, settings, database, checks, first commit: `make setup` in the service does the same with plain
commands. What is done already stays as it is, so running it again is cheap and changes nothing. A step that fails names
the command for later; those that do not need it go on.

Copier removes a new destination when a task fails, and a service that could not be installed is still worth keeping. So
a failure is only passed on when Copier was told not to clean up; otherwise it leaves `.setup-left`, of which the
message after the copy makes Copier's exit status.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if sys.version_info < (3, 11):  # noqa: UP036
    # Copier itself may run on an older Python than the service supports.
    newer = next(filter(None, (shutil.which(f"python3.{minor}") for minor in range(20, 10, -1))), None)
    if newer:
        sys.exit(subprocess.run([newer, *sys.argv], check=False).returncode)
    if __name__ == "__main__":
        Path(".setup-left").write_text("setup: make setup, with Python 3.11 or later\n", "utf-8")
        print(
            "The service needs Python 3.11 or later. Install one, then run in the service: make setup PYTHON=python3.13"
        )
        sys.exit(int(sys.argv[1:] == ["False"]))

ROOT = Path.cwd()
WINDOWS = os.name == "nt"
BIN = Path(".venv", "Scripts" if WINDOWS else "bin")
LEFT = ROOT / ".setup-left"
AGAIN = "make setup" if shutil.which("make") else 'the commands under "Run it" in README.md'
SYNC = AGAIN if shutil.which("make") else "uv sync"
# The version that CI and the image use as well.
UV = "uv==0.13.8"


class Failed(Exception):  # noqa: N818
    """A step could not be done; the text says why."""


@dataclass(frozen=True)
class Step:
    """One line of the output: what is done, what it needs, and how to do it by hand."""

    name: str
    run: Callable[[], str]
    later: str
    needs: tuple[str, ...] = ()


def project() -> dict[str, Any]:
    """Return what pyproject.toml says."""
    try:
        import tomllib  # noqa: PLC0415 - Python 3.10 has none, and most of this runs there as well.

        return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    except ImportError:
        raise Failed("Python 3.11 or later is needed.") from None
    except ValueError as error:
        raise Failed(f"pyproject.toml cannot be read: {error}") from None


def settings_in(text: str) -> list[str]:
    """Return the names of the settings that a text such as `.env.example` lists, set or not."""
    return re.findall(r"^(?:# ?|export )?([A-Z][A-Z0-9_]*)=", text, re.MULTILINE)


def read(name: str) -> str:
    """Return the text of a file of the service, nothing where there is none."""
    return (ROOT / name).read_text("utf-8") if (ROOT / name).exists() else ""


def environment() -> dict[str, str]:
    """Return the variables for the commands below: what this shell sets for some other project stays out."""
    names = set(settings_in(read(".env.example")))
    names |= {f"{name}_FILE" for name in names}
    names |= {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"}
    kept = {name: value for name, value in os.environ.items() if name not in names}
    # Finding no Python is said at once this way, instead of after a download that may not be wanted.
    # uv trusts what pip and git trust, and does not fetch a Python where none is found.
    ours = {"UV_PYTHON_DOWNLOADS": "never", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONUTF8": "1"}
    return {"UV_SYSTEM_CERTS": "true"} | kept | ours


def run(
    *command: str | Path, check: bool = True, typed: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command in the root of the service, type something into it, and keep what it prints."""
    words = [str(part) for part in command]
    env = environment() | variables
    try:
        done = subprocess.run(
            words, cwd=ROOT, env=env, input=typed, capture_output=True, check=False, encoding="utf-8", errors="replace"
        )
    except FileNotFoundError:
        raise Failed(f"There is no {words[0]} on the PATH: install it, then go on with {AGAIN}.") from None
    if check and done.returncode:
        raise Failed(done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}")
    return done


def tool(name: str) -> Path:
    """Return the path of a command of the environment."""
    return ROOT / BIN / (f"{name}.exe" if WINDOWS else name)


def inside_another_repository() -> bool:
    """Return whether the folder belongs to a repository further up, which does not ignore it."""
    top = run("git", "rev-parse", "--show-toplevel", check=False).stdout.strip()
    return bool(top) and not Path(top).samefile(ROOT) and run("git", "check-ignore", ".", check=False).returncode != 0


def make_repository() -> str:
    """Make the folder a git repository."""
    if (ROOT / ".git").exists():
        return "there already"
    if inside_another_repository():
        return "part of the one above"
    run("git", "-c", "init.defaultBranch=main", "init", "--quiet")
    return "created"


def make_environment(moved: Collection[str] = ()) -> str:
    """Install the tried versions into `.venv` with uv, which also writes `uv.lock`; with pip where uv cannot be had.

    What the lock holds already keeps its version there, but for the packages in `moved`.
    """
    uv = find_uv() or install_uv()
    if not uv:
        return install_with_pip()
    locked = set(re.findall(r'^name = "(.+)"$', read("uv.lock"), re.MULTILINE)) - set(moved)
    pins = [line for line in read("constraints.txt").splitlines() if "==" in line]
    # A version named for an upgrade binds this one run and leaves no constraint in pyproject.toml or uv.lock.
    wanted = [part for pin in pins if pin.split("==")[0] not in locked for part in ("--upgrade-package", pin)]
    run(uv, "sync", *([] if (ROOT / ".venv").exists() else ["--python", sys.executable]), *wanted)
    return "installed with uv"


def find_uv() -> str | None:
    """Return where uv is: on the PATH, beside Copier, or in the environment."""
    folders = (None, Path(sys.executable).parent, ROOT / BIN)
    return next(filter(None, (shutil.which("uv", path=folder and str(folder)) for folder in folders)), None)


def install_uv() -> str | None:
    """Put uv into the environment, where `uv sync` leaves it. Returns nothing where pip cannot get it."""
    if not tool("pip").exists():
        if importlib.util.find_spec("ensurepip") is None:
            package = f"python3.{sys.version_info.minor}-venv"
            raise Failed(
                f"This Python cannot make an environment. Install uv (https://docs.astral.sh/uv/) or, on Debian and "
                f"Ubuntu, {package}: apt install {package}. Then go on with {AGAIN}."
            )
        run(tool("python") if tool("python").exists() else sys.executable, "-m", "venv", ".venv")
    run(tool("python"), "-m", "pip", "install", "--quiet", "--retries", "2", UV, check=False)
    return find_uv()


def install_with_pip() -> str:
    """Install the service and its development tools with pip, unless that was done after their files have changed."""
    stamp, sources = ROOT / ".venv" / ".installed", (ROOT / "pyproject.toml", ROOT / "constraints.txt")
    if stamp.exists() and stamp.stat().st_mtime >= max(source.stat().st_mtime for source in sources):
        return "there already"
    install = (tool("python"), "-m", "pip", "install", "--quiet", "--retries", "2", "--constraint", "constraints.txt")
    run(*install, "--editable", ".", *project()["dependency-groups"]["dev"])
    stamp.touch()
    return "installed with pip"


def look_for_lock() -> str:
    """Say whether the versions are locked. Only uv does that."""
    if not (ROOT / "uv.lock").exists():
        raise Failed(
            f"uv.lock is missing, which other machines install from, and {UV} could not be installed with pip: "
            "install uv (https://docs.astral.sh/uv/)."
        )
    return "uv.lock is there"


def make_settings() -> str:
    """Write `.env` with a secret key of its own, for its owner's eyes only."""
    there = (ROOT / ".env").exists()
    run(tool("app"), "settings", "--write-env")
    return ".env is there already" if there else ".env with a new SECRET_KEY"


def migrate() -> str:
    """Write the first migration from the tables of the chosen modules, and bring the database to the newest one."""
    versions = ROOT / "migrations" / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    commands = ["upgrade head"]
    if first := not any(versions.glob("*.py")):
        commands.insert(0, "revision --autogenerate -m initial")
    # One process for both: importing the service is what takes the time.
    script = "import sys; from alembic.config import main; [main(argv=line.split()) for line in sys.argv[1:]]"
    run(tool("python"), "-c", script, *commands)
    return "0001_initial written and applied" if first else "at the newest migration"


def check() -> str:
    """Lint, and look at the formatting."""
    run(tool("ruff"), "check", ".")
    run(tool("ruff"), "format", "--check", ".")
    return "no findings"


def commit() -> str:
    """Make the first commit; every later one is the owner's."""
    if run("git", "rev-parse", "--verify", "--quiet", "HEAD", check=False).returncode == 0:
        return "there already"
    if inside_another_repository():
        return "left to you: the repository above is yours"
    about = project()["project"]
    author = about["authors"][0]
    # Git refuses a name that is made of these characters only.
    name = author["name"].strip(" .,:;<>\"\\'") or about["name"]
    known = {"user.name": name, "user.email": author["email"]}
    missing = [key for key in known if run("git", "config", key, check=False).returncode]
    options = [part for key in missing for part in ("-c", f"{key}={known[key]}")]
    run("git", "add", "--all")
    run("git", *options, "commit", "--quiet", "--no-verify", "--no-gpg-sign", "-m", "Begin the service")
    return "first commit"


STEPS = (
    Step("repository", make_repository, "git init"),
    Step("environment", make_environment, SYNC),
    Step("lock", look_for_lock, f'{SYNC} && git add uv.lock && git commit -m "Lock the versions"', ("environment",)),
    Step("settings", make_settings, f"{BIN / 'app'} settings --write-env", ("environment",)),
    Step("database", migrate, AGAIN, ("settings",)),
    Step("checks", check, f"{BIN / 'ruff'} check . && {BIN / 'ruff'} format --check .", ("environment",)),
    Step("commit", commit, 'git add --all && git commit -m "Begin the service"', ("repository", "database")),
)


def without_secrets(text: str) -> str:
    """Return the end of what a tool printed, without the values of `.env` and the passwords in them."""
    for value in re.findall(r"^\w+=['\"]?(.{6,}?)['\"]?$", read(".env"), re.MULTILINE):
        for secret in (value, *re.findall(r"://[^/@]*:(.+)@", value)):
            text = text.replace(secret, "***")
    return "\n".join(f"    {line}" for line in text.splitlines()[-6:])


def work(steps: Iterable[Step]) -> Iterator[Step]:
    """Do the steps, one line each with what it has to add below, and yield those that are left."""
    left: set[str] = set()
    for step in steps:
        start, reason = time.perf_counter(), ""
        if sys.stdout.isatty():
            print(f"  {step.name:<12} ...", end="\r", flush=True)
        if missing := [name for name in step.needs if name in left]:
            outcome = f"skipped, it needs: {', '.join(missing)}"
        else:
            try:
                outcome = step.run()
            except (Failed, OSError) as error:
                outcome, reason = "failed", without_secrets(str(error))
        said, *added = outcome.splitlines()
        print(f"  {step.name:<12} {said:<44} {time.perf_counter() - start:5.1f} s", flush=True)
        print("".join(f"    {line}\n" for line in added), end="", flush=True)
        if reason or missing:
            print(reason, end="\n" if reason else "", flush=True)
            left.add(step.name)
            yield step


def main(cleanup_on_error: str = "True") -> int:
    """Do what is left to do, say what could not be done, and say whether Copier should know of it."""
    left = list(work(STEPS))
    if not left:
        LEFT.unlink(missing_ok=True)
        return 0
    LEFT.write_text("".join(f"{step.name}: {step.later}\n" for step in left) + f"all: {AGAIN}\n", "utf-8")
    commands = "".join(f"  {step.name:<12} {step.later}\n" for step in left)
    print(f"\nLeft to do, in this order:\n{commands}or all of it: {AGAIN}", flush=True)
    return int(cleanup_on_error == "False")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""A scratch repository of the template with versions, and services that live through them.

`v1.0.0` is the template as it lies here, `v1.1.0` what a year might do to it: files that are changed, added, removed
and renamed, a setting, a column, a pin. Older versions are commits of this repository.
"""

import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import copier
import yaml
from copier.errors import DirtyLocalWarning, ShallowCloneWarning

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("copier.yml", "extensions", "hooks", "template")
CURRENT, LATER = "v1.0.0", "v1.1.0"
# A version that the template tried before.
OLD_PIN = "idna==3.19"
GIT = ("git", "-c", "user.name=Somebody", "-c", "user.email=somebody@example.com")
# What is the service's own from its first day, and what tools leave behind.
OWN = re.compile(r"(\.git|\.venv|data|\.env|uv\.lock|migrations/versions|\.setup-left)(/|$)|.*(__pycache__|_cache)/")

Answers = dict[str, object]


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command that has to succeed, and return all that it prints."""
    done = call(*command, cwd=cwd, **variables)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return done.stdout


def call(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that may fail, and keep all that it prints."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "GIT_", "MAKE"))}
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"} | variables
    words = [str(part) for part in command]
    return subprocess.run(
        words,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=1800,
        check=False,
    )


def commit(folder: Path, message: str, tag: str = "") -> None:
    """Commit all that a folder holds, and tag it."""
    if not (folder / ".git").exists():
        run(*GIT, "-c", "init.defaultBranch=main", "init", "--quiet", cwd=folder)
    run(*GIT, "add", "--all", cwd=folder)
    run(*GIT, "commit", "--quiet", "--allow-empty", "--no-verify", "-m", message, cwd=folder)
    if tag:
        run(*GIT, "tag", tag, cwd=folder)


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text that has to be there, once."""
    text = path.read_text("utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{path} does not hold {old!r} once: the later version has to be written anew")
    path.write_text(text.replace(old, new), "utf-8")


def take_in(source: Path, repository: Path) -> None:
    """Put the parts of a template into a repository, in place of those that are there."""
    for part in PARTS:
        target = repository / part
        if target.is_dir():
            shutil.rmtree(target)
        if (source / part).is_dir():
            shutil.copytree(source / part, target, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        else:
            shutil.copy(source / part, target)


def make_repository(folder: Path, older: dict[str, str] | None = None) -> Path:
    """Make the repository: `older` are commits of this one by the tag that they get, the oldest first."""
    folder.mkdir(parents=True)
    for tag, revision in (older or {}).items():
        source = folder.with_name(f"{folder.name}-{tag}")
        source.mkdir()
        archive = source / "archive.tar"
        run("git", "archive", "--output", archive, revision, *PARTS, cwd=ROOT)
        run("tar", "--extract", "--file", archive, cwd=source)
        take_in(source, folder)
        shutil.rmtree(source)
        commit(folder, tag, tag)
    take_in(ROOT, folder)
    pins = folder / "extensions/pins.yml"
    tried = pins.read_text("utf-8")
    pins.write_text(re.sub(r"^- idna==.*", f"- {OLD_PIN}", tried, count=1, flags=re.MULTILINE), "utf-8")
    commit(folder, CURRENT, CURRENT)
    pins.write_text(tried, "utf-8")
    grow_older(folder)
    commit(folder, LATER, LATER)
    return folder


def grow_older(repository: Path) -> None:
    """Change a template as a later version of it might."""
    app, tests = repository / "template" / "app", repository / "template" / "tests"
    # A file that is changed, and two that are new.
    edit(app / "kit/clock.py", "Return the current time, aware and in UTC.", "Return the time, aware and in UTC.")
    (app / "kit/text.py").write_text(
        '"""Texts for people."""\n\n\n'
        'def shorten(text: str, most: int) -> str:\n    """Cut a text that is too long."""\n'
        '    return text if len(text) <= most else text[: most - 1] + "…"\n',
        "utf-8",
    )
    (tests / "kit/test_text.py").write_text(
        "from app.kit.text import shorten\n\n\ndef test_long_texts_are_cut() -> None:\n"
        '    assert (shorten("abc", 3), shorten("abcd", 3)) == ("abc", "ab…")\n',
        "utf-8",
    )
    # One that is gone, and one that has another name.
    (repository / "template/.editorconfig").unlink()
    (tests / "kit/test_http.py").rename(tests / "kit/test_requests.py")
    # A setting.
    edit(
        app / "kit/settings.py",
        '    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")\n',
        '    port: int = Field(8000, ge=1, le=65535, description="Port to listen on.")\n'
        '    public_url: str | None = Field(None, description="Where clients reach the service.")\n',
    )
    edit(
        repository / "template/.env.example.jinja",
        "\n# Port to listen on.\nPORT=8000\n",
        "\n# Port to listen on.\nPORT=8000\n\n# Where clients reach the service.\n# PUBLIC_URL=\n",
    )
    # A column.
    users = next(app.glob("modules/users/models.py*"))
    subject = next(line for line in users.read_text("utf-8").splitlines() if line.startswith("    subject: "))
    edit(users, subject, f"{subject}\n    locale: str | None = Field(default=None, max_length=35)")
    # A target, in a file with Jinja.
    edit(
        repository / "template/Makefile.jinja",
        "env-example: | $(BIN) ##",
        "routes: | $(BIN) ## List the routes\n\t$(BIN)/app routes\n\nenv-example: | $(BIN) ##",
    )


@dataclass(frozen=True)
class Lab:
    """The repository, where services are made from it."""

    template: Path

    def copy(self, target: Path, version: str, answers: Answers) -> Path:
        """Render a version, without its hooks."""
        with warnings.catch_warnings():
            silence()
            copier.run_copy(
                str(self.template),
                target,
                data=answers,
                vcs_ref=version,
                defaults=True,
                quiet=True,
                skip_tasks=True,
                overwrite=True,
            )
        return target

    def update(self, service: Path, version: str, answers: Answers | None = None) -> None:
        """Update without the hooks."""
        with warnings.catch_warnings():
            silence()
            copier.run_update(
                service,
                data=answers or {},
                vcs_ref=version,
                defaults=True,
                quiet=True,
                skip_tasks=True,
                overwrite=True,
                unsafe=True,
            )


def silence() -> None:
    """Let Copier say nothing of the kind of repository that this is."""
    for category in (DirtyLocalWarning, ShallowCloneWarning):
        warnings.simplefilter("ignore", category)


def typed(answers: Answers) -> list[str]:
    """Return answers as they are typed."""
    return [part for key, value in answers.items() for part in ("--data", f"{key}={written(value)}")]


def written(value: object) -> str:
    """Return an answer as it is typed after `--data key=`."""
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def copy_with_hooks(template: Path, service: Path, version: str, answers: Answers, **variables: str) -> str:
    """Make a service as people do, and return what was printed."""
    options = ("--trust", "--defaults", "--vcs-ref", version, *typed(answers))
    return run(sys.executable, "-m", "copier", "copy", *options, template, service, cwd=template.parent, **variables)


def update_with_hooks(
    service: Path, version: str = "", answers: Answers | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Update a service as people do."""
    options = ["--trust", "--defaults", *(["--vcs-ref", version] if version else []), *typed(answers or {})]
    return call(sys.executable, "-m", "copier", "update", *options, cwd=service, **variables)


def contents(folder: Path, ignored: Callable[[str], object] = OWN.match) -> dict[str, tuple[bytes, bool]]:
    """Return what the files of a folder hold and whether they can be run, by their paths."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not ignored(name):
            found[name] = (path.read_bytes(), os.access(path, os.X_OK))
    return found


def differences(one: Path, other: Path) -> list[str]:
    """Return the paths in which two folders differ, without what is a service's own."""
    first, second = contents(one), contents(other)
    return [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]


def recorded(service: Path) -> Answers:
    """Return the answers that a service remembers."""
    answers: Answers = yaml.safe_load((service / ".copier-answers.yml").read_text("utf-8"))
    return {key: value for key, value in answers.items() if not key.startswith("_")}


def status(service: Path) -> str:
    """Return what git says of a service's files."""
    return run("git", "status", "--porcelain", cwd=service)


def steps(output: str) -> dict[str, str]:
    """Return what each step of a hook said, by its name."""
    return dict(re.findall(r"^  (\w+) +(.+?) +\d+\.\d s$", output, re.MULTILINE))

"""Update a service of every covering pair of (version, answers) and (newest version, other answers); `make updates`.

An untouched service has to become, byte for byte, what a copy with the new answers gives; a second update changes
nothing. With the hooks, rows survive the migration, `.env` stays as it is, and the service passes its own tests. Then
owners edit at random. `build/updates.json` has the figures, and what passed under the same template is not run again.
A failure is told as commands that show it, from the root of this repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / "tests" / name) for name in ("updates", "combinations", "proof")]

from edits import Edit, Life, Step, live_through  # noqa: E402
from hypothesis import HealthCheck, given, seed, settings  # noqa: E402
from lab import (  # noqa: E402
    CURRENT,
    LATER,
    Lab,
    commit,
    copy_with_hooks,
    differences,
    make_repository,
    recorded,
    run,
    status,
    steps,
    typed,
    update_with_hooks,
)
from pairs import Pair, Pairs  # noqa: E402

BUILD = ROOT / "build" / "updates"
RESULTS = ROOT / "build" / "updates.json"
NOW = "2026-11-01 12:00:00.000000"
# How many commits of this repository stand for older versions.
OLDER = 2


def older_versions() -> dict[str, str]:
    """Return commits of the past by the tags that they get here; none where the history is not there."""
    if run("git", "rev-parse", "--is-shallow-repository", cwd=ROOT).strip() == "true":
        print("This clone has no history: no older versions are tried.")
        return {}
    history = run("git", "rev-list", "--first-parent", "--reverse", "HEAD", "--", "template", cwd=ROOT).split()
    # The first ones had no hooks that the newer ones could follow.
    history = history[len(history) // 3 :]
    chosen = [history[len(history) * number // OLDER] for number in range(OLDER)]
    return {f"v0.{number + 1}.0": revision for number, revision in enumerate(chosen)}


def digest() -> str:
    """Return what the results depend on: the template, and these tests."""
    whole = hashlib.sha256(sys.version.encode())
    for part in ("copier.yml", "extensions", "hooks", "template", "tests/updates", "requirements.txt"):
        path = ROOT / part
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts and "_cache" not in str(file):
                whole.update(f"\0{file.relative_to(ROOT)}\0".encode() + file.read_bytes())
    return whole.hexdigest()[:16]


def update_untouched(lab: Lab, pair: Pair, folder: Path) -> None:
    """Hold an update to what a copy gives, and a second one to changing nothing."""
    service = lab.copy(folder / "service", pair.version, known(lab, pair))
    commit(service, "Begin")
    lab.update(service, LATER, pair.after)
    oracle = lab.copy(folder / "oracle", LATER, recorded(service))
    if found := differences(service, oracle):
        raise AssertionError(f"not what a copy gives: {', '.join(found)}")
    commit(service, "Update")
    lab.update(service, LATER)
    if told := status(service):
        raise AssertionError(f"a second update changes:\n{told}")


def update_living(lab: Lab, pair: Pair, folder: Path) -> None:
    """Update with the hooks a service that has a row, and let it prove itself."""
    service = folder / "service"
    copy_with_hooks(lab.template, service, pair.version, known(lab, pair))
    add_user(service / "data/app.db")
    settings = (service / ".env").read_bytes()
    done = update_with_hooks(service, LATER, pair.after)
    if done.returncode or steps(done.stdout).get("edits") != "all are kept":
        raise AssertionError(done.stdout)
    oracle = lab.copy(folder / "oracle", LATER, recorded(service))
    if found := differences(service, oracle):
        raise AssertionError(f"not what a copy gives: {', '.join(found)}")
    if (service / ".env").read_bytes() != settings:
        raise AssertionError(".env was touched")
    run("make", "migrate", cwd=service)
    run(".venv/bin/alembic", "check", cwd=service)
    with sqlite3.connect(service / "data/app.db") as database:
        if database.execute("SELECT subject FROM users").fetchall() != [("ada",)]:
            raise AssertionError("the row is gone")
    run("make", "lint", "types", "test", cwd=service)
    commit(service, "Update")
    again = update_with_hooks(service, LATER)
    if again.returncode or status(service):
        raise AssertionError(f"a second update changes something:\n{again.stdout}\n{status(service)}")


def add_user(path: Path) -> None:
    """Add a row with a value in every column that has to have one."""
    values = {"subject": "ada", "created_at": NOW, "updated_at": NOW}
    with sqlite3.connect(path) as database:
        for _, column, kind, required, default, _ in database.execute("PRAGMA table_info(users)").fetchall():
            if required and default is None:
                values.setdefault(column, "1" if "INT" in kind or "BOOL" in kind else "x")
        marks = ", ".join("?" * len(values))
        database.execute(f"INSERT INTO users ({', '.join(values)}) VALUES ({marks})", list(values.values()))  # noqa: S608


def known(lab: Lab, pair: Pair) -> dict[str, object]:
    """Return the answers to the questions that a version has."""
    questions = run("git", "show", f"{pair.version}:copier.yml", cwd=lab.template)
    return {key: value for key, value in pair.before.items() if f"\n{key}:" in questions}


def edit_at_random(lab: Lab, step: Step, examples: int, number: int, folder: Path) -> None:
    """Let owners edit a service before it is updated."""
    life = Life.begin(lab, step, folder)

    @seed(number)
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(drawn=life.edits())
    def live(drawn: list[Edit]) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            live_through(life, drawn, Path(scratch))

    live()


def commands(lab: Lab, pair: Pair) -> list[str]:
    """Return what shows a failure."""
    template = lab.template.relative_to(ROOT)
    before, after = (shlex.join(typed(answers)) for answers in (known(lab, pair), pair.after))
    return [
        f'copier copy --trust --defaults --vcs-ref {pair.version} {before} "$PWD/{template}" build/counter-example',
        "cd build/counter-example && git status",
        f"copier update --trust --defaults --vcs-ref {LATER} {after}",
    ]


def attempt(work: Callable[[Path], None]) -> tuple[float, str]:
    """Do some work in a folder of its own. Returns the seconds that it took, and what went wrong."""
    start, reason = time.perf_counter(), ""
    with tempfile.TemporaryDirectory(prefix="espalier-update-", ignore_cleanup_errors=True) as folder:
        try:
            work(Path(folder))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told, and the others go on
            reason = f"{type(error).__name__}: {error}"[-6000:]
    return round(time.perf_counter() - start, 1), reason


def tasks(
    lab: Lab, rows: list[Pair], options: argparse.Namespace
) -> Iterator[tuple[str, Callable[[Path], None], list[str]]]:
    """Yield all that is to be done: a name, the work, and the commands that show a failure."""
    for number, pair in enumerate(rows, 1):
        yield f"row {number}", partial(update_untouched, lab, pair), commands(lab, pair)
        if options.services:
            yield f"row {number} living", partial(update_living, lab, pair), commands(lab, pair)
    if options.edits:
        for number, pair in enumerate(rows, 1):
            step = Step(pair.version, known(lab, pair), LATER, pair.after)
            work = partial(edit_at_random, lab, step, options.edits, options.seed + number)
            yield f"row {number} edited, seed {options.seed}", work, commands(lab, pair)


def prepare(key: str) -> tuple[Lab, list[Pair], int]:
    """Make the repository, unless it is there, and the rows. Returns the number of pairs of levels as well."""
    older = older_versions()
    repository = BUILD / key / "template"
    if not (repository / ".git/refs/tags" / LATER).exists():
        shutil.rmtree(BUILD, ignore_errors=True)
        make_repository(repository, older)
    roots = {}
    for version in (*older, CURRENT, LATER):
        roots[version] = BUILD / key / version
        if not roots[version].exists():
            run("git", "worktree", "add", "--detach", "--force", roots[version], version, cwd=repository)
    pairs = Pairs(roots, roots[LATER])
    return Lab(repository), pairs.rows(), len(list(pairs.feasible()))


def main() -> int:
    """Run what did not pass yet, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shard", default="1/1", help="the part that is run here, such as 2/4")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--edits", type=int, default=2, help="how many owners edit each row")
    parser.add_argument("--seed", type=int, default=0, help="what their edits are drawn from")
    parser.add_argument("--no-services", dest="services", action="store_false", help="render, and install nothing")
    options = parser.parse_args()
    part, parts = map(int, options.shard.split("/"))
    start = time.perf_counter()
    key = digest()
    lab, rows, pairs = prepare(key)
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    before: dict[str, Any] = results.get("passed", {})
    passed: dict[str, float] = before["runs"] if before.get("under") == key else {}
    failures = []
    chosen = list(tasks(lab, rows, options))[part - 1 :: parts]
    left = {name: (work, shown) for name, work, shown in chosen if name not in passed}
    print(
        f"{pairs} pairs of answers in {len(rows)} rows; {len(chosen)} runs here, {len(left)} of them to do", flush=True
    )
    with ProcessPoolExecutor(options.jobs) as pool:
        running = {pool.submit(attempt, work): name for name, (work, _) in left.items()}
        for future in as_completed(running):
            name = running[future]
            seconds, reason = future.result()
            print(f"  {name:<24} {seconds:6.1f} s  {'FAILED' if reason else 'passed'}", flush=True)
            if reason:
                failures.append({"name": name, "reason": reason, "commands": left[name][1]})
                print("\n".join([reason, "To see it:", *(f"  {line}" for line in left[name][1])]), flush=True)
            else:
                passed[name] = seconds
            figures = {
                "pairs": pairs,
                "rows": len(rows),
                "versions": sorted({row.version for row in rows}),
                "runs": len(chosen),
                "seconds": round(time.perf_counter() - start, 1),
                "seconds of all runs": round(sum(passed.values()), 1),
                "failures": failures,
                "failed": len(failures),
                "passed": {"under": key, "runs": passed},
            }
            draft = RESULTS.with_suffix(".draft")
            draft.write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
            draft.replace(RESULTS)
    print(f"{len(chosen) - len(failures)} of {len(chosen)} runs passed", flush=True)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())

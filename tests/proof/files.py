"""Checks of whole files: they parse, tools find nothing in them, and what they name of the service is there."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from evidence import Proof, Violation
from texts import Text

# The programs that check files lie beside this Python, in an environment that need not be activated.
SEARCHED = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
# What setup makes.
MADE_LATER = {".env", "uv.lock", "data", "data/app.db", "migrations/versions"}
# isort asks the tree which modules are ours; these texts are checked without it.
FIRST_PARTY = 'lint.isort.known-first-party = ["app", "conftest", "migrations", "tests"]'
# What ruff has found clean in this process, by its settings: a planted fault leaves most texts as they were.
CLEAN: set[tuple[str, str, str]] = set()
# What has parsed in this process, by its language.
PARSED: set[tuple[str, str]] = set()


def syntax(proof: Proof) -> Iterator[Violation]:
    """Every text parses in its language."""
    parsers: dict[str, Any] = {
        ".py": ast.parse,
        ".toml": tomllib.loads,
        ".yml": lambda text: list(yaml.safe_load_all(text)),
        ".yaml": lambda text: list(yaml.safe_load_all(text)),
        ".json": json.loads,
    }
    for path, texts in proof.texts.items():
        suffix = Path(path).suffix
        parse = parsers.get(suffix, str)
        for text in texts:
            if (suffix, text.text) in PARSED:
                continue
            try:
                parse(text.text)
                PARSED.add((suffix, text.text))
            except (SyntaxError, ValueError, yaml.YAMLError) as error:
                marked = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
                line = getattr(error, "lineno", None) or marked
                yield Violation("syntax", path, line, str(error).splitlines()[0], proof.whole(text))


def is_toml(text: str) -> bool:
    """Return whether a text parses as TOML."""
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


def lint(proof: Proof, scratch: Path) -> Iterator[Violation]:
    """Every Python text is formatted, and ruff finds nothing in it."""
    config = next(filter(is_toml, (text.text for text in proof.texts["pyproject.toml"])), None)
    if config is None:
        return
    where: dict[str, Text] = {}
    for path, texts in proof.texts.items():
        for number, text in enumerate(texts if path.endswith(".py") else ()):
            if (config, path, text.text) not in CLEAN:
                target = scratch / str(number) / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text.text, "utf-8")
                (scratch / str(number) / "pyproject.toml").write_text(config, "utf-8")
                where[target.relative_to(scratch).as_posix()] = text
    if not where:
        return
    options = ["--no-cache", "--config", FIRST_PARTY]
    unclean = set()
    found = ruff(scratch, "check", *options, "--output-format=json")
    for item in json.loads(found):
        text = where[Path(item["filename"]).relative_to(scratch.resolve()).as_posix()]
        unclean.add(text)
        message = f"{item['code']} {item['message']}"
        yield Violation("ruff", text.path, item["location"]["row"], message, proof.whole(text))
    shown = ruff(scratch, "format", *options, "--check")
    for name, line in re.findall(r"^unformatted: .*\n +--> (.+?):(\d+):", shown, re.MULTILINE):
        text = where[name]
        unclean.add(text)
        yield Violation("format", text.path, int(line), "ruff would format it in another way", proof.whole(text))
    CLEAN.update((config, text.path, text.text) for text in where.values() if text not in unclean)


def compose(proof: Proof) -> Iterator[Violation]:
    """What a service of the compose file needs is defined there, and what is defined is needed."""
    for kind in ("services", "networks", "volumes"):
        there, needed = proof.named(f"compose {kind}"), proof.named(f"compose needs {kind}")
        for name, places in needed.items():
            for place in places:
                ways = [one.literals for one in there[name]]
                yield from proof.unless("compose", place, f"{name} is not among the {kind}", ways)
        for name, places in there.items() if kind != "services" else ():
            for place in places:
                ways = [one.literals for one in needed[name]]
                yield from proof.unless("compose", place, f"nothing uses {name} of the {kind}", ways)


def links(proof: Proof) -> Iterator[Violation]:
    """Every relative link of a document leads to a file that is there."""
    for place in proof.said("link"):
        target = (Path(place.path).parent / place.fact.name).as_posix()
        there = proof.present(target)
        message = f"{place.fact.name} is not {'there' if there is None else 'rendered'}"
        yield from proof.unless("link", place, message, [] if there is None else [[there]])


def commands(proof: Proof) -> Iterator[Violation]:
    """Every `make target` that a document or a pipeline names is one of the Makefile's."""
    targets = proof.named("target", "Makefile")
    for place in proof.said("make"):
        ways = [one.literals for one in targets[place.fact.name]]
        yield from proof.unless("command", place, f"the Makefile has no {place.fact.name}", ways)


def ruff(folder: Path, *command: str) -> str:
    """Run ruff over a folder and return what it prints."""
    words = [sys.executable, "-m", "ruff", *command, "."]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False).stdout


def mentions(proof: Proof) -> Iterator[Violation]:
    """Documents name commands, files, modules and settings of the selection, and no others."""
    subcommands = proof.named("command", "app/cli.py")
    groups = proof.named("contributed commands")
    for place in proof.said("mention command"):
        first, _, second = place.fact.name.partition(" ")
        ways = [one.literals for one in subcommands[first]]
        # A group is called as its module, unless it says another name beside it.
        folders = {Path(one.path).parent for one in proof.named("group")[first]}
        for group in (one for places in groups.values() for one in places):
            if group.fact.of != first and Path(group.path).parent not in folders:
                continue
            inner = proof.named("command")[second]
            ways += [(*group.literals, *one.literals) for one in inner if one.fact.of == group.fact.name]
        yield from proof.unless("mention", place, f"there is no command app {place.fact.name}", ways)
    for place in proof.said("mention path"):
        name = place.fact.name
        if name in MADE_LATER:
            continue
        pattern = re.compile(re.escape(name).replace(r"\*", "[^/]*") + "(/.*)?")
        ways = [(literal,) for path, literal in proof.presences.items() if pattern.fullmatch(path)]
        yield from proof.unless("mention", place, f"{name} is not rendered", ways)
    defined = proof.named("define", "app/")
    for place in proof.said("mention module"):
        base, _, last = place.fact.name.replace(".", "/").rpartition("/")
        pattern = re.compile(f"{base}/{last}([.]py|/.*)")
        ways = [(literal,) for path, literal in proof.presences.items() if pattern.fullmatch(path)]
        ways += [one.literals for one in defined[last] if one.path == f"{base}.py"]
        yield from proof.unless("mention", place, f"there is no module {place.fact.name}", ways)
    known = {kind: proof.named(kind) for kind in ("setting", "environment")}
    for place in proof.said("mention setting"):
        name = place.fact.name.removesuffix("_FILE")
        ways = [one.literals for found in known.values() for one in found[name]]
        ways += [one.literals for one in proof.said("compose variable") if one.fact.name == name]
        yield from proof.unless("mention", place, f"{place.fact.name} is no setting", ways)


def tools(proof: Proof) -> Iterator[Violation]:
    """Programs that read a Dockerfile, a Makefile or shell understand every one of them."""
    for path, texts in proof.texts.items():
        for text in texts:
            for line, command, content in programs(path, text.text):
                if told := complaint(tuple(command), content):
                    yield Violation("tool", path, line, told, proof.whole(text))


def programs(path: str, text: str) -> Iterator[tuple[int, list[str], str]]:
    """Yield what is to be read in a text by which program, and from which line on."""
    name = Path(path).name
    if name == "Dockerfile":
        yield 1, ["hadolint", "--failure-threshold", "warning", "-"], text
    elif name == "Makefile":
        yield 1, ["make", "--dry-run", "--file=-", "help"], text
    elif name.endswith(".md"):
        for block in re.finditer(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            yield text[: block.start()].count("\n") + 1, ["bash", "-n"], block[1]
    elif name.startswith((".gitlab-ci", "ci.")):
        for block in re.finditer(r"^( +)(?:- )?(?:run: )?\|\n((?:\1 +.*\n|\n)+)", text, re.MULTILINE):
            yield text[: block.start()].count("\n") + 2, ["bash", "-n"], textwrap.dedent(block[2])


@cache
def complaint(command: tuple[str, ...], content: str) -> str:
    """Return the first line of what a program says against a text on its input, and nothing when it takes it."""
    env = os.environ | {"PATH": SEARCHED}
    done = subprocess.run(command, env=env, input=content, capture_output=True, text=True, check=False)
    told = (done.stderr + done.stdout).strip().splitlines()
    return (told[0] if told else f"exit status {done.returncode}") if done.returncode else ""

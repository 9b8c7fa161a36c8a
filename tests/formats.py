"""Reading every file of a service in its own format."""

import ast
import json
import re
import subprocess
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import yaml

PLAIN = {".txt", ".md", ".mako", ".sql", ".py", ".editorconfig", ".gitattributes", ".gitignore", ".dockerignore"}
PLAIN |= {"LICENSE"}
SETTING = re.compile(r"(#.*|[A-Z][A-Z0-9_]*=.*|)")
# What Jinja reads. GitHub's expressions begin with a dollar sign, and Go's templates, for Docker, with a dot inside.
JINJA = re.compile(r"(?<!\$)\{\{(?!\.)|\{%|\{#")
# GitHub's own expressions, the mails of a service, which are templates, and those that its tests make.
TEMPLATES = re.compile(r"\.github/.+|app/.+/mails/.+|tests/ports/email/test_email\.py")


class Loader(yaml.SafeLoader):
    """YAML that may carry the tags of GitLab and of Compose."""


Loader.add_multi_constructor("!", lambda loader, suffix, node: None)  # noqa: ARG005


class Page(HTMLParser):
    """Sees to it that what a page opens is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        """Note what is open."""
        if tag not in {"br", "meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Close what was opened last."""
        assert self.open.pop() == tag


def parse(path: Path) -> None:
    """Read a file as what it is. Raises whatever the reader of its format raises."""
    text = path.read_bytes().decode("utf-8")
    assert "\r" not in text, f"{path} has line ends of Windows"
    assert text == "" or text.endswith("\n"), f"{path} does not end with a line end"
    assert not text.endswith("\n\n"), f"{path} ends with an empty line"
    kind = path.suffix or path.name
    if kind == ".py":
        ast.parse(text)
    elif kind == ".toml":
        tomllib.loads(text)
    elif kind in {".yml", ".yaml"}:
        list(yaml.load_all(text, Loader))
    elif kind == ".json":
        json.loads(text)
    elif path.name == "Makefile":
        ask("make", "--dry-run", "--file", path, "help")
    elif path.name == "Dockerfile":
        ask("hadolint", "--no-fail", path)
    elif kind == ".html":
        page = Page()
        page.feed(text)
        assert page.open == []
    elif path.name.startswith(".env"):
        assert all(SETTING.fullmatch(line) for line in text.splitlines()), f"{path} is no list of settings"
    else:
        assert kind in PLAIN or path.name in PLAIN, f"nobody says how to read {path}"


def ask(*command: str | Path) -> None:
    """Let a program read a file. It may find fault with it, but has to understand it."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unexpected" not in done.stdout, done.stdout


def shows_jinja(path: str, text: str) -> bool:
    """Tell whether something of the template was left in a file of a service."""
    return not TEMPLATES.fullmatch(path) and JINJA.search(text) is not None

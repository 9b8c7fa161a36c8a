"""Refuses what a rendering may depend on and the space does not hold.

That is Copier's own state, open answers in a condition, chance, the clock and the machine: with them the proof would be
about something else than what people get.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml
from jinja2 import TemplateSyntaxError, nodes
from jinja2.defaults import DEFAULT_NAMESPACE
from jinja2.filters import FILTERS as DEFAULT_FILTERS
from space import Space, UnmodelledError

# Filters that Copier brings beside Jinja's and that give the same for the same answers on every machine.
PURE = {
    *(
        "b64decode",
        "b64encode",
        "basename",
        "bool",
        "combine",
        "dirname",
        "extract",
        "flatten",
        "from_json",
        "from_yaml",
    ),
    *("quote", "regex_escape", "regex_findall", "regex_replace", "regex_search", "splitext", "ternary", "to_json"),
    *("to_nice_json", "to_nice_yaml", "to_yaml"),
}
FILTERS = (DEFAULT_FILTERS.keys() - {"random"}) | PURE
GLOBALS = DEFAULT_NAMESPACE.keys() - {"lipsum"}


def refuse_unmodelled(space: Space) -> None:
    """Read all that decides what is rendered. Raises UnmodelledError with a line for each thing without a model."""
    root = space.root
    found: list[str] = []
    seen: set[Path] = set()
    left = [path for path in sorted((root / "template").rglob("*.jinja")) if "{{" not in path.name]
    entries = yaml.safe_load((root / "copier.yml").read_text("utf-8"))
    for pattern in entries.get("_exclude", []):
        found += (f"copier.yml:1: _exclude: {words}" for _, words in complaints(space, parsed(space, pattern)))
    while left:
        path = left.pop()
        if path in seen:
            continue
        seen.add(path)
        name = path.relative_to(root).as_posix()
        try:
            template = parsed(space, path.read_text("utf-8"))
        except TemplateSyntaxError as error:
            found.append(f"{name}:{error.lineno}: {error.message}")
            continue
        found += (f"{name}:{line}: {words}" for line, words in complaints(space, template))
        for node in template.find_all(nodes.Stmt):
            if isinstance(node, (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
                files = readable(space, node.template)
                left += files
                if not files:
                    found.append(f"{name}:{node.lineno}: no closed answer says which file is read here")
    if found:
        raise UnmodelledError("\n".join(found))


def readable(space: Space, name: nodes.Expr) -> list[Path]:
    """Return the files that an include may read: none when what it depends on is no closed answer."""
    names = [""]
    for part in name.nodes if isinstance(name, nodes.Concat) else [name]:
        match part:
            case nodes.Const(value=value):
                parts: tuple[str, ...] = (str(value),)
            case nodes.Name(name=question) if question in space.questions:
                parts = space.questions[question].values
            case _:
                return []
        names = [before + after for before in names for after in parts]
    return [space.root / one for one in names]


def parsed(space: Space, text: str) -> nodes.Template:
    """Parse a text as Copier does."""
    return space.environment.parse(text)


def complaints(space: Space, template: nodes.Template) -> Iterator[tuple[int, str]]:
    """Yield the lines of a template that read what has no model, and what that is."""
    for name in template.find_all(nodes.Name):
        if name.name.startswith("_copier") or name.name in {"_external_data", "_folder_name"}:
            yield name.lineno, f"{name.name} is read, which is no answer"
    for call in template.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in space.environment.globals.keys() - GLOBALS:
            yield call.lineno, f"{call.node.name}() does not give the same at every rendering"
    for one in template.find_all(nodes.Filter):
        if one.name not in FILTERS:
            yield one.lineno, f"the filter {one.name} does not give the same at every rendering"
    openly = opened(space, template)
    for test in decisions(template):
        for name in [*([test] if isinstance(test, nodes.Name) else []), *test.find_all(nodes.Name)]:
            if name.name in openly:
                yield name.lineno, f"{name.name} decides something, and anybody may answer anything"


def decisions(template: nodes.Template) -> Iterator[nodes.Node]:
    """Yield the expressions that decide what is rendered."""
    yield from (node.test for node in template.find_all(nodes.If))
    yield from (node.test for node in template.find_all(nodes.CondExpr))
    for loop in template.find_all(nodes.For):
        yield loop.iter
        if loop.test is not None:
            yield loop.test


def opened(space: Space, template: nodes.Template) -> set[str]:
    """Return the open answers, and the names that are set from them."""
    found = set(space.open_questions)
    before = 0
    while len(found) > before:
        before = len(found)
        for node in template.find_all(nodes.Assign):
            if isinstance(node.target, nodes.Name) and found & {name.name for name in node.node.find_all(nodes.Name)}:
                found.add(node.target.name)
            if isinstance(node.target, nodes.Name) and isinstance(node.node, nodes.Name) and node.node.name in found:
                found.add(node.target.name)
    return found

"""What a text says, line by line: which names it imports, defines, declares and mentions.

A fact knows its lines and so, through the text it was found in, the conditions under which it holds.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import yaml
from packaging.requirements import Requirement

OURS = ("app", "tests", "conftest", "migrations")
# What looks like a path of a service.
PATH = re.compile(r"\.[a-z][\w.-]+|(app|tests|migrations|data)/[\w./*-]*|\w+(\.(md|toml|txt|lock|yaml)|file)|LICENSE")


class Fact(NamedTuple):
    """Something that a text says in some of its lines. `of` is what the name belongs to, where that matters."""

    kind: str
    name: str
    line: int
    last: int
    of: str = ""


@cache
def facts(path: str, text: str) -> tuple[Fact, ...]:
    """Return what a text says; nothing of what does not parse, which is a finding of its own."""
    readers = {
        "pyproject.toml": dependencies,
        ".env.example": examples,
        "Makefile": targets,
        "Dockerfile": image,
        "compose.yaml": compose,
    }
    try:
        if path in readers:
            return tuple(readers[path](text))
        if path.endswith(".py"):
            return tuple(python(text))
        if path.endswith(".md"):
            return tuple(document(text))
        if path.endswith((".yml", ".yaml")):
            return (*commands(text), *pipeline(text))
    except (SyntaxError, ValueError, yaml.YAMLError):
        return ()
    return ()


def python(text: str) -> Iterator[Fact]:
    """Yield what a Python text imports, defines, reads, declares and contributes."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        yield from imports(node)
        yield from definitions(node)
        yield from reads(node)
        yield from routers(node)
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield from classes(node)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            yield from constants(node, node.value)
    yield from routes(tree)


def reads(node: ast.AST) -> Iterator[Fact]:
    """Yield the attributes that an expression reads, and the environment variables."""
    if isinstance(node, ast.Attribute):
        yield Fact("attribute", node.attr, node.lineno, node.end_lineno or node.lineno)
    if isinstance(node, ast.Call) and (name := environment_name(node)):
        yield Fact("environment", name, node.lineno, node.lineno)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
        yield Fact("environment", ast.unparse(node.slice).strip("'\""), node.lineno, node.lineno)


def constants(node: ast.Assign | ast.AnnAssign, value: ast.expr) -> Iterator[Fact]:
    """Yield what a constant of a file contributes, and what `MODULES` consists of."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    name = ast.unparse(targets[0])
    if isinstance(value, ast.Call):
        yield from contributions(name, value)
    if name == "MODULES" and isinstance(value, ast.Tuple):
        for item in value.elts:
            yield Fact("installed", ast.unparse(item).lstrip("*"), item.lineno, item.lineno)


def environment_name(node: ast.Call) -> str | None:
    """Return the variable that a call reads from the environment, if it does."""
    called = ast.unparse(node.func)
    if called.endswith(("environ.get", "getenv")) and node.args:
        return ast.unparse(node.args[0]).strip("'\"")
    return None


def imports(node: ast.AST) -> Iterator[Fact]:
    """Yield what a statement imports: from the service as `import`, from elsewhere as `package`."""
    wanted: list[tuple[str, str]] = []
    if isinstance(node, ast.Import):
        wanted = [(alias.name, "") for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        wanted = [(node.module, alias.name) for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            origin = f"{node.module}:{alias.name}"
            yield Fact("alias", alias.asname or alias.name, node.lineno, node.end_lineno or node.lineno, origin)
    for module, name in wanted:
        assert isinstance(node, ast.Import | ast.ImportFrom)
        last = node.end_lineno or node.lineno
        top = module.split(".")[0]
        if top in OURS:
            yield Fact("import", module, node.lineno, last, name)
        elif top not in sys.stdlib_module_names:
            yield Fact("package", top, node.lineno, last)


def definitions(node: ast.AST) -> Iterator[Fact]:
    """Yield the names that a statement defines or imports, wherever it stands."""
    last = int(getattr(node, "end_lineno", 0) or 0)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield Fact("define", node.name, node.lineno, node.lineno)
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield Fact("define", node.id, node.lineno, last)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            yield Fact("define", (alias.asname or alias.name).split(".")[0], node.lineno, last)


def classes(node: ast.ClassDef) -> Iterator[Fact]:
    """Yield the settings of a settings class, the paths of the tiers, and the table of a table class."""
    if any(ast.unparse(base) == "ModuleSettings" for base in node.bases):
        yield Fact("settings class", node.name, node.lineno, node.lineno)
        prefix = re.search(r"env_prefix=['\"](\w*)['\"]", ast.unparse(node))
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                name = f"{prefix[1] if prefix else ''}{item.target.id}".upper()
                yield Fact("setting", name, item.lineno, item.end_lineno or item.lineno, item.target.id)
    if node.name == "Tier":
        for item in node.body:
            if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant):
                yield Fact("tier", ast.unparse(item.targets[0]), item.lineno, item.lineno, str(item.value.value))
    if any(keyword.arg == "table" for keyword in node.keywords):
        yield from table(node)


def table(node: ast.ClassDef) -> Iterator[Fact]:
    """Yield the table of a class, and the tables that its foreign keys point to."""
    names = (item for item in node.body if isinstance(item, ast.Assign))
    name = next(item.value for item in names if ast.unparse(item.targets[0]) == "__tablename__")
    yield Fact("table", ast.unparse(name).strip("'\""), node.lineno, node.lineno, node.name)
    for call in (part for part in ast.walk(node) if isinstance(part, ast.Call)):
        pointing = [keyword.value for keyword in call.keywords if keyword.arg == "foreign_key"]
        if ast.unparse(call.func).endswith("ForeignKey"):
            pointing += call.args[:1]
        for value in pointing:
            if isinstance(value, ast.Constant):
                yield Fact("foreign key", str(value.value).rpartition(".")[0], value.lineno, value.lineno)


def contributions(name: str, call: ast.Call) -> Iterator[Fact]:
    """Yield what a `Module(...)` contributes: tables, settings classes, and routers by their tier."""
    if ast.unparse(call.func) != "Module":
        return
    yield Fact("module", name, call.lineno, call.end_lineno or call.lineno)
    for keyword in call.keywords:
        last = keyword.value.end_lineno or keyword.value.lineno
        if keyword.arg in {"tables", "settings"} and isinstance(keyword.value, (ast.List, ast.Tuple)):
            for item in keyword.value.elts:
                yield Fact(f"contributed {keyword.arg}", ast.unparse(item), item.lineno, last, name)
        if keyword.arg == "routers" and isinstance(keyword.value, ast.Dict):
            for key, value in zip(keyword.value.keys, keyword.value.values, strict=True):
                tier = ast.unparse(key).removeprefix("Tier.") if key else ""
                for item in value.elts if isinstance(value, (ast.List, ast.Tuple)) else ():
                    router = ast.unparse(item).partition("(")[0]
                    yield Fact("mounted", router, item.lineno, last, f"{name} {tier}")
        if keyword.arg == "commands":
            yield Fact("contributed commands", ast.unparse(keyword.value), call.lineno, last, name)


def routers(node: ast.AST) -> Iterator[Fact]:
    """Yield a router with its prefix, wherever it is made."""
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
        call = node.value
        if ast.unparse(call.func) == "APIRouter":
            prefix = next((ast.unparse(word.value).strip("'\"") for word in call.keywords if word.arg == "prefix"), "")
            yield Fact("router", ast.unparse(node.targets[0]), call.lineno, call.end_lineno or call.lineno, prefix)
        if ast.unparse(call.func) == "typer.Typer":
            for word in call.keywords:
                if word.arg == "name":
                    yield Fact(
                        "group", ast.unparse(word.value).strip("'\""), call.lineno, call.end_lineno or call.lineno
                    )


def routes(tree: ast.Module) -> Iterator[Fact]:
    """Yield the routes and the commands that functions are decorated with, `of` what they belong to."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for decorator in node.decorator_list:
            if not isinstance(decorator, ast.Call) or not isinstance(decorator.func, ast.Attribute):
                continue
            method, router = decorator.func.attr, ast.unparse(decorator.func.value)
            if method == "command":
                name = ast.unparse(decorator.args[0]).strip("'\"") if decorator.args else node.name.replace("_", "-")
                yield Fact("command", name, decorator.lineno, decorator.lineno, router)
            if method == "callback" and any(word.arg == "invoke_without_command" for word in decorator.keywords):
                # The group is a command itself.
                yield Fact("command", "", decorator.lineno, decorator.lineno, router)
            if method in {"get", "post", "put", "patch", "delete", "websocket", "api_route"} and decorator.args:
                path = ast.unparse(decorator.args[0]).strip("'\"")
                yield Fact("route", f"{method.upper()} {path}", decorator.lineno, decorator.lineno, router)


def dependencies(text: str) -> Iterator[Fact]:
    """Yield the packages that a project needs when it runs, and those for its development."""
    tomllib.loads(text)
    section = key = ""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"\[+([\w.-]+)\]+$", line):
            section = found[1]
        elif found := re.match(r"(\w+) = ", line):
            key = found[1]
        where = {"project dependencies": "runtime", "dependency-groups dev": "development"}.get(f"{section} {key}")
        if where and (found := re.match(r'    "(.+)",$', line)):
            yield Fact(where, Requirement(found[1]).name, number, number)


def examples(text: str) -> Iterator[Fact]:
    """Yield the settings of a `.env` file, commented out or not."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"#? ?([A-Z][A-Z0-9_]*)=", line):
            yield Fact("example", found[1], number, number)


def targets(text: str) -> Iterator[Fact]:
    """Yield the targets of a Makefile."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.match(r"([a-z][a-z-]*):", line):
            yield Fact("target", found[1], number, number)


def image(text: str) -> Iterator[Fact]:
    """Yield the environment variables that a Dockerfile sets."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        inside = line.startswith("ENV ") or inside
        if inside:
            yield from (
                Fact("image variable", name, number, number) for name in re.findall(r"(?:^ENV|^) +(\w+)=", line)
            )
            inside = line.endswith("\\")


def document(text: str) -> Iterator[Fact]:
    """Yield the relative links of a document, and the commands, files, modules and settings that it names as code."""
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("```"):
            fenced = not fenced
            continue
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", line):
            yield Fact("link", link, number, number)
        for code in [line.split("  #")[0].strip()] if fenced else re.findall(r"`([^`]+)`", line):
            yield from mentions(code, number, fenced=fenced)
    yield from commands(text)


def mentions(code: str, number: int, *, fenced: bool) -> Iterator[Fact]:
    """Yield what a piece of code in a document names."""
    if found := re.match(r"app ([a-z-]+(?: [a-z-]+)?)", code):
        yield Fact("mention command", found[1], number, number)
    if fenced:
        return
    if PATH.fullmatch(code):
        yield Fact("mention path", code.strip("/"), number, number)
    if re.fullmatch(r"app(\.\w+)+", code):
        yield Fact("mention module", code, number, number)
    if found := re.fullmatch(r"([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)(?:=.*)?", code):
        yield Fact("mention setting", found[1], number, number)


def commands(text: str) -> Iterator[Fact]:
    """Yield the `make` targets that a text names."""
    for number, line in enumerate(text.splitlines(), 1):
        for target in re.findall(r"(?:`|run: |^)make ([a-z-]+)", line):
            yield Fact("make", target, number, number)


def compose(text: str) -> Iterator[Fact]:
    """Yield what a compose file sets for the service, and which services, networks and volumes it has and uses."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    yield from commands(text)
    for number, line in enumerate(text.splitlines(), 1):
        yield from (Fact("compose variable", name, number, number) for name in re.findall(r"\$\{(\w+)", line))
    for key, value in pairs(root):
        if key.value == "x-app":
            for name, inner in pairs(value):
                if name.value == "environment":
                    yield from (Fact("composed", one.value, *lines(one)) for one, _ in pairs(inner))
        if key.value in {"networks", "volumes", "secrets", "configs"}:
            yield from (Fact(f"compose {key.value}", one.value, *lines(one)) for one, _ in pairs(value))
        if key.value == "services" or key.value.startswith("x-"):
            for name, service in pairs(value) if key.value == "services" else [(key, value)]:
                if key.value == "services":
                    yield Fact("compose services", name.value, *lines(name))
                    images = [two.value for one, two in pairs(service) if one.value == "image"]
                    yield from (Fact("compose server", image.partition(":")[0], *lines(name)) for image in images)
                yield from used(service)


def pipeline(text: str) -> Iterator[Fact]:
    """Yield the servers that a pipeline starts, by their images, and the variables that it sets."""
    left: list[yaml.Node | None] = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
    while left:
        node = left.pop()
        if isinstance(node, yaml.SequenceNode):
            left += node.value
        for key, value in pairs(node):
            left.append(value)
            if key.value in {"env", "variables"}:
                yield from (Fact("pipeline variable", name.value, *lines(name)) for name, _ in pairs(value))
            if key.value == "services":
                items = [item for _, item in pairs(value)] or list(value.value)
                for item in items:
                    inside = {one.value: two for one, two in pairs(item)}
                    image = inside.get("image") or inside.get("name") or item
                    if isinstance(image, yaml.ScalarNode):
                        yield Fact("pipeline server", image.value.partition(":")[0], *lines(image))


def used(service: yaml.Node) -> Iterator[Fact]:
    """Yield what a service of a compose file needs: other services, networks and named volumes."""
    for key, value in pairs(service):
        if key.value in {"depends_on", "networks"}:
            kind = "services" if key.value == "depends_on" else "networks"
            names = [name for name, _ in pairs(value)] or getattr(value, "value", [])
            yield from (Fact(f"compose needs {kind}", name.value, *lines(name)) for name in names)
        if key.value == "volumes" and isinstance(value, yaml.SequenceNode):
            for volume in value.value:
                source = str(volume.value).partition(":")[0] if isinstance(volume, yaml.ScalarNode) else ""
                if re.fullmatch(r"[\w-]+", source):
                    yield Fact("compose needs volumes", source, *lines(volume))


def pairs(node: yaml.Node | None) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    """Return the keys and values of a mapping, and none of anything else."""
    if not isinstance(node, yaml.MappingNode):
        return []
    return [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]


def lines(node: yaml.Node) -> tuple[int, int]:
    """Return the first and the last line of a node."""
    return node.start_mark.line + 1, node.end_mark.line + 1

"""Checks of what Python files and the manifest say: imports, dependencies, settings, ownership, dead values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from evidence import Place, Proof, Violation

# Packages whose module has another name, and those that are used without an import.
MODULES = {"argon2-cffi": "argon2", "pyjwt": "jwt", "python-dotenv": "dotenv"}
USED_WITHOUT_IMPORT = {
    "anyio": "a plugin of pytest",
    "import-linter": "a command",
    "mypy": "a command",
    "pre-commit": "a command",
    "flask": "what moto's server is made with",
    "flask-cors": "what moto's server is made with",
    "pytest-cov": "a plugin of pytest",
    "pytest-xdist": "a plugin of pytest",
    "ruff": "a command",
    "tzdata": "time zones, where the system has none",
}


def module_file(proof: Proof, module: str) -> str | None:
    """Return the file of a module of the service, or its folder, which ends with a slash, if there is one."""
    base = module.replace(".", "/")
    for path in (f"{base}.py", f"{base}/__init__.py"):
        if path in proof.presences:
            return path
    return f"{base}/" if any(path.startswith(f"{base}/") for path in proof.presences) else None


def imports(proof: Proof) -> Iterator[Violation]:
    """What a file imports from the service is there whenever the file is, and so is every name."""
    defined: dict[tuple[str, str], list[Place]] = defaultdict(list)
    for place in proof.said("define"):
        defined[place.path, place.fact.name].append(place)
    for place in proof.said("import"):
        module, name = place.fact.name, place.fact.of
        if name and (inner := module_file(proof, f"{module}.{name}")) and not inner.endswith("/"):
            module, name = f"{module}.{name}", ""
        target = module_file(proof, module)
        if target is None or target.endswith("/"):
            yield proof.violation("import", place, f"there is no module {module}", proof.gap(place))
        elif example := proof.gap(place, [proof.presences[target]]):
            yield proof.violation("import", place, f"{module} is not rendered", example)
        elif name and name != "*":
            ways = [there.literals for there in defined[target, name]]
            yield from proof.unless("import", place, f"{module} has no {name}", ways)


def dependencies(proof: Proof) -> Iterator[Violation]:
    """What is imported is declared, and what is declared is used."""
    declared: dict[str, dict[str, list[Place]]] = {}
    for kind in ("runtime", "development"):
        declared[kind] = defaultdict(list)
        for place in proof.said(kind):
            module = MODULES.get(place.fact.name, place.fact.name.replace("-", "_"))
            declared[kind][module].append(place)
    for place in proof.said("package"):
        known = list(declared["runtime"][place.fact.name])
        if not place.path.startswith(("app/", "migrations/")):
            known += declared["development"][place.fact.name]
        message = f"{place.fact.name} is imported and not declared"
        yield from proof.unless("dependency", place, message, [one.literals for one in known])
    imported = proof.named("package")
    for kind, folders in (("runtime", ("app/", "migrations/")), ("development", ("",))):
        for module, places in declared[kind].items():
            for place in (one for one in places if one.fact.name not in USED_WITHOUT_IMPORT):
                users = [one.literals for one in imported[module] if one.path.startswith(folders)]
                yield from proof.unless("dependency", place, f"{place.fact.name} is declared and not used", users)


def settings(proof: Proof) -> Iterator[Violation]:
    """Settings are declared, in `.env.example`, read by somebody, and contributed by what is installed."""
    declared, examples = proof.named("setting", "app/"), proof.named("example")
    read = proof.named("attribute", "app/")
    for name, places in declared.items():
        for place in places:
            ways = [one.literals for one in examples[name]]
            yield from proof.unless("setting", place, f"{name} is not in .env.example", ways)
            users = [one.literals for one in read[place.fact.of]]
            yield from proof.unless("setting", place, f"nobody reads {name}", users)
    for kind in ("example", "composed", "image variable", "pipeline variable"):
        for place in proof.said(kind):
            if place.fact.name.startswith(tuple(proof.contract["variables"])):
                continue
            ways = [one.literals for one in declared[place.fact.name]]
            yield from proof.unless("setting", place, f"{place.fact.name} is no setting", ways)
    for place in proof.said("environment", "app/"):
        ways = [one.literals for one in declared[place.fact.name]]
        yield from proof.unless("setting", place, f"{place.fact.name} is read past the settings", ways)


def ownership(proof: Proof) -> Iterator[Violation]:
    """Every path in `owns` exists and is owned once, but for what a module has in a folder of one that it needs."""
    manifest = "extensions/modules.yml"
    rows = (proof.projection.space.root / manifest).read_text("utf-8").splitlines()
    owner: dict[str, str] = {}
    for module in proof.projection.space.modules.values():
        begin = next(number for number, text in enumerate(rows, 1) if text.startswith(f"{module.name}:"))
        for row in module.owns:
            line = next((at for at, text in enumerate(rows[begin - 1 :], begin) if row in text), begin)
            paths = [path for path in proof.presences if f"/{path}" == row or f"/{path}".startswith(f"{row}/")]
            if not row.startswith("/") or row.endswith("/") or not paths:
                message = f"{module.name} owns {row}, which is not there"
                yield Violation("ownership", manifest, line, message, None)
            for path in paths:
                if path in owner and owner[path] not in proof.projection.space.closure(module.name):
                    message = f"{path} is owned by {owner[path]} and {module.name}"
                    yield Violation("ownership", manifest, line, message, None)
                owner[path] = module.name


def floor(proof: Proof) -> Iterator[Violation]:
    """What no module owns is of the floor that every service has, and somebody needs it."""
    owned = {row.lstrip("/") for module in proof.projection.space.modules.values() for row in module.owns}
    for path in proof.presences:
        if not any(path == one or path.startswith(f"{one}/") for one in (*owned, *proof.contract["floor"])):
            yield Violation("ownership", path, 1, "no module owns this, and not every service needs it", None)
    importers: dict[str, list[Place]] = defaultdict(list)
    for place in proof.said("import"):
        if not place.path.startswith("tests/"):
            for module in (place.fact.name, f"{place.fact.name}.{place.fact.of}"):
                importers[module_file(proof, module) or ""].append(place)
    for path, there in proof.presences.items():
        if path.startswith("app/") and path.endswith(".py") and path not in proof.contract["begin"]:
            ways = [proof.prover.all_of(one.literals) for one in importers[path] if one.path != path]
            if example := proof.prover.example([there, *(-way for way in ways)]):
                yield Violation("ownership", path, 1, "nothing imports this, and it is rendered", example)


def dead_values(proof: Proof) -> Iterator[Violation]:
    """Every value of every question changes what is rendered."""
    matters = {abs(literal) for literal in proof.presences.values()}
    for file in proof.projection.files:
        for piece in file.pieces:
            if len({leaf.text for leaf in piece}) > 1:
                matters |= {abs(literal) for leaf in piece for literal in leaf.literals}
    entries = (proof.projection.space.root / "copier.yml").read_text("utf-8").splitlines()
    for question in proof.projection.space.questions.values():
        if question.name in {"preset", "customize"}:
            continue  # They only move what is asked, and the defaults.
        line = next(number for number, text in enumerate(entries, 1) if text.startswith(f"{question.name}:"))
        for variable in question.variables():
            if not any(proof.prover.depends(literal, variable) for literal in matters):
                message = f"{question.name}: {variable.value} changes nothing"
                yield Violation("dead value", "copier.yml", line, message, None)

"""Checks of how a service is put together: modules, tables, routes, commands, servers, rules and presets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import yaml
from checks import module_file
from evidence import CONTRACT, Place, Proof, Violation
from jinja2 import nodes
from space import FALSE, TRUE, And, Formula, Not, Or, Prover, Space, UnmodelledError, formula

TIERS = {"P": "/api/v1/public", "A": "/api/v1/app", "M": "/api/v1/admin"}
# These are the composition root's own, and no module contributes them.
COMPOSED_IN = "app/main.py"


def condition(space: Space, text: str) -> Formula:
    """Translate a condition of the contract; what it says of a question that is not asked yet does not hold."""
    test = next(space.environment.parse(f"{{% if {text} %}}x{{% endif %}}").find_all(nodes.If)).test

    def known(node: nodes.Node) -> Formula:
        match node:
            case nodes.And():
                return And((known(node.left), known(node.right)))
            case nodes.Or():
                return Or((known(node.left), known(node.right)))
            case nodes.Not():
                return Not(known(node.node))
        try:
            return formula(node, space, CONTRACT.name)
        except UnmodelledError:
            names = {name.name for name in [node, *node.find_all(nodes.Name)] if isinstance(name, nodes.Name)}
            if names & space.questions.keys():
                raise
            return FALSE

    return known(test)


def modules(proof: Proof) -> Iterator[Violation]:
    """Every module that is there is installed, and what a module's files have is contributed by it."""
    installed = proof.named("installed", "app/installed.py")
    for place in proof.said("module", "app/"):
        ways = [one.literals for one in installed[place.fact.name]]
        yield from proof.unless("module", place, f"{place.fact.name} is not among the installed modules", ways)
    aliases = proof.named("alias", COMPOSED_IN)
    for kind, contributed in (("settings class", "settings"), ("table", "tables")):
        given = proof.named(f"contributed {contributed}")
        for place in proof.said(kind, "app/"):
            name = place.fact.of or place.fact.name
            ways = [one.literals for one in (*given[name], *(aliases[name] if kind != "table" else ()))]
            yield from proof.unless("module", place, f"no module contributes {name}", ways)


def tables(proof: Proof) -> Iterator[Violation]:
    """A foreign key points to a table that is there, and no two tables have one name."""
    there = proof.named("table", "app/")
    for place in proof.said("foreign key", "app/"):
        ways = [one.literals for one in there[place.fact.name]]
        yield from proof.unless("table", place, f"there is no table {place.fact.name}", ways)
    for name, places in there.items():
        for one in places:
            for other in places:
                if one.path < other.path and (example := proof.prover.example([*one.literals, *other.literals])):
                    message = f"{name} is a table of {one.path} as well"
                    yield proof.violation("table", other, message, example)


def mounted(proof: Proof) -> Iterator[tuple[str, Place, tuple[int, ...]]]:
    """Yield every route with its whole path, where it stands, and the conditions under which it is served."""
    tiers = {place.fact.name: place.fact.of for place in proof.said("tier", "app/kit/")}
    installed = proof.named("installed", "app/installed.py")
    for mount in proof.said("mounted", "app/"):
        module, tier = mount.fact.of.split(" ")
        origin = next((one for one in proof.said("alias", mount.path) if one.fact.name == mount.fact.name), None)
        path = module_file(proof, origin.fact.of.partition(":")[0]) if origin else mount.path
        router = origin.fact.of.partition(":")[2] if origin else mount.fact.name
        prefixes = {one.fact.name: one.fact.of for one in proof.said("router", path or "?")}
        for route in proof.said("route", path or "?"):
            # A factory makes the only router of its file.
            if route.path == path and (route.fact.of == router or router not in prefixes):
                method, _, rest = route.fact.name.partition(" ")
                whole = f"{method} {tiers.get(tier, '?')}{prefixes.get(route.fact.of, '')}{rest}"
                for one in installed[module]:
                    yield whole, route, (*mount.literals, *route.literals, *one.literals)


def routes(proof: Proof) -> Iterator[Violation]:
    """What the contract promises for a selection is served, and what is served is in the contract."""
    space, prover = proof.projection.space, proof.prover
    served = list(mounted(proof))
    promised: dict[str, list[int]] = {}
    lines = proof.contract_file.read_text("utf-8").splitlines()
    for row in proof.contract["routes"]:
        holds = TRUE if row["when"] == "true" else condition(space, row["when"])
        for short in row["paths"]:
            method, _, path = short.partition(" ")
            name = f"{method} {TIERS.get(path[0], path[0])}{path[1:]}"
            promised.setdefault(name, []).append(prover.literal(holds))
            ways = [prover.all_of(literals) for route, _, literals in served if route == name]
            if example := prover.example([prover.literal(holds), *(-way for way in ways)]):
                line = next(number for number, text in enumerate(lines, 1) if text.strip(" -").endswith(short))
                yield Violation("route", proof.contract_file.name, line, f"{name} is promised and not served", example)
    for name, place, literals in served:
        if name.partition(" ")[2] in proof.contract["more"]:
            continue
        if example := prover.example([*literals, *(-literal for literal in promised.get(name, []))]):
            yield proof.violation("route", place, f"{name} is served and not promised", example)
    bound = {(place.path, place.fact.line) for _, place, _ in served}
    for place in proof.said("route", "app/"):
        if (place.path, place.fact.line) not in bound:
            message = f"{place.fact.name} belongs to no router that a module mounts"
            yield proof.violation("route", place, message, proof.gap(place))


def servers(proof: Proof) -> Iterator[Violation]:
    """Compose and every pipeline start just the servers that were chosen, and set what tests ask for."""
    prover, space = proof.prover, proof.projection.space
    chosen = {image: prover.literal(space.selected(name)) for name, image in proof.contract["servers"].items()}
    pipelines = {place.path for place in proof.said("make") if place.path.startswith(".git")} | {
        path for path in proof.presences if path.startswith((".github/workflows/", ".gitlab-ci"))
    }
    for path in sorted({"compose.yaml", *pipelines} & proof.presences.keys()):
        kind = "compose server" if path == "compose.yaml" else "pipeline server"
        there = proof.named(kind, path)
        for image, literal in chosen.items():
            ways = [prover.all_of(one.literals) for one in there[image]]
            if example := prover.example([proof.presences[path], literal, *(-way for way in ways)]):
                yield Violation("server", path, 1, f"{image} was chosen and is not started", example)
            for place in there[image]:
                yield from proof.unless("server", place, f"{image} is started and was not chosen", [[literal]])
    for path in sorted(pipelines & proof.presences.keys()):
        given = proof.named("pipeline variable", path)
        asked = {name: places for name, places in proof.named("environment", "tests/").items() if name[:5] == "TEST_"}
        for name, places in asked.items():
            for place in places:
                known = [(-proof.presences[path],), *(one.literals for one in given[name])]
                yield from proof.unless("server", place, f"{path} does not set {name}, which this asks for", known)
        for name, places in given.items():
            for place in places if name.startswith("TEST_") else ():
                users = [one.literals for one in asked.get(name, [])]
                yield from proof.unless("server", place, f"no test asks for {name}", users)


def rules(proof: Proof) -> Iterator[Violation]:
    """Copier refuses what the contract refuses, and nothing else."""
    space = proof.projection.space
    free = Prover(replace(space, rules=[]))
    refused = free.literal(Or(tuple(condition(space, rule) for rule in proof.contract["rules"])))
    allowed = free.literal(And(tuple(space.rules)))
    if example := free.example([allowed, refused]):
        yield Violation("rule", "copier.yml", 1, "these answers make no sense and are taken", example)
    if example := free.example([-allowed, -refused]):
        yield Violation("rule", "copier.yml", 1, "these answers make sense and are refused", example)


def presets(proof: Proof) -> Iterator[Violation]:
    """Every preset that is offered exists, and sets known questions to values that are offered together."""
    space = proof.projection.space
    if "preset" not in space.questions:
        return
    path = "extensions/presets.yml"
    text = (space.root / path).read_text("utf-8")
    rows: dict[str, dict[str, Any]] = yaml.safe_load(text)
    for name in space.questions["preset"].values:
        line = next((at for at, row in enumerate(text.splitlines(), 1) if row.startswith(f"{name}:")), 1)
        if name not in rows:
            yield Violation("preset", path, line, f"{name} is offered and is no preset", {"preset": name})
        for key, value in rows.get(name, {}).items():
            question = space.questions.get(key)
            values = value if isinstance(value, list) else [value]
            if question is None:
                yield Violation("preset", path, line, f"{name} sets {key}, which is no question", {"preset": name})
            elif question.kind != "bool" and not set(values) <= set(question.values):
                yield Violation("preset", path, line, f"{name} sets {key} to what is not offered", {"preset": name})

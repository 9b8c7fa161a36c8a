"""The space of answers: what copier.yml asks and the manifest selects, as propositional formulas.

Questions with choices and yes/no questions are closed; each value is a variable. A question with one value has exactly
one of them, one with many has any. What a module is selected by, and what a validator refuses, are read from the same
files that Copier reads, so there is no second list. An expression that has no counterpart in logic is refused.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import yaml
from copier._main import Worker
from dd.autoref import BDD
from jinja2 import Environment, nodes
from pysat.solvers import Solver  # type: ignore[import-untyped]

Answers = dict[str, Any]
Kind = Literal["one", "many", "bool"]


class UnmodelledError(Exception):
    """Something that a rendering depends on has no counterpart in the space; the text says what and where."""


@dataclass(frozen=True)
class Var:
    """A variable: that a question has a value, or for a yes/no question, that it is answered yes."""

    question: str
    value: str


@dataclass(frozen=True)
class Not:
    """The formula does not hold."""

    of: Formula


@dataclass(frozen=True)
class And:
    """All of the formulas hold; with none it is true."""

    of: tuple[Formula, ...]


@dataclass(frozen=True)
class Or:
    """Some of the formulas hold; with none it is false."""

    of: tuple[Formula, ...]


Formula = Var | Not | And | Or
TRUE = And(())
FALSE = Or(())


@dataclass(frozen=True)
class Question:
    """A closed question."""

    name: str
    kind: Kind
    values: tuple[str, ...]

    def variables(self) -> tuple[Var, ...]:
        """Return one variable for each value, or one for yes."""
        return tuple(Var(self.name, value) for value in self.values)


@dataclass(frozen=True)
class Module:
    """A row of the manifest."""

    name: str
    owns: tuple[str, ...]
    needs: tuple[str, ...]
    condition: Formula


@dataclass
class Space:
    """All combinations of answers that the template takes."""

    root: Path
    questions: dict[str, Question] = field(default_factory=dict)
    open_questions: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    modules: dict[str, Module] = field(default_factory=dict)
    rules: list[Formula] = field(default_factory=list)
    _selected: dict[str, Formula] = field(default_factory=dict)

    @classmethod
    def read(cls, root: Path) -> Space:
        """Read a template. Raises UnmodelledError for a condition that has no counterpart."""
        space = cls(root)
        entries: dict[str, Any] = yaml.safe_load((root / "copier.yml").read_text("utf-8"))
        asked = {key: entry for key, entry in entries.items() if not key.startswith("_")}
        space.hidden = tuple(key for key, entry in asked.items() if entry.get("when") is False)
        for key, entry in asked.items():
            if question := closed(key, entry):
                space.questions[key] = question
        space.open_questions = tuple(key for key in asked if key not in space.questions and key not in space.hidden)
        for key in space.questions:
            if refusal := asked[key].get("validator"):
                place = f"copier.yml: {key}"
                space.rules.append(Not(says_something(space.environment.parse(refusal).body, space, place)))
            for value, refusal in refused_choices(asked[key]):
                place = f"copier.yml: {key}: {value}"
                refused = says_something(space.environment.parse(refusal).body, space, place)
                space.rules.append(Not(And((Var(key, value), refused))))
        space.modules = read_manifest(space, root / "extensions" / "modules.yml")
        space._selected.clear()
        return space

    @cached_property
    def worker(self) -> Worker:
        """Copier's own worker for this template, whose Jinja environment renders."""
        return Worker(src_path=str(self.root), dst_path=Path("unused"), defaults=True, quiet=True)

    @property
    def environment(self) -> Environment:
        """The Jinja environment as Copier sets it up for this template."""
        return self.worker.jinja_env

    def variables(self) -> list[Var]:
        """Return all variables, in the order of the questions."""
        return [variable for question in self.questions.values() for variable in question.variables()]

    def selected(self, module: str) -> Formula:
        """Return when a module is selected: by its own condition, or because a selected one needs it."""
        if module not in self._selected:
            ways = [self.modules[name].condition for name in self.modules if module in self.closure(name)]
            self._selected[module] = Or(tuple(ways))
        return self._selected[module]

    def closure(self, module: str) -> set[str]:
        """Return a module and all that it needs, directly or not."""
        found, left = set[str](), [module]
        while left:
            name = left.pop()
            if name not in found:
                found.add(name)
                left += self.modules[name].needs
        return found

    def count(self) -> int:
        """Return the exact number of valid combinations."""
        diagram = BDD()
        names = {variable: f"v{number}" for number, variable in enumerate(self.variables())}
        diagram.declare(*names.values())
        whole = diagram.true
        for question in self.questions.values():
            if question.kind == "one":
                terms = [diagram.var(names[variable]) for variable in question.variables()]
                some = diagram.false
                for term in terms:
                    some |= term
                whole &= some
                for one, other in combinations(terms, 2):
                    whole &= ~(one & other)
        for rule in self.rules:
            whole &= as_diagram(rule, diagram, names)
        return int(diagram.count(whole, nvars=len(names)))

    def answers(self, model: Iterable[Var]) -> Answers:
        """Return the answers in which just these variables hold."""
        true = set(model)
        found: Answers = {}
        for question in self.questions.values():
            values = [variable.value for variable in question.variables() if variable in true]
            if question.kind == "many":
                found[question.name] = values
            elif question.kind == "one":
                found[question.name] = values[0]
            else:
                found[question.name] = bool(values)
        return found


def closed(key: str, entry: Mapping[str, Any]) -> Question | None:
    """Return the closed question of an entry of copier.yml, if it is one."""
    if entry.get("when") is False:
        return None
    if entry.get("type") == "bool":
        return Question(key, "bool", ("true",))
    choices = entry.get("choices")
    if not choices:
        return None
    listed: Sequence[Any] = list(choices.values()) if isinstance(choices, dict) else choices
    values = tuple(str(value["value"] if isinstance(value, dict) else value) for value in listed)
    return Question(key, "many" if entry.get("multiselect") else "one", values)


def refused_choices(entry: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the values of a question that have a validator, with it."""
    choices = entry.get("choices") or ()
    for choice in choices.values() if isinstance(choices, dict) else choices:
        if isinstance(choice, dict) and choice.get("validator"):
            yield str(choice["value"]), choice["validator"]


def read_manifest(space: Space, path: Path) -> dict[str, Module]:
    """Read the rows of modules.yml, with the expressions that select them."""
    place = path.name
    found: dict[str, nodes.Expr] = {}
    text = ""
    for node in space.environment.parse(path.read_text("utf-8")).body:
        if not isinstance(node, nodes.Output):
            raise UnmodelledError(f"{place}:{node.lineno}: a manifest holds values only, no statements")
        for part in node.nodes:
            if isinstance(part, nodes.TemplateData):
                text += part.data
            else:
                name = f"expression_{len(found)}"
                found[name] = part
                text += name
    rows: dict[str, dict[str, Any]] = yaml.safe_load(text)
    modules = {}
    for name, row in rows.items():
        value = row["selected"]
        if isinstance(value, bool):
            condition: Formula = TRUE if value else FALSE
        else:
            condition = formula(found[value], space, place)
        modules[name] = Module(name, tuple(row["owns"]), tuple(row["needs"]), condition)
    for module in modules.values():
        for need in module.needs:
            if need not in modules:
                raise UnmodelledError(f"{place}: {module.name} needs {need}, and there is no such module")
    return modules


def formula(node: nodes.Node, space: Space, place: str) -> Formula:  # noqa: PLR0911
    """Translate a condition. Raises UnmodelledError for what is no statement about closed questions."""
    match node:
        case nodes.Const(value=bool(value)):
            return TRUE if value else FALSE
        case nodes.Not():
            return Not(formula(node.node, space, place))
        case nodes.And():
            return And((formula(node.left, space, place), formula(node.right, space, place)))
        case nodes.Or():
            return Or((formula(node.left, space, place), formula(node.right, space, place)))
        case nodes.Name(name=name) if name in space.questions and space.questions[name].kind != "one":
            return Or(space.questions[name].variables())
        case nodes.Getattr(attr="selected", node=nodes.Getattr(attr=module, node=nodes.Name(name="modules"))):
            return space.selected(module)
        case nodes.Compare(expr=left, ops=[nodes.Operand(op=op, expr=right)]):
            if (found := comparison(left, op, right, space)) is not None:
                return found
    raise UnmodelledError(f"{place}:{node.lineno}: {type(node).__name__} is no condition on closed questions")


def comparison(left: nodes.Node, op: str, right: nodes.Node, space: Space) -> Formula | None:
    """Translate `'x' in question`, `question == 'x'` and `question | length > 0`, and what negates them."""
    match left, op, right:
        case nodes.Const(value=str(value)), "in" | "notin", nodes.Name(name=name) if many(space, name):
            holds: Formula = Var(name, value) if value in space.questions[name].values else FALSE
            return holds if op == "in" else Not(holds)
        case nodes.Name(name=name), "eq" | "ne", nodes.Const(value=str(value)) if one(space, name):
            holds = Var(name, value) if value in space.questions[name].values else FALSE
            return holds if op == "eq" else Not(holds)
        case nodes.Name(name=name), "in" | "notin", nodes.List() | nodes.Tuple() if one(space, name):
            values = {item.value for item in right.items if isinstance(item, nodes.Const)}
            holds = Or(tuple(variable for variable in space.questions[name].variables() if variable.value in values))
            return holds if op == "in" else Not(holds)
        case nodes.Filter(name="length" | "count", node=nodes.Name(name=name)), "gt" | "eq", nodes.Const(value=0):
            if many(space, name):
                some = Or(space.questions[name].variables())
                return some if op == "gt" else Not(some)
    return None


def many(space: Space, name: str) -> bool:
    """Return whether a name is that of a question with many values."""
    return name in space.questions and space.questions[name].kind == "many"


def one(space: Space, name: str) -> bool:
    """Return whether a name is that of a question with one value."""
    return name in space.questions and space.questions[name].kind == "one"


def says_something(body: Sequence[nodes.Node], space: Space, place: str) -> Formula:
    """Return when a template renders to more than space, which is how a validator refuses."""
    found: list[Formula] = []
    for node in body:
        if isinstance(node, nodes.Output):
            if any(not isinstance(part, nodes.TemplateData) or part.data.strip() for part in node.nodes):
                found.append(TRUE)
        elif isinstance(node, nodes.If):
            branches = [(node.test, node.body), *((branch.test, branch.body) for branch in node.elif_)]
            before: list[Formula] = []
            for test, inside in branches:
                holds = formula(test, space, place)
                found.append(And((*before, holds, says_something(inside, space, place))))
                before.append(Not(holds))
            found.append(And((*before, says_something(node.else_, space, place))))
        else:
            raise UnmodelledError(f"{place}:{node.lineno}: a validator holds conditions and sentences only")
    return Or(tuple(found))


def as_diagram(what: Formula, diagram: BDD, names: Mapping[Var, str]) -> Any:
    """Return the decision diagram of a formula."""
    match what:
        case Var():
            return diagram.var(names[what])
        case Not(of=part):
            return ~as_diagram(part, diagram, names)
        case And(of=parts):
            found = diagram.true
            for part in parts:
                found &= as_diagram(part, diagram, names)
            return found
        case Or(of=parts):
            found = diagram.false
            for part in parts:
                found |= as_diagram(part, diagram, names)
            return found


# How many random answers a prover keeps as witnesses.
WITNESSES = 4096


class Prover:
    """Asks a SAT solver about formulas over the space, whose questions and rules always hold.

    It keeps random answers, and for each literal under which of them it holds, as the bits of a number. What some of
    them show to be possible the solver is not asked.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self.queries = 0
        self._solver = Solver(name="cadical195")
        self._ids: dict[Formula, int] = {}
        self._support: dict[int, frozenset[Var]] = {}
        self._conjunctions: dict[frozenset[int], int] = {}
        self._next = 0
        self._all = (1 << WITNESSES) - 1
        self._bits: dict[int, int] = {}
        self._drawn = dict(drawn(space, random.Random(WITNESSES)))  # noqa: S311
        for question in space.questions.values():
            literals = [self.literal(variable) for variable in question.variables()]
            if question.kind == "one":
                self._solver.add_clause(literals)
                for one_of, other in combinations(literals, 2):
                    self._solver.add_clause([-one_of, -other])
        rules = [self.literal(rule) for rule in space.rules]
        for rule in rules:
            self._solver.add_clause([rule])
        self._witnesses = self.witnessed(rules)

    def literal(self, what: Formula) -> int:
        """Return the literal that is equivalent to a formula (Tseitin)."""
        if isinstance(what, Not):
            return -self.literal(what.of)
        if what not in self._ids:
            parts = [] if isinstance(what, Var) else [self.literal(part) for part in what.of]
            self._next += 1
            name = self._ids[what] = self._next
            self._bits[name] = self._drawn[what] if isinstance(what, Var) else self.witnessed(parts)
            if isinstance(what, Or):
                self._bits[name] = self._all ^ self.witnessed([-part for part in parts])
            mentioned = (self._support[abs(part)] for part in parts)
            self._support[name] = frozenset({what} if isinstance(what, Var) else frozenset().union(*mentioned))
            if isinstance(what, And):
                self._solver.add_clause([name, *(-part for part in parts)])
                for part in parts:
                    self._solver.add_clause([-name, part])
            elif isinstance(what, Or):
                self._solver.add_clause([-name, *parts])
                for part in parts:
                    self._solver.add_clause([name, -part])
        return self._ids[what]

    def all_of(self, literals: Iterable[int]) -> int:
        """Return the literal that is equivalent to all of these holding."""
        key = frozenset(literals)
        if key not in self._conjunctions:
            self._next += 1
            name = self._conjunctions[key] = self._next
            self._bits[name] = self.witnessed(key)
            none = frozenset[Var]()
            self._support[name] = none.union(*(self._support.get(abs(literal), none) for literal in key))
            self._solver.add_clause([name, *(-literal for literal in key)])
            for literal in key:
                self._solver.add_clause([-name, literal])
        return self._conjunctions[key]

    def witnessed(self, literals: Iterable[int]) -> int:
        """Return under which of the witnesses all literals hold, one bit for each."""
        found = self._all
        for literal in literals:
            found &= self._bits[literal] if literal > 0 else self._all ^ self._bits[-literal]
        return found

    def any_of(self, ways: Iterable[Iterable[int]]) -> int:
        """Return the literal that is equivalent to all literals of some way holding."""
        return -self.all_of(-self.all_of(way) for way in ways)

    def depends(self, literal: int, variable: Var) -> bool:
        """Return whether a literal's formula mentions a variable."""
        return variable in self._support.get(abs(literal), frozenset())

    def example(self, literals: Iterable[int]) -> Answers | None:
        """Return answers under which all literals hold, if there are any."""
        self.queries += 1
        if not self._solver.solve(assumptions=list(literals)):
            return None
        model = {literal for literal in self._solver.get_model() or () if literal > 0}
        return self.space.answers(var for var in self.space.variables() if self._ids.get(var) in model)

    def settled(self, answers: Answers) -> set[int]:
        """Return every literal that holds under complete answers. Raises ValueError when the rules refuse them."""
        assumptions = []
        for question in self.space.questions.values():
            value = answers[question.name]
            for variable in question.variables():
                holds = bool(value) if question.kind == "bool" else variable.value in value
                if question.kind == "one":
                    holds = variable.value == value
                assumptions.append(self.literal(variable) if holds else -self.literal(variable))
        self.queries += 1
        if not self._solver.solve(assumptions=assumptions):
            raise ValueError(f"these answers are refused: {data_line(answers)}")
        return set(self._solver.get_model() or ())

    def possible(self, literals: Iterable[int]) -> bool:
        """Return whether literals can hold together."""
        asked = list(literals)
        if self._witnesses & self.witnessed(asked):
            return True
        self.queries += 1
        return bool(self._solver.solve(assumptions=asked))


def drawn(space: Space, dice: random.Random) -> Iterator[tuple[Var, int]]:
    """Yield for each variable under which of so many random answers it holds, whatever the rules say of them."""
    for question in space.questions.values():
        if question.kind != "one":
            yield from ((variable, dice.getrandbits(WITNESSES)) for variable in question.variables())
            continue
        chosen = dice.choices(question.values, k=WITNESSES)
        for variable in question.variables():
            yield variable, sum(1 << number for number, value in enumerate(chosen) if value == variable.value)


def data_line(answers: Answers) -> str:
    """Return answers as they are typed for `copier copy`."""

    def parts() -> Iterator[str]:
        for key, value in answers.items():
            text = f"[{', '.join(value)}]" if isinstance(value, list) else str(value).lower()
            yield f"--data '{key}={value if isinstance(value, str) else text}'"

    return " ".join(parts())

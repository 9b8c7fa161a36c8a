"""Whole texts of a file: all of them where they are few, else so many that any two variants stand in one together.

Every line of a text knows the conditions under which it is rendered. So what a line says is known for all combinations,
although not all whole texts are looked at.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from math import prod

from projection import File, Leaf
from space import Prover

# How many whole texts of one file are looked at before pairs of variants have to do.
MOST_TEXTS = 256


@dataclass(frozen=True)
class Text:
    """A whole text of a file. Segment number n goes from line `starts[n]` to `ends[n]`, and has `conditions[n]`."""

    path: str
    text: str
    literals: tuple[int, ...]
    present: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    conditions: tuple[tuple[int, ...], ...]

    def when(self, first: int, last: int | None = None) -> tuple[int, ...]:
        """Return the conditions under which these lines are rendered one after the other."""
        start = bisect_left(self.ends, first)
        end = bisect_right(self.starts, max(first, last or first))
        return tuple(dict.fromkeys([self.present, *(one for part in self.conditions[start:end] for one in part)]))


class Texts:
    """Makes the whole texts of one file."""

    def __init__(self, file: File, prover: Prover) -> None:
        self.file, self.prover = file, prover
        self.present = prover.literal(file.present)
        self.open = [number for number, piece in enumerate(file.pieces) if len(piece) > 1]
        # Whether all whole texts are looked at.
        self.all_of_them = prod(len(file.pieces[number]) for number in self.open) <= MOST_TEXTS

    def __iter__(self) -> Iterator[Text]:
        """Yield the texts, none when the file is never rendered or is no text."""
        if not self.prover.possible([self.present]):
            return
        if self.file.content is not None:
            try:
                text = self.file.content.decode()
            except UnicodeDecodeError:
                return
            lines = max(1, len(text.splitlines()))
            yield Text(self.file.path, text, (self.present,), self.present, (1,), (lines,), ((),))
            return
        for chosen in self.every() if self.all_of_them else self.in_pairs():
            yield self.text(chosen)

    def text(self, chosen: Sequence[int]) -> Text:
        """Put a text together from the variant of each open piece."""
        number_of = dict(zip(self.open, chosen, strict=True))
        leaves = [piece[number_of.get(number, 0)] for number, piece in enumerate(self.file.pieces)]
        starts, ends, conditions, line = [], [], [], 1
        for leaf in leaves:
            if leaf.text:
                starts.append(line)
                conditions.append(leaf.literals)
                line += leaf.text.count("\n")
                ends.append(line - leaf.text.endswith("\n"))
        literals = tuple(dict.fromkeys([self.present, *(one for leaf in leaves for one in leaf.literals)]))
        text = "".join(leaf.text for leaf in leaves)
        return Text(self.file.path, text, literals, self.present, tuple(starts), tuple(ends), tuple(conditions))

    def leaf(self, piece: int, variant: int) -> Leaf:
        """Return a variant of an open piece."""
        return self.file.pieces[self.open[piece]][variant]

    def every(self) -> Iterator[tuple[int, ...]]:
        """Yield the choices of variants that can be together."""

        def go_on(chosen: tuple[int, ...], literals: list[int]) -> Iterator[tuple[int, ...]]:
            if len(chosen) == len(self.open):
                yield chosen
                return
            for number, leaf in enumerate(self.file.pieces[self.open[len(chosen)]]):
                if self.prover.possible([*literals, *leaf.literals]):
                    yield from go_on((*chosen, number), [*literals, *leaf.literals])

        yield from go_on((), [self.present])

    def in_pairs(self) -> Iterator[tuple[int, ...]]:
        """Yield choices in which any two variants that can be together are so at least once.

        The first are dealt at random, which leaves few pairs; each of the others begins with a pair that is left.
        """
        sizes = [len(self.file.pieces[number]) for number in self.open]
        left = {
            ((one, here), (other, there))
            for one, other in combinations(range(len(sizes)), 2)
            for here, there in product(range(sizes[one]), range(sizes[other]))
        }
        dice = random.Random(self.file.path)  # noqa: S311
        many = True
        while many:
            chosen = self.complete({}, lambda piece, _: dice.sample(range(sizes[piece]), sizes[piece]))
            before = len(left)
            left -= set(combinations(sorted(chosen.items()), 2))
            # A row that brings little is one that a begun row does better.
            many = (before - len(left)) * 8 > before
            yield tuple(chosen[piece] for piece in range(len(sizes)))
        while left:
            pair = left.pop()
            if not self.prover.possible([self.present, *(one for place in pair for one in self.leaf(*place).literals)]):
                continue
            chosen = self.complete(dict(pair), partial(self.most_new, left))
            left -= set(combinations(sorted(chosen.items()), 2))
            yield tuple(chosen[piece] for piece in range(len(sizes)))

    def complete(self, begun: dict[int, int], order: Callable[[int, dict[int, int]], Iterable[int]]) -> dict[int, int]:
        """Choose a variant of every piece, the first in some order that can be added."""
        chosen = dict(begun)
        literals = [self.present, *(one for place in chosen.items() for one in self.leaf(*place).literals)]
        for piece in range(len(self.open)):
            if piece not in chosen:
                variant = next(
                    one
                    for one in order(piece, chosen)
                    if self.prover.possible([*literals, *self.leaf(piece, one).literals])
                )
                chosen[piece] = variant
                literals += self.leaf(piece, variant).literals
        return chosen

    def most_new(
        self, left: set[tuple[tuple[int, int], tuple[int, int]]], piece: int, chosen: dict[int, int]
    ) -> list[int]:
        """Return the variants of a piece, those that stand in the most pairs that are left before the others."""

        def new(variant: int) -> int:
            mine = (piece, variant)
            return sum(((mine, place) if mine < place else (place, mine)) in left for place in chosen.items())

        return sorted(range(len(self.file.pieces[self.open[piece]])), key=new, reverse=True)

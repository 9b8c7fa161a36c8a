"""Whole texts of a file: all of them where they are few, else so many that any two variants stand in one together.

Every line of a text knows the conditions under which it is rendered. So what a line says is known for all combinations,
although not all whole texts are looked at.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from projection import File, Leaf
from space import Prover

# How many whole texts of one file are looked at before pairs of variants have to do.
MOST_TEXTS = 256
# How many random texts in a row may bring little before texts are chosen for what is left.
PATIENCE = 4


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

        The first are dealt at random, which leaves few pairs. Each of the others begins with the variant that is in the
        most pairs that are left, and takes of each piece the one that is in the most with those it has.
        """
        sizes = [len(self.file.pieces[number]) for number in self.open]
        places = [(piece, variant) for piece, size in enumerate(sizes) for variant in range(size)]
        left = {place: {other for other in places if other[0] != place[0]} for place in places}
        dice = random.Random(self.file.path)  # noqa: S311

        def gain(row: set[tuple[int, int]]) -> int:
            return sum(len(left[place] & row) for place in row)

        def shuffled(piece: int, _: set[tuple[int, int]]) -> list[int]:
            return dice.sample(range(sizes[piece]), sizes[piece])

        def most_new(piece: int, row: set[tuple[int, int]]) -> list[int]:
            there = [left[piece, variant] for variant in range(sizes[piece])]
            return sorted(range(sizes[piece]), key=lambda one: (-len(there[one] & row), -len(there[one])))

        poor = 0
        while poor < PATIENCE:
            row = self.completed(set(), dice.sample(range(len(sizes)), len(sizes)), shuffled)
            if gain(row) * 8 < sum(map(len, left.values())):
                poor += 1
                continue
            for place in row:
                left[place] -= row
            yield tuple(variant for _, variant in sorted(row))
        for place in places:
            literals = [self.present, *self.leaf(*place).literals]
            left[place] = {one for one in left[place] if self.prover.possible([*literals, *self.leaf(*one).literals])}
        while any(left.values()):
            first = max(places, key=lambda place: len(left[place]))
            row = self.completed({first, min(left[first])}, range(len(sizes)), most_new)
            for place in row:
                left[place] -= row
            yield tuple(variant for _, variant in sorted(row))

    def completed(
        self,
        begun: set[tuple[int, int]],
        pieces: Iterable[int],
        order: Callable[[int, set[tuple[int, int]]], Iterable[int]],
    ) -> set[tuple[int, int]]:
        """Choose a variant of every piece that has none, the first in some order that can be added."""
        row = set(begun)
        literals = [self.present, *(one for place in row for one in self.leaf(*place).literals)]
        given = {piece for piece, _ in begun}
        for piece in (one for one in pieces if one not in given):
            variant = next(
                one for one in order(piece, row) if self.prover.possible([*literals, *self.leaf(piece, one).literals])
            )
            row.add((piece, variant))
            literals += self.leaf(piece, variant).literals
        return row

"""Sums over voters for each class, and the class that wins: what every way of weighing stands on."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.votes import Votes

_TABLE = 1024
"""The longest lookup table: voters are packed together while one of this length holds all their joint votes."""
_MANY = 50_000
"""Rows from which on classes are summed side by side."""

LOWEST = -(1 << 62)

Lookup = Sequence[Sequence[Sequence[float]]]
"""By voter, class and vote: what the vote adds to the class; a missing vote adds nothing."""


class Packed:
    """Votes of several voters as one code each, so that one lookup does the work of several."""

    def __init__(self, votes: Votes) -> None:
        self.classes = votes.classes
        self.base = votes.classes + 1
        filled = [pc.fill_null(code, votes.classes) for code in votes.codes]
        size = 1
        while self.base ** (size + 1) <= _TABLE:
            size += 1
        self.groups = [range(start, min(start + size, len(filled))) for start in range(0, len(filled), size)]
        self.codes = [
            reduce(lambda a, b: pc.add(pc.multiply(a, self.base), b), [filled[i] for i in g]) for g in self.groups
        ]
        self.rows = len(votes)

    def table(self, lookup: Lookup, group: range, k: int, kind: pa.DataType) -> pa.Array:
        """What the joint votes of a group add to a class."""
        sums: list[float] = [0]
        for voter in group:
            own = [*lookup[voter][k], 0]
            sums = [before + add for before in sums for add in own]
        return pa.array(sums, kind)

    def sums(self, lookup: Lookup, kind: pa.DataType, start: Sequence[float] | None = None) -> list[pa.Array]:
        """For each class, the sum over the voters in each row."""

        def of(k: int) -> pa.Array:
            total = self.sum_of(lookup, k, kind)
            return total if start is None else pc.add(total, pa.scalar(start[k], kind))

        return side_by_side(of, range(self.classes), self.rows)

    def sum_of(self, lookup: Lookup, k: int, kind: pa.DataType) -> pa.Array:
        """The sum over the voters in each row, for one class."""
        pairs = zip(self.groups, self.codes, strict=True)
        return reduce(pc.add, [self.table(lookup, group, k, kind).take(code) for group, code in pairs])


def side_by_side(work: Callable[[int], pa.Array], items: Sequence[int], rows: int) -> list[pa.Array]:
    """Some work for each item; over many rows on all cores, for Arrow lets the interpreter go."""
    if rows < _MANY:
        return [work(item) for item in items]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, items))


@dataclass(frozen=True, slots=True)
class Combined:
    """What votes came to, row for row.

    `code` is the class that won, null where nobody voted; `margin` its lead over the second as a share of what could be
    had, in [0, 1]; `agreement` the share of the votes that are for it.
    """

    code: pa.Int32Array
    margin: pa.DoubleArray
    agreement: pa.DoubleArray


def lead(
    scores: Sequence[pa.Array], open_to: Sequence[pa.BooleanArray | None]
) -> tuple[pa.Int32Array, pa.Array, pa.Array]:
    """The best class of each row (the first one of a tie), its score and the second one's.

    `open_to` leaves out the classes that are no candidate of a row; None stands for all rows.
    """
    kind = scores[0].type
    lowest = pa.scalar(LOWEST if pa.types.is_integer(kind) else -1e300, kind)
    rows = len(scores[0])
    best, second = pa.repeat(lowest, rows), pa.repeat(lowest, rows)
    code = pa.nulls(rows, pa.int32())
    for k, (own, among) in enumerate(zip(scores, open_to, strict=True)):
        score = own if among is None else pc.if_else(among, own, lowest)
        better = pc.greater(score, best)
        second = pc.if_else(better, best, pc.max_element_wise(second, score))
        best = pc.if_else(better, score, best)
        code = pc.if_else(better, pa.scalar(k, pa.int32()), code)
    return code, best, second


def candidates(votes: Votes) -> list[pa.BooleanArray | None]:
    """For each class, the rows that it may win: any label, but of open values only those that somebody gave."""
    if votes.labels is None:
        return [pc.fill_null(pc.equal(code, k), False) for k, code in enumerate(votes.codes)]
    return [None] * len(votes.labels) + [pc.is_valid(votes.nothing)]


def anybody(votes: Votes) -> pa.BooleanArray:
    """The rows in which somebody voted."""
    return reduce(pc.or_, [pc.is_valid(code) for code in votes.codes])


def agreement(votes: Votes, code: pa.Int32Array) -> pa.DoubleArray:
    """The share of the votes given that are for a class."""
    same = reduce(pc.add, [pc.cast(pc.fill_null(pc.equal(own, code), False), pa.int32()) for own in votes.codes])
    given = reduce(pc.add, [pc.cast(pc.is_valid(own), pa.int32()) for own in votes.codes])
    share = pc.divide(pc.cast(same, pa.float64()), pc.cast(given, pa.float64()))
    return pc.if_else(pc.is_valid(code), share, None)

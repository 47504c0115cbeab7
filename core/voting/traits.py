"""What open values are like beside the others of their row: by this a stack tells which of them is right."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

NOTHING = "\0"
"""Stands for the answer 'there is no value' while votes are coded."""


class Traits(NamedTuple):
    """Of one voter's values: whole numbers, null where it did not vote."""

    length: pa.Int32Array
    """Characters."""
    alike: pa.Int32Array
    """How much it shares its words with the votes of its row, in thousandths."""
    nested: pa.Int32Array
    """1 where it stands within another value of its row, 2 where another stands within it, 3 for both."""


def traits_of(said: Sequence[pa.StringArray]) -> tuple[Traits, ...]:
    """The traits of each voter's values, row for row; rows of the same values are looked at once."""
    known: dict[tuple[str | None, ...], list[tuple[int, int, int] | None]] = {}
    found = []
    for row in zip(*(column.to_pylist() for column in said), strict=True):
        if row not in known:
            known[row] = list(_row(row))
        found.append(known[row])
    columns: list[Traits] = []
    for own in zip(*found, strict=True) if found else [()] * len(said):
        parts = [[None if one is None else one[k] for one in own] for k in range(3)]
        columns.append(Traits(*(pa.array(part, pa.int32()) for part in parts)))
    return tuple(columns)


def no_traits(rows: int) -> Traits:
    """The traits of a voter of whom they are not needed."""
    return Traits(*[pa.nulls(rows, pa.int32())] * 3)


def _row(row: Sequence[str | None]) -> Iterator[tuple[int, int, int] | None]:
    given = [text for text in row if text is not None]
    words = {text: frozenset(text.split()) for text in given}
    for text in row:
        if text is None:
            yield None
            continue
        alike = sum(_shared(words[text], words[other]) for other in given) / len(given)
        others = [other for other in given if other != text and NOTHING not in (other, text)]
        nested = any(text in other for other in others) + 2 * any(other in text for other in others)
        yield 0 if text == NOTHING else len(text), round(1000 * alike), nested


def _shared(one: frozenset[str], other: frozenset[str]) -> float:
    """The F1 of two sets of words."""
    total = len(one) + len(other)
    return 2 * len(one & other) / total if total else 1.0

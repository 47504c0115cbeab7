"""Accuracy and F1 of answers, with bootstrap intervals."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

_SEED = 1
_DRAWS = 1000
_ROWS_DRAWN = 20_000_000
_FEWEST = 100
_CLASSES = 100
"""Distinct right answers above which they are taken for open values: a mean over them says nothing."""


class Outcome(NamedTuple):
    """One row: what was said and what is right, None for 'no value'."""

    said: str | None
    right: str | None
    is_right: bool


@dataclass(frozen=True, slots=True)
class Measured:
    """Scores in [0, 1]. `f1` is micro F1: a wrong value counts as false positive and as false negative, a right 'no value'
    as neither. `low` and `high` bound it in 95 % of bootstrap samples. `macro_f1` is the mean over the right answers' classes.
    """

    accuracy: float
    f1: float
    low: float
    high: float
    macro_f1: float | None


Gain = tuple[float, float, float]
_Counts = tuple[int, int, int]


def measured(
    outcomes: Mapping[str, Sequence[Outcome]], ours: str, *, closed: bool | None = None
) -> dict[str, tuple[Measured, Gain | None]]:
    """The scores of each list of outcomes over the same rows; for others than ours, how far ours is above, row against row."""
    samples = {who: _samples(own) for who, own in outcomes.items()}
    found: dict[str, tuple[Measured, Gain | None]] = {}
    for who, own in outcomes.items():
        f1 = micro_f1(_counted(own))
        low, high = _bounds(samples[who])
        right = sum(one.is_right for one in own) / len(own)
        gain = None
        if who != ours:
            apart = [a - b for a, b in zip(samples[ours], samples[who], strict=True)]
            gain = (micro_f1(_counted(outcomes[ours])) - f1, *_bounds(apart))
        found[who] = (Measured(right, f1, low, high, macro_f1(own, closed)), gain)
    return found


def micro_f1(counts: _Counts) -> float:
    """From how many values were right, were said, and should have been said.

    >>> micro_f1((3, 4, 5))
    0.6666666666666666
    """
    true, said, wanted = counts
    return 2 * true / (said + wanted) if said + wanted else 1.0


def macro_f1(outcomes: Sequence[Outcome], closed: bool | None = None) -> float | None:
    """The mean of the F1 of each class that is right somewhere or was said; None for open values.

    Where nobody says whether there are classes, few different right answers are taken for such.
    """
    right = Counter(one.right for one in outcomes if one.right is not None)
    few = len(right) <= _CLASSES and len(right) * 2 <= len(outcomes)
    if not right or not (few if closed is None else closed):
        return None
    said = Counter(one.said for one in outcomes if one.said is not None)
    true = Counter(one.right for one in outcomes if one.is_right and one.right is not None)
    classes = right.keys() | said.keys()
    return sum(2 * true[own] / (right[own] + said[own]) for own in classes) / len(classes)


def _counted(outcomes: Sequence[Outcome]) -> _Counts:
    return (
        sum(one.is_right and one.said is not None for one in outcomes),
        sum(one.said is not None for one in outcomes),
        sum(one.right is not None for one in outcomes),
    )


def _samples(outcomes: Sequence[Outcome]) -> list[float]:
    """The F1 of samples of as many rows, drawn with replacement; the same rows for every list of one length."""
    rows = len(outcomes)
    columns = [
        pa.array([one.is_right and one.said is not None for one in outcomes]),
        pa.array([one.said is not None for one in outcomes]),
        pa.array([one.right is not None for one in outcomes]),
    ]
    numbers = [pc.cast(column, pa.int64()) for column in columns]
    draw = random.Random(_SEED)  # noqa: S311 (the same samples every time)
    found = []
    for _ in range(max(_FEWEST, min(_DRAWS, _ROWS_DRAWN // max(rows, 1)))):
        places = pa.array(draw.choices(range(rows), k=rows), pa.int32())
        true, said, wanted = (pc.sum(column.take(places)).as_py() for column in numbers)
        found.append(micro_f1((true, said, wanted)))
    return found


def _bounds(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    last = len(ordered) - 1
    return ordered[round(0.025 * last)], ordered[round(0.975 * last)]

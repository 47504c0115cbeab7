"""A confusion matrix a voter: learned by expectation maximisation without labels, or counted on gold rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.score import Combined, Lookup, Packed, agreement, anybody, candidates, lead, side_by_side
from gdo.voting.votes import Votes
from gdo.voting.weighted import accuracies

ROUNDS = 100
TOLERANCE = 1e-5
_TINY = 1e-10
_NEVER = -1e6
"""The logarithm of a prior of 0: a class that nobody gives takes no share of any row."""
Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Confusions:
    """How often each class is right, and what each voter then says (`matrices[voter][right][said]`)."""

    prior: tuple[float, ...]
    matrices: tuple[Matrix, ...]
    rounds: int = 0
    kind: Literal["confusions"] = "confusions"


def logs(known: Confusions) -> list[list[list[float]]]:
    """The logarithms of the matrices."""
    return [[[math.log(max(p, _TINY)) for p in row] for row in matrix] for matrix in known.matrices]


def prior_logs(known: Confusions) -> list[float]:
    """The logarithms of the prior; of a class that is never right, next to nothing."""
    return [math.log(p) if p > 0 else _NEVER for p in known.prior]


def shares(votes: Votes, lookup: Lookup, start: Sequence[float], packed: Packed | None = None) -> list[pa.DoubleArray]:
    """For each class the softmax of a start and what each vote adds."""
    packed = packed or Packed(votes)
    sums = packed.sums(lookup, pa.float64(), start)
    top = pc.max_element_wise(*sums)
    raised = side_by_side(lambda k: pc.exp(pc.subtract(sums[k], top)), range(votes.classes), len(votes))
    total = reduce(pc.add, raised)
    return side_by_side(lambda k: pc.divide(raised[k], total), range(votes.classes), len(votes))


def posterior(votes: Votes, known: Confusions, packed: Packed | None = None) -> list[pa.DoubleArray]:
    """For each class the probability that it is right, row for row."""
    return shares(votes, logs(known), prior_logs(known), packed)


def decide_by(votes: Votes, known: Confusions) -> Combined:
    """The most probable class of each row; the margin is its lead in probability."""
    code, best, second = lead(posterior(votes, known), candidates(votes))
    code = pc.if_else(anybody(votes), code, None)
    margin = pc.subtract(best, pc.max_element_wise(second, 0.0))
    return Combined(code, pc.if_else(pc.is_valid(code), margin, None), agreement(votes, code))


def dawid_skene(votes: Votes, *, rounds: int = ROUNDS) -> Confusions:
    """Confusion matrices by expectation maximisation, from the shares of the plain vote on.

    Source: Dawid and Skene, Maximum likelihood estimation of observer error-rates using the EM algorithm (1979).
    """
    packed = Packed(votes)
    belief = _shares(votes, packed)
    before: list[float] = []
    known = Confusions((), ())
    for done in range(1, rounds + 1):
        known = _maximise(votes, packed, belief, done)
        belief = posterior(votes, known, packed)
        flat = [*known.prior, *(p for matrix in known.matrices for row in matrix for p in row)]
        if before and max(abs(a - b) for a, b in zip(flat, before, strict=True)) < TOLERANCE:
            break
        before = flat
    return known


def _shares(votes: Votes, packed: Packed) -> list[pa.DoubleArray]:
    """The share of the votes that each class has: what it starts from."""
    ones = [[[float(a == k) for a in range(votes.classes)] for k in range(votes.classes)] for _ in votes.voters]
    counts = packed.sums(ones, pa.float64())
    least = pc.max_element_wise(reduce(pc.add, counts), 1.0)
    return [pc.divide(count, least) for count in counts]


def _maximise(votes: Votes, packed: Packed, belief: Sequence[pa.DoubleArray], done: int) -> Confusions:
    weight = pc.cast(votes.count, pa.float64())
    weighted = [pc.multiply(share, weight) for share in belief]
    totals = [pc.sum(column).as_py() or 0.0 for column in weighted]
    whole = sum(totals) or 1.0
    matrices: list[Matrix] = []
    for group, code in zip(packed.groups, packed.codes, strict=True):
        matrices += _counted(packed, group, code, weighted)
    return Confusions(tuple(total / whole for total in totals), tuple(matrices), done)


def _counted(packed: Packed, group: range, code: pa.Int32Array, weighted: Sequence[pa.DoubleArray]) -> list[Matrix]:
    """The matrices of the voters of a group, from the sums of belief over their joint votes."""
    classes = packed.classes
    table = pa.table([code, *weighted], names=["code", *map(str, range(classes))])
    found = table.group_by("code").aggregate([(str(k), "sum") for k in range(classes)])
    joint = found.column("code").to_pylist()
    sums = [found.column(f"{k}_sum").to_pylist() for k in range(classes)]
    matrices = []
    for place in range(len(group)):
        step = packed.base ** (len(group) - 1 - place)
        counts = [[0.0] * classes for _ in range(classes)]
        for at, one in enumerate(joint):
            said = one // step % packed.base
            if said < classes:
                for k in range(classes):
                    counts[k][said] += sums[k][at]
        matrices.append(tuple(_normal(row) for row in counts))
    return matrices


def _normal(row: Sequence[float]) -> tuple[float, ...]:
    total = sum(row)
    return tuple(value / total for value in row) if total > 0 else tuple(1.0 / len(row) for _ in row)


def confusion(votes: Votes, *, strength: float = 8.0) -> Confusions:
    """Confusion matrices counted on the rows whose right answer is known.

    Each row of a matrix is drawn towards what the voter's overall accuracy alone would say, as if that had been seen
    `strength` times; the prior towards equal shares.
    """
    known = votes.filter(pc.greater_equal(pc.fill_null(votes.gold, -1), 0))
    classes = votes.classes
    right = [0.0] * classes
    for value, count in zip(known.gold.to_pylist(), known.count.to_pylist(), strict=True):
        right[value] += count
    total = sum(right)
    given = {code for own in known.codes for code in pc.unique(own).to_pylist()}
    used = [k for k in range(classes) if k < len(votes.labels or ()) or right[k] or k in given]
    prior = tuple((right[k] + 1.0) / (total + len(used)) if k in used else 0.0 for k in range(classes))
    matrices = []
    for own, a in zip(known.codes, accuracies(known, known.gold), strict=True):
        counts = [[0.0] * classes for _ in range(classes)]
        for truth, said, count in zip(known.gold.to_pylist(), own.to_pylist(), known.count.to_pylist(), strict=True):
            if said is not None:
                counts[truth][said] += count
        sure = min(max(a if a is not None else 1.0 / len(used), 0.05), 0.98)
        rest = (1.0 - sure) / max(len(used) - 1, 1)
        for k in range(classes):
            for said in used:
                counts[k][said] += strength * (sure if said == k else rest)
        matrices.append(tuple(_normal(row) for row in counts))
    return Confusions(prior, tuple(matrices), 1)

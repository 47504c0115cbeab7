"""One weight a voter: the plain majority, iterative weighted majority voting, and log-odds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.score import LOWEST, Combined, Packed, agreement, anybody, candidates, lead
from gdo.voting.votes import Votes

ROUNDS = 50
EPS = 1e-3
"""Accuracies are kept so far from 0 and 1 before their logarithm is taken."""
_UNIT, _SHIFT, _TIE = 1 << 26, 1 << 26, 1 << 16


@dataclass(frozen=True, slots=True)
class Learned:
    """Weights, the accuracies that they come from, and how many rounds it took."""

    weights: tuple[float, ...]
    accuracies: tuple[float | None, ...]
    rounds: int


def decide(votes: Votes, weights: Sequence[float]) -> Combined:
    """The class of the greatest weight in each row; of a tie that of the heaviest voter, then the first class."""
    packed, whole = Packed(votes), _whole(weights)
    code, best, second = _winners(votes, whole, packed)
    second = pc.if_else(pc.less_equal(second, LOWEST), 0, second)
    gap = pc.cast(pc.subtract(pc.divide(best, _SHIFT), pc.divide(second, _SHIFT)), pa.float64())
    sizes = [[[abs(w) // _SHIFT] * votes.classes] for w in whole]
    total = pc.cast(packed.sum_of(sizes, 0, pa.int64()), pa.float64())
    margin = pc.if_else(
        pc.greater(total, 0.0), pc.min_element_wise(pc.divide(gap, pc.max_element_wise(total, 1.0)), 1.0), 0.0
    )
    return Combined(code, pc.if_else(pc.is_valid(code), margin, None), agreement(votes, code))


def _whole(weights: Sequence[float]) -> list[int]:
    """Weights as whole numbers, so that a tie of sums is a tie; what breaks it stands below the last digit."""
    most = max((abs(weight) for weight in weights), default=0.0) or 1.0
    ranks = {weight: rank for rank, weight in enumerate(sorted(set(weights), reverse=True))}
    return [
        round(weight / most * _UNIT) * _SHIFT + _TIE // (len(weights) + 1) ** min(ranks[weight], 16)
        for weight in weights
    ]


def _winners(votes: Votes, whole: Sequence[int], packed: Packed) -> tuple[pa.Int32Array, pa.Array, pa.Array]:
    """The class that wins each row, null where nobody voted; its weight and that of the second."""
    lookup = [[[w if a == k else 0 for a in range(votes.classes)] for k in range(votes.classes)] for w in whole]
    code, best, second = lead(packed.sums(lookup, pa.int64()), candidates(votes))
    return pc.if_else(anybody(votes), code, None), best, second


def accuracies(votes: Votes, code: pa.Int32Array) -> list[float | None]:
    """How often each voter said what is taken for right, over the items that it voted on; None for none."""
    found: list[float | None] = []
    for own in votes.codes:
        both = pc.and_(pc.is_valid(own), pc.is_valid(code))
        given = pc.sum(pc.if_else(both, votes.count, 0)).as_py() or 0
        same = pc.sum(pc.if_else(pc.fill_null(pc.equal(own, code), False), votes.count, 0)).as_py() or 0
        found.append(same / given if given else None)
    return found


def majority(votes: Votes) -> Learned:
    """The same weight for all; accuracies are agreements with the majority."""
    weights = [1.0] * len(votes.voters)
    return Learned(tuple(weights), tuple(accuracies(votes, _winners(votes, _whole(weights), Packed(votes))[0])), 1)


def iwmv(votes: Votes, *, clip_negative: bool = False, rounds: int = ROUNDS) -> Learned:
    """Iterative weighted majority voting: weights `L a - 1` from the agreement with the weighted vote, until it stands.

    Of open values there is no L; a voter is taken to choose among as many answers as there are voters, and one more.

    Source: LLM-Ensemble (arXiv 2403.00863), after Li and Yu (arXiv 1411.4086).
    """
    packed = Packed(votes)
    weights = [1.0] * len(votes.voters)
    before: pa.Int32Array | None = None
    found: list[float | None] = [None] * len(weights)
    for done in range(1, rounds + 1):
        code, _, _ = _winners(votes, _whole(weights), packed)
        if before is not None and code.equals(before):
            return Learned(tuple(weights), tuple(found), done)
        found = accuracies(votes, code)
        weights = [0.0 if a is None else votes.answers * a - 1.0 for a in found]
        if clip_negative:
            weights = [max(0.0, weight) for weight in weights]
        if not any(weights):
            weights = [float(a is not None) for a in found]  # all are at chance: none is better than another
        before = code
    return Learned(tuple(weights), tuple(found), rounds)


def log_odds(votes: Votes, *, clip_negative: bool = False, rounds: int = ROUNDS) -> Learned:
    """The weights that maximise the posterior under one accuracy a voter: `log((L - 1) a / (1 - a))`.

    The accuracies are those of `iwmv`. With K labels the odds are against L - 1 wrong answers, not one.
    """
    base = iwmv(votes, clip_negative=clip_negative, rounds=rounds)
    weights = []
    for a in base.accuracies:
        clipped = min(max(a or 0.0, EPS), 1.0 - EPS)
        weight = math.log(max(votes.answers - 1, 1) * clipped / (1.0 - clipped))
        weights.append(0.0 if a is None else max(0.0, weight) if clip_negative else weight)
    return Learned(tuple(weights), base.accuracies, base.rounds)

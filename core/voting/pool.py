"""A logarithmic opinion pool: confusion matrices, each voter's taken as far as it helps beside the others.

Errors of language models go together, so that what two of them say is worth less than twice what one says. Each voter's
evidence is raised to an exponent that is learned on the gold rows; the exponents are drawn towards each other.

Source: opinion pools after Heskes (Selecting weighting factors in logarithmic opinion pools, 1998); the exponents by a
conditional logit over the labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.dawid_skene import Confusions, confusion, logs, prior_logs, shares
from gdo.voting.folds import FOLDS, fold_of
from gdo.voting.newton import choice
from gdo.voting.score import Combined, Lookup, agreement, anybody, candidates, lead
from gdo.voting.votes import Votes

_START = 0.5
_TOGETHER, _PRIOR, _BONUS = 60.0, 0.6, 10.0
"""How much exponents are drawn to each other, the prior's to theirs, and what a label gets for being said to 0."""
_LEAST = -20.0
"""The logarithm of the prior of a class that only the rows held back have."""


@dataclass(frozen=True, slots=True)
class Pool:
    """For each voter, the exponent of its evidence and what its bare word adds to a label; the prior's exponent."""

    exponents: tuple[float, ...]
    bonus: tuple[float, ...]
    prior: float
    confusions: Confusions
    kind: Literal["pool"] = "pool"


def decide_pooled(votes: Votes, known: Pool) -> Combined:
    """The most probable class of each row; the margin is its lead in probability."""
    lookup = _lookup(known)
    start = [known.prior * p for p in prior_logs(known.confusions)]
    code, best, second = lead(shares(votes, lookup, start), candidates(votes))
    code = pc.if_else(anybody(votes), code, None)
    margin = pc.subtract(best, pc.max_element_wise(second, 0.0))
    return Combined(code, pc.if_else(pc.is_valid(code), margin, None), agreement(votes, code))


def _lookup(known: Pool) -> Lookup:
    tables = logs(known.confusions)
    return [
        [[e * value + (bonus if said == k else 0.0) for said, value in enumerate(row)] for k, row in enumerate(table)]
        for table, e, bonus in zip(tables, known.exponents, known.bonus, strict=True)
    ]


def fit_pool(gold: Votes) -> Pool:
    """Learn from rows whose right answer is known, one an item (`Votes.with_gold`).

    Exponents are learned from what matrices of other rows say of each row: its own answer must not have helped.
    """
    known = gold.filter(pc.greater_equal(gold.gold, 0))
    voters, classes = len(known.voters), known.classes
    fold = fold_of(len(known))
    parts = []
    right = []
    for k in range(min(FOLDS, len(known))):
        mine = pc.equal(fold, k)
        held = known.filter(mine)
        parts.append(_terms(held, confusion(known.filter(pc.invert(mine)))))
        right.append([pc.cast(pc.equal(held.gold, c), pa.float64()) for c in range(classes)])
    start = [_START] * (voters + 1) + [0.0] * voters
    beta = start
    if len(known) > 1:
        features = [_by_class([part[f] for part in parts]) for f in range(len(start))]
        beta = choice(features, _by_class(right), classes, start, _penalty(voters))
    return Pool(tuple(beta[:voters]), tuple(beta[voters + 1 :]), beta[voters], confusion(known))


def _by_class(parts: Sequence[Sequence[pa.DoubleArray]]) -> pa.DoubleArray:
    """All rows of the first class, then all of the second: parts hold a column a class."""
    return pa.concat_arrays([column for columns in zip(*parts, strict=True) for column in columns])


def _terms(votes: Votes, known: Confusions) -> list[list[pa.DoubleArray]]:
    """By feature and class a column: each voter's evidence, the prior, each voter's bare word."""
    found: list[list[pa.DoubleArray]] = []
    for code, table in zip(votes.codes, logs(known), strict=True):
        found.append([pc.fill_null(pa.array(row, pa.float64()).take(code), 0.0) for row in table])
    found.append([pa.repeat(pa.scalar(max(p, _LEAST)), len(votes)) for p in prior_logs(known)])
    for code in votes.codes:
        said = [pc.fill_null(pc.equal(code, k), False) for k in range(votes.classes)]
        found.append([pc.cast(column, pa.float64()) for column in said])
    return found


def _penalty(voters: int) -> list[list[float]]:
    """Exponents apart from their mean, the prior's apart from that mean, and the bonus apart from 0, squared."""
    size = 2 * voters + 1
    found = [[0.0] * size for _ in range(size)]
    for i in range(voters):
        for j in range(voters):
            found[i][j] = _TOGETHER * (float(i == j) - 1 / voters) + _PRIOR / voters**2
        found[i][voters] = found[voters][i] = -_PRIOR / voters
        found[voters + 1 + i][voters + 1 + i] = _BONUS
    found[voters][voters] = _PRIOR
    return found

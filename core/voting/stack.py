"""A learned combination: which of a row's candidates is right, by who gave it and what it is like."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.dawid_skene import Confusions, confusion, posterior
from gdo.voting.logistic import linear, logistic, sigmoid
from gdo.voting.score import Combined, agreement, anybody, lead
from gdo.voting.votes import Votes

RIDGE = 1.0
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Stack:
    """Coefficients: one a voter, then what `_common` and the attribute add; `confusions` where labels are closed."""

    beta: tuple[float, ...]
    attributes: tuple[str, ...]
    attribute: str
    confusions: Confusions | None = None


def fit_stack(votes: Mapping[str, Votes]) -> dict[str, Stack]:
    """One logistic regression over the candidates of all attributes' gold rows (`Votes.with_gold`)."""
    names = tuple(votes)
    columns: list[list[pa.DoubleArray]] = []
    right: list[pa.DoubleArray] = []
    for name, known in votes.items():
        for k, (there, features) in enumerate(_features(known, _crossed(known), names, name)):
            columns.append([feature.filter(there) for feature in features])
            right.append(pc.cast(pc.equal(known.gold, k).filter(there), pa.float64()))
    joined = [pa.concat_arrays(parts) for parts in zip(*columns, strict=True)]
    beta = tuple(logistic(joined, pa.concat_arrays(right), RIDGE))
    return {
        name: Stack(beta, names, name, confusion(known) if known.labels is not None else None)
        for name, known in votes.items()
    }


def decide_stacked(votes: Votes, known: Stack) -> Combined:
    """The candidate that is most probably right; the margin is its lead in probability."""
    odds = None if known.confusions is None else _odds(posterior(votes, known.confusions))
    chances, among = [], []
    for there, features in _features(votes, odds, known.attributes, known.attribute):
        chances.append(sigmoid(pc.add(linear(features, known.beta[:-1]), known.beta[-1])))
        among.append(there)
    code, best, second = lead(chances, among)
    code = pc.if_else(anybody(votes), code, None)
    margin = pc.subtract(best, pc.max_element_wise(second, 0.0))
    return Combined(code, pc.if_else(pc.is_valid(code), margin, None), agreement(votes, code))


def _features(
    votes: Votes, odds: Sequence[pa.DoubleArray] | None, names: Sequence[str], name: str
) -> list[tuple[pa.BooleanArray, list[pa.DoubleArray]]]:
    """For each class, the rows in which it is a candidate, and its features in every row."""
    given = reduce(pc.add, [_number(pc.is_valid(code)) for code in votes.codes])
    rows = len(votes)
    found = []
    for k in range(votes.classes):
        said = [_number(pc.fill_null(pc.equal(code, k), False)) for code in votes.codes]
        count = reduce(pc.add, said)
        share = pc.divide(count, pc.max_element_wise(given, 1.0))
        nothing = _number(pc.fill_null(pc.equal(votes.nothing, k), False))
        features = [*said, share, pc.multiply(share, share), nothing, pc.multiply(nothing, share)]
        features += [nothing if name == own else pa.repeat(0.0, rows) for own in names]
        if votes.labels is None:
            length = pc.fill_null(pc.cast(votes.lengths[k], pa.float64()), 0.0)
            features.append(pc.multiply(pc.log1p(length), 0.3))
        else:
            assert odds is not None  # noqa: S101 (closed labels have matrices)
            features.append(odds[k])
        found.append((pc.greater(count, 0.0), features))
    return found


def _number(mask: pa.BooleanArray) -> pa.DoubleArray:
    return pc.cast(mask, pa.float64())


def _odds(shares: Sequence[pa.DoubleArray]) -> list[pa.DoubleArray]:
    """Probabilities as log-odds, drawn in."""
    bounded = [pc.min_element_wise(pc.max_element_wise(share, 1e-3), 1.0 - 1e-3) for share in shares]
    scale = 1.0 / math.log(1e3)
    return [pc.multiply(pc.subtract(pc.ln(p), pc.ln(pc.subtract(1.0, p))), scale) for p in bounded]


def _crossed(votes: Votes) -> list[pa.DoubleArray] | None:
    """What matrices that were counted on other rows say of each row: its own answer must not have helped."""
    if votes.labels is None:
        return None
    fold = fold_of(len(votes))
    parts: list[list[pa.DoubleArray]] = []
    places: list[pa.Array] = []
    for k in range(min(FOLDS, max(len(votes), 1))):
        mine = pc.equal(fold, k)
        own = votes.filter(mine)
        places.append(pc.indices_nonzero(mine))
        parts.append(_odds(posterior(own, confusion(votes.filter(pc.invert(mine))))))
    order = pc.sort_indices(pa.concat_arrays(places))
    return [pa.concat_arrays(columns).take(order) for columns in zip(*parts, strict=True)]


def fold_of(rows: int, folds: int = FOLDS) -> pa.Int64Array:
    """Which part of a cross-validation each row is in: in turn, so that rows that are alike are spread."""
    return pa.array([row % folds for row in range(rows)], pa.int64())

"""A learned combination of open values: which of a row's candidates is right, by who gave it and what it is like."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.folds import FOLDS, fold_of
from gdo.voting.newton import linear, logistic, sigmoid
from gdo.voting.score import Combined, agreement, anybody, lead
from gdo.voting.traits import Traits
from gdo.voting.votes import Votes, joined

RIDGE = 1.0
_SURE = 0.98
_OVERALL = 6.0
"""How many rows of an attribute weigh as much as what a voter is worth overall."""
_SCALE = 0.3
"""Brings logarithms to the size of the other features, so that one ridge fits all."""

Trust = tuple[tuple[float, float], ...]
"""By voter the log-odds that its value is right, and that its 'no value' is."""


@dataclass(frozen=True, slots=True)
class Stack:
    """Coefficients of what `_features` gives, the intercept last; and what voters are worth on the attribute."""

    beta: tuple[float, ...]
    trust: Trust
    kind: Literal["stack"] = "stack"


def fit_stack(votes: Mapping[str, Votes]) -> dict[str, Stack]:
    """One logistic regression over the candidates of all attributes' gold rows (`Votes.with_gold`).

    What a voter is worth on an attribute is counted on other rows than those that it is a feature of.
    """
    whole = joined(list(votes.values()))
    attribute = pa.concat_arrays([pa.repeat(pa.scalar(i), len(own)) for i, own in enumerate(votes.values())])
    fold = pa.concat_arrays([fold_of(len(own)) for own in votes.values()])
    columns: list[list[pa.DoubleArray]] = []
    right: list[pa.DoubleArray] = []
    for part in range(FOLDS):
        mine = pc.equal(fold, part)
        others = pc.invert(mine)
        trusts = _trusts(whole.filter(others), attribute.filter(others), len(votes))
        held = whole.filter(mine)
        for k, (there, features) in enumerate(_features(held, _spread(trusts, attribute.filter(mine)))):
            columns.append([feature.filter(there) for feature in features])
            right.append(pc.cast(pc.equal(held.gold, k).filter(there), pa.float64()))
    beta = tuple(
        logistic([pa.concat_arrays(parts) for parts in zip(*columns, strict=True)], pa.concat_arrays(right), RIDGE)
    )
    return {name: Stack(beta, own) for name, own in zip(votes, _trusts(whole, attribute, len(votes)), strict=True)}


def _spread(trusts: Sequence[Trust], attribute: pa.Int64Array) -> list[tuple[pa.DoubleArray, pa.DoubleArray]]:
    """By voter, what its value and its 'no value' are worth in each row."""
    return [
        (pa.array([v for v, _ in own]).take(attribute), pa.array([e for _, e in own]).take(attribute))
        for own in zip(*trusts, strict=True)
    ]


def decide_stacked(votes: Votes, known: Stack) -> Combined:
    """The candidate that is most probably right; the margin is its lead in probability."""
    chances, among = [], []
    first = pa.repeat(pa.scalar(0), len(votes))
    for there, features in _features(votes, _spread([known.trust], first)):
        chances.append(sigmoid(pc.add(linear(features, known.beta[:-1]), known.beta[-1])))
        among.append(there)
    code, best, second = lead(chances, among)
    code = pc.if_else(anybody(votes), code, None)
    margin = pc.subtract(best, pc.max_element_wise(second, 0.0))
    return Combined(code, pc.if_else(pc.is_valid(code), margin, None), agreement(votes, code))


def _features(
    votes: Votes, trust: Sequence[tuple[pa.DoubleArray, pa.DoubleArray]]
) -> list[tuple[pa.BooleanArray, list[pa.DoubleArray]]]:
    """For each class, the rows in which it is a candidate, and its features in every row."""
    given = reduce(pc.add, [_number(pc.is_valid(code)) for code in votes.codes])
    traits = votes.all_traits()
    found = []
    for k in range(votes.classes):
        said = [_number(pc.fill_null(pc.equal(code, k), False)) for code in votes.codes]
        count = reduce(pc.add, said)
        share = pc.divide(count, pc.max_element_wise(given, 1.0))
        nothing = _number(pc.fill_null(pc.equal(votes.nothing, k), False))
        features = [*said, share, pc.multiply(share, share), nothing, pc.multiply(nothing, share)]
        features += [pc.multiply(one, nothing) for one in said]
        features += [_evidence(said, nothing, trust), *_shown(traits[k])]
        found.append((pc.greater(count, 0.0), features))
    return found


def _evidence(
    said: Sequence[pa.DoubleArray], nothing: pa.DoubleArray, trust: Sequence[tuple[pa.DoubleArray, pa.DoubleArray]]
) -> pa.DoubleArray:
    """What those who gave the candidate are worth on its attribute, summed."""
    empty = pc.greater(nothing, 0.0)
    worth = [pc.multiply(one, pc.if_else(empty, e, v)) for one, (v, e) in zip(said, trust, strict=True)]
    return pc.multiply(reduce(pc.add, worth), _SCALE)


def _shown(traits: Traits) -> list[pa.DoubleArray]:
    length, alike, nested = (pc.fill_null(pc.cast(one, pa.float64()), 0.0) for one in traits)
    within = pc.or_(pc.equal(nested, 1.0), pc.equal(nested, 3.0))
    around = pc.greater_equal(nested, 2.0)
    return [
        pc.multiply(pc.log1p(length), _SCALE), pc.divide(alike, 1000.0), _number(within), _number(around)
    ]  # fmt: skip


def _number(mask: pa.BooleanArray) -> pa.DoubleArray:
    return pc.cast(mask, pa.float64())


def _trusts(votes: Votes, attribute: pa.Int64Array, attributes: int) -> list[Trust]:
    """By attribute, what each voter is worth there, drawn towards what it is worth on all of them."""
    columns: dict[str, pa.Array] = {}
    for voter, code in enumerate(votes.codes):
        right = pc.fill_null(pc.equal(code, votes.gold), False)
        empty = pc.fill_null(pc.equal(code, votes.nothing), False)
        for kind, mask in enumerate((pc.and_not(pc.is_valid(code), empty), empty)):
            columns |= {f"{voter} {kind} right": pc.and_(mask, right), f"{voter} {kind} given": mask}
    table = pa.table({name: pc.cast(column, pa.int64()) for name, column in columns.items()} | {"": attribute})
    sums = table.group_by("").aggregate([(name, "sum") for name in columns])
    counts = {row[""]: row for row in sums.to_pylist()}

    def count(place: int, voter: int, kind: int, what: str) -> int:
        return int(counts[place][f"{voter} {kind} {what}_sum"]) if place in counts else 0

    def trust(place: int, voter: int, kind: int) -> float:
        overall = [sum(count(at, voter, kind, what) for at in range(attributes)) for what in ("right", "given")]
        chance = (overall[0] + 1.0) / (overall[1] + 2.0)
        return _odds(count(place, voter, kind, "right"), count(place, voter, kind, "given"), chance)

    voters = range(len(votes.voters))
    return [tuple((trust(at, voter, 0), trust(at, voter, 1)) for voter in voters) for at in range(attributes)]


def _odds(right: int, given: int, overall: float) -> float:
    chance = (right + _OVERALL * overall) / (given + _OVERALL)
    chance = min(max(chance, 1 - _SURE), _SURE)
    return math.log(chance / (1 - chance))

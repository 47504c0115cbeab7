"""Which way to decide does best: cross-validated on the rows whose right answer is known."""

import math
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.folds import FOLDS, fold_of
from gdo.voting.rules import ByAttribute, Outcome, best_single, f1, learn, outcomes
from gdo.voting.votes import Votes

FEWEST = 10
"""Gold rows below which nothing is compared."""
_NOISE = 0.5
"""Standard errors by which a combination must lead the best single voter."""
_MANY = 40
"""Voters above which no exponent or coefficient is learned for each."""
WITHOUT = "iwmv"
"""What weighs where there is nothing to compare by: the paper's way."""


def choose(votes: ByAttribute, gold: ByAttribute, *, clip_negative: bool = False) -> tuple[str, str]:
    """The method that does best, and why, in words; "single" is the best single voter.

    What needs right answers, the choice of the single voter too, is learned on four fifths of the gold rows and measured
    on the rest, in turn. A combination that does not lead the single voter by more than noise is not taken; nor is
    another one in the place of the stack, which is the safest.
    """
    if len(next(iter(votes.values())).voters) == 1:
        return "majority", "there is only one voter"
    rows = sum(len(own) for own in gold.values())
    if rows < FEWEST:
        return WITHOUT, f"{rows} gold rows are too few to compare ways of weighing"
    found = {method: _measured(method, votes, gold, clip_negative) for method in _methods(votes)}
    scores = {method: f1(own) for method, own in found.items()}
    first, *others = [method for method in found if method != "single"]
    best = first
    for method in sorted(others, key=lambda method: -scores[method]):
        if _leads(found[method], found[best], scores[best]):
            best = method
    alone = f"choosing one voter, {best_single(gold)} on all of them, {scores['single']:.3f}"
    if _leads(found[best], found["single"], scores["single"]):
        return best, f"cross-validated F1 {scores[best]:.3f} on {rows} gold rows; {alone}"
    return "single", f"{alone} on {rows} gold rows; {best} with {scores[best]:.3f} leads by no more than noise"


def _methods(votes: ByAttribute) -> list[str]:
    """What is compared: the single voter, then combinations, the one that stands unless another leads it first."""
    first = next(iter(votes.values()))
    learned = ["confusion", "dawid_skene"] if first.labels is not None else []
    return ["single", *(["stack"] if len(first.voters) <= _MANY else []), *learned, WITHOUT, "majority"]


def _measured(method: str, votes: ByAttribute, gold: ByAttribute, clip_negative: bool) -> list[Outcome]:
    """The outcomes of the gold rows, attribute by attribute, each in its order."""
    if method not in {"single", "confusion", "stack"}:
        rules = learn(method, votes, gold, clip_negative=clip_negative)
        return [one for name, own in gold.items() for one in outcomes(own, rules[name])]
    found: dict[str, list[list[Outcome]]] = {name: [] for name in gold}
    for fold in range(FOLDS):
        parts = {name: _split(own, fold) for name, own in gold.items()}
        rules = learn(method, votes, {name: rest for name, (rest, _) in parts.items()})
        for name, (_, held) in parts.items():
            found[name].append(outcomes(held, rules[name]))
    return [found[name][row % FOLDS][row // FOLDS] for name, own in gold.items() for row in range(len(own))]


def _split(votes: Votes, fold: int) -> tuple[Votes, Votes]:
    mine: pa.BooleanArray = pc.equal(fold_of(len(votes)), fold)
    return votes.filter(pc.invert(mine)), votes.filter(mine)


def _leads(ours: Sequence[Outcome], theirs: Sequence[Outcome], score: float) -> bool:
    """Whether the one has the better F1 by more than noise, row against row.

    An F1 is over `score` just where the sum of `2 right - score (said + wanted)` over the rows is over 0.
    """
    gains = [_worth(one, score) - _worth(other, score) for one, other in zip(ours, theirs, strict=True)]
    return sum(gains) > _NOISE * math.sqrt(1.0 + sum(gain * gain for gain in gains))


def _worth(outcome: Outcome, score: float) -> float:
    right, said, wanted = outcome
    return 2.0 * (right and said) - score * (said + wanted)

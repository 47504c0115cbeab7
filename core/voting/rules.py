"""Ways to decide, each learned by its own method."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.dawid_skene import Confusions, confusion, dawid_skene, decide_by
from gdo.voting.pool import Pool, decide_pooled, fit_pool
from gdo.voting.score import Combined
from gdo.voting.stack import Stack, decide_stacked, fit_stack
from gdo.voting.votes import NOBODY_SAID_NOTHING, Votes
from gdo.voting.weighted import decide, iwmv, log_odds, majority

Method = Literal["auto", "majority", "iwmv", "log_odds", "dawid_skene", "confusion", "stack"]
BY_GOLD = frozenset({"confusion", "stack"})
BY_LABELS = frozenset({"dawid_skene", "confusion"})


@dataclass(frozen=True, slots=True)
class Weights:
    """One weight a voter."""

    weights: tuple[float, ...]
    rounds: int = 0
    kind: Literal["weights"] = "weights"


Rule = Weights | Confusions | Pool | Stack
ByAttribute = Mapping[str, Votes]

Outcome = tuple[bool, bool, bool]
"""Of a row: right, something was said, there was something to say."""


def apply(rule: Rule, votes: Votes) -> Combined:
    """What a rule makes of votes."""
    if isinstance(rule, Weights):
        return decide(votes, rule.weights)
    if isinstance(rule, Confusions):
        return decide_by(votes, rule)
    return decide_pooled(votes, rule) if isinstance(rule, Pool) else decide_stacked(votes, rule)


def single(votes: Votes, voter: str) -> Weights:
    """One voter's word; the others are asked only where it did not vote."""
    return Weights(tuple(1.0 if name == voter else 1e-6 for name in votes.voters))


def best_single(gold: ByAttribute) -> str:
    """The voter whose own votes have the best F1 on the gold rows; of equal ones the first."""
    voters = next(iter(gold.values())).voters
    scores = [f1(o for own in gold.values() for o in _judged(own, own.codes[i])) for i in range(len(voters))]
    return voters[scores.index(max(scores))]


def learn(method: str, votes: ByAttribute, gold: ByAttribute, *, clip_negative: bool = False) -> dict[str, Rule]:
    """The rules of a method by attribute: from all votes, or from the gold rows for those that need them.

    All attributes are open, or all have closed labels.
    """
    if method == "single":
        voter = best_single(gold)
        return {name: single(own, voter) for name, own in votes.items()}
    if method == "stack":
        if all(own.labels is None for own in votes.values()):
            return {**fit_stack(gold)}
        return {name: fit_pool(own) for name, own in gold.items()}
    if method == "confusion":
        return {name: confusion(own) for name, own in gold.items()}
    return {name: _WITHOUT_GOLD[method](own, clip_negative) for name, own in votes.items()}


def _weighted(votes: Votes, method: Callable[..., object], **options: bool) -> Weights:
    learned = method(votes, **options)
    return Weights(learned.weights, learned.rounds)  # type: ignore[attr-defined]


_WITHOUT_GOLD: dict[str, Callable[[Votes, bool], Rule]] = {
    "majority": lambda votes, _: _weighted(votes, majority),
    "iwmv": lambda votes, clip: _weighted(votes, iwmv, clip_negative=clip),
    "log_odds": lambda votes, clip: _weighted(votes, log_odds, clip_negative=clip),
    "dawid_skene": lambda votes, _: dawid_skene(votes),
}


def outcomes(votes: Votes, rule: Rule) -> list[Outcome]:
    """What a rule comes to on rows whose right answer is known."""
    return _judged(votes, apply(rule, votes).code)


def _judged(votes: Votes, said: pa.Int32Array) -> list[Outcome]:
    same = pc.fill_null(pc.equal(said, votes.gold), False).to_pylist()
    if votes.labels is None:
        nothing, empty = votes.nothing, pc.equal(votes.gold, NOBODY_SAID_NOTHING)
    else:
        nothing, empty = len(votes.labels), False
    silent = pc.fill_null(pc.equal(said, nothing), False).to_pylist()
    unwanted = pc.or_(pc.fill_null(pc.equal(votes.gold, nothing), False), empty).to_pylist()
    return [
        (right, code is not None and not none, not away)
        for right, code, none, away in zip(same, said.to_pylist(), silent, unwanted, strict=True)
    ]


def f1(found: Iterable[Outcome]) -> float:
    """Micro F1 where a wrong value counts as false positive and as false negative; accuracy where all have a value."""
    true = said = wanted = 0
    for right, spoke, there in found:
        true, said, wanted = true + (right and spoke), said + spoke, wanted + there
    return 2 * true / (said + wanted) if said + wanted else 1.0

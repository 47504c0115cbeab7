"""Ways to decide, each learned by its own method; as JSON and back."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import pyarrow.compute as pc

from gdo.voting.dawid_skene import Confusions, confusion, dawid_skene, decide_by
from gdo.voting.score import Combined
from gdo.voting.stack import Stack, decide_stacked, fit_stack
from gdo.voting.votes import Votes
from gdo.voting.weighted import decide, iwmv, log_odds, majority


@dataclass(frozen=True, slots=True)
class Weights:
    """One weight a voter."""

    weights: tuple[float, ...]
    rounds: int = 0


Rule = Weights | Confusions | Stack
ByAttribute = Mapping[str, Votes]


def apply(rule: Rule, votes: Votes) -> Combined:
    """What a rule makes of votes."""
    if isinstance(rule, Weights):
        return decide(votes, rule.weights)
    if isinstance(rule, Confusions):
        return decide_by(votes, rule)
    return decide_stacked(votes, rule)


def single(votes: Votes, voter: int) -> Weights:
    """One voter's word; the others are asked only where it did not vote."""
    return Weights(tuple(1.0 if i == voter else 1e-6 for i in range(len(votes.voters))))


def learn(method: str, votes: ByAttribute, gold: ByAttribute, *, clip_negative: bool = False) -> dict[str, Rule]:
    """The rules of a method by attribute: from all votes, or from the gold rows for those that need them."""
    if method == "stack":
        rules: dict[str, Rule] = dict(fit_stack(gold))
        return rules
    if method.startswith("single:"):
        return {name: single(own, own.voters.index(method.removeprefix("single:"))) for name, own in votes.items()}
    if method == "confusion":
        return {name: confusion(own) for name, own in gold.items()}
    return {name: _WITHOUT_GOLD[method](own, clip_negative) for name, own in votes.items()}


def _weights(learned: object) -> Weights:
    return Weights(learned.weights, learned.rounds)  # type: ignore[attr-defined]


_WITHOUT_GOLD: dict[str, Callable[[Votes, bool], Rule]] = {
    "majority": lambda votes, _: _weights(majority(votes)),
    "iwmv": lambda votes, clip: _weights(iwmv(votes, clip_negative=clip)),
    "log_odds": lambda votes, clip: _weights(log_odds(votes, clip_negative=clip)),
    "dawid_skene": lambda votes, _: dawid_skene(votes),
}


def to_plain(rule: Rule) -> dict[str, object]:
    """A rule as JSON knows it."""
    return {"kind": type(rule).__name__.lower(), **asdict(rule)}


def from_plain(plain: Mapping[str, object]) -> Rule:
    """The rule that `to_plain` wrote.

    Raises:
        ValueError: it is none.
    """
    kinds = {"weights": Weights, "confusions": Confusions, "stack": Stack}
    values = {key: _tuples(value) for key, value in plain.items() if key != "kind"}
    try:
        rule: Rule = kinds[str(plain["kind"])](**values)
    except (KeyError, TypeError) as error:
        raise ValueError(f"no rule: {error}") from None
    if isinstance(rule, Stack) and isinstance(plain.get("confusions"), dict):
        inner = from_plain({"kind": "confusions", **plain["confusions"]})  # type: ignore[dict-item]
        rule = replace(rule, confusions=inner)  # type: ignore[arg-type]
    return rule


def _tuples(value: object) -> object:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def correct(votes: Votes, said: Combined) -> list[tuple[bool, bool, bool]]:
    """Row by row: whether it is right, whether something was said, and whether there was something to say."""
    same = pc.fill_null(pc.equal(said.code, votes.gold), False).to_pylist()
    empty = pc.fill_null(pc.equal(said.code, votes.nothing), False).to_pylist()
    right_is_empty = pc.fill_null(pc.equal(votes.gold, votes.nothing), False).to_pylist()
    codes = said.code.to_pylist()
    return [
        (is_right, code is not None and not nothing, not none_right)
        for is_right, code, nothing, none_right in zip(same, codes, empty, right_is_empty, strict=True)
    ]

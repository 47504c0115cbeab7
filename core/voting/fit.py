"""Votes -> what an ensemble learned of its voters; and what that makes of other votes."""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.auto import WITHOUT, choose
from gdo.voting.rules import BY_GOLD, ByAttribute, Rule, apply, best_single, learn
from gdo.voting.score import Combined, anybody
from gdo.voting.state import Contested, State, VoterFacts
from gdo.voting.votes import Votes
from gdo.voting.weighted import accuracies

_TWINS = 0.95
_BEYOND = 0.05
_QUORUM = 3
_ENOUGH = 10
"""Rows below which voters may say the same by chance."""
Agreement = tuple[tuple[float | None, ...], ...]


def fit(votes: ByAttribute, method: str, *, clip_negative: bool = False) -> State:
    """Learn from the votes on each attribute; `auto` takes what does best on gold rows, without them `iwmv`.

    Open attributes are decided one way, closed ones another, each the best for its kind.

    Raises:
        ValueError: the method needs right answers and there are none.
    """
    voters = next(iter(votes.values())).voters
    contests: dict[str, Contested] = {}
    for closed in (False, True):
        kind = {name: own for name, own in votes.items() if (own.labels is not None) is closed}
        if kind:
            contests |= _fitted(kind, method, clip_negative=clip_negative)
    return State(voters, {name: contests[name] for name in votes})


def _fitted(votes: ByAttribute, method: str, *, clip_negative: bool) -> dict[str, Contested]:
    gold = {name: own.with_gold() for name, own in votes.items()}
    there = any(len(own) for own in gold.values())
    if method in BY_GOLD and not there:
        raise ValueError(f"'{method}' learns from gold rows, and there is none")
    why = ""
    if method == "auto":
        method, why = choose(votes, gold, clip_negative=clip_negative) if there else (WITHOUT, "there are no gold rows")
    rules = learn(method, votes, gold, clip_negative=clip_negative)
    shown = f"single:{best_single(gold)}" if method == "single" else method
    if len(votes) > 1 and why:
        why += f" (over the {'closed' if next(iter(votes.values())).labels else 'open'} attributes {', '.join(votes)})"
    return {name: _contested(own, rules[name], shown, why) for name, own in votes.items()}


def combine(state: State, name: str, votes: Votes) -> Combined:
    """What a state makes of votes on an attribute."""
    return apply(state.contests[name].rule, votes)


def _contested(votes: Votes, rule: Rule, method: str, why: str) -> Contested:
    """The rule with what is known of its voters; accuracies are against gold, else against what the rule decides."""
    votes = votes.filter(anybody(votes))  # rows that nobody was asked tell nothing of the voters
    known = votes.gold.null_count < len(votes)
    measured = votes.gold if known else apply(rule, votes).code
    total = pc.sum(votes.count).as_py() or 0
    facts = {}
    for voter, own, accuracy in zip(votes.voters, votes.codes, accuracies(votes, measured), strict=True):
        given = pc.sum(pc.if_else(pc.is_valid(own), votes.count, 0)).as_py() or 0
        facts[voter] = VoterFacts(accuracy, 1 - given / total if total else 1.0, _commonest(votes, own, given))
    agreement = tuple(tuple(_agree(votes, i, j) for j in range(len(facts))) for i in range(len(facts)))
    warnings = tuple(_warnings(facts, agreement, total))
    return Contested(method, why, known, votes.labels, rule, facts, agreement, warnings)


def _commonest(votes: Votes, own: pa.Int32Array, given: int) -> float:
    if votes.labels is None or not given:
        return 0.0  # codes of open values tell who agrees, not what was said
    sums = [pc.sum(pc.if_else(pc.equal(own, k), votes.count, 0)).as_py() or 0 for k in range(votes.classes)]
    return float(max(sums) / given)


def _agree(votes: Votes, i: int, j: int) -> float | None:
    both = pc.equal(votes.codes[i], votes.codes[j])
    given = pc.sum(pc.if_else(pc.is_valid(both), votes.count, 0)).as_py() or 0
    same = pc.sum(pc.if_else(pc.fill_null(both, False), votes.count, 0)).as_py() or 0
    return same / given if given else None


def _warnings(facts: dict[str, VoterFacts], agreement: Agreement, total: int) -> list[str]:
    found = []
    silent = [voter for voter, own in facts.items() if own.missing >= 1.0]
    if len(silent) == len(facts):
        return ["no voter answered any row"]
    if len(facts) == 1:
        found.append("only one voter: its word is the answer")
    elif len(facts) - len(silent) < _QUORUM:
        found.append(f"only {len(facts) - len(silent)} voters answer: two cannot outvote each other")
    found += [f"'{voter}' never answers" for voter in silent]
    found += [f"'{voter}' always says the same" for voter, own in facts.items() if own.same >= 1.0 and total > 1]
    return [*found, *_twins(facts, agreement, total)]


def _twins(facts: dict[str, VoterFacts], agreement: Agreement, total: int) -> Iterator[str]:
    """Voters who say the same more often than their being right explains, one line for all who do."""
    names = list(facts)
    groups: list[set[int]] = []
    for i in range(len(names)) if total >= _ENOUGH else ():
        for j in range(i):
            share = agreement[i][j]
            if share is not None and share >= max(_TWINS, _explained(i, j, facts, agreement) + _BEYOND):
                met = [group for group in groups if group & {i, j}]
                groups = [group for group in groups if group not in met] + [set().union({i, j}, *met)]
    for group in groups:
        who = " and ".join(f"'{names[i]}'" for i in sorted(group))
        yield f"{who} say the same in {_TWINS:.0%} of the rows or more: they count as one voice {len(group)} times"


def _explained(i: int, j: int, facts: dict[str, VoterFacts], agreement: Agreement) -> float:
    """How often two voters would say the same if they had nothing in common but being right.

    As often as they agree with the others; where there are no others, as often as both are right or both wrong.
    """
    others = [agreement[k][other] for k in (i, j) for other in range(len(facts)) if other not in (i, j)]
    known = [share for share in others if share is not None]
    if known:
        return sum(known) / len(known)
    sure, other = (list(facts.values())[k].accuracy or 0.0 for k in (i, j))
    return sure * other + (1 - sure) * (1 - other)

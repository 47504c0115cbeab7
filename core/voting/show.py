"""What an ensemble learned, for a reader: a table and bars by attribute."""

from collections.abc import Iterator

from gdo.voting.dawid_skene import Confusions
from gdo.voting.pool import Pool
from gdo.voting.stack import Stack
from gdo.voting.state import Contested, State

_BAR = 30
_MOST = 12


def shown(state: State) -> str:
    """The state as text: accuracy, weight and missing votes by voter, agreement of each two, warnings."""
    blocks = ["\n".join(_contest(name, own, state.voters)) for name, own in state.contests.items()]
    return "\n\n".join([*blocks, *(f"warning: {note}" for note in state.notes)])


def _contest(name: str, own: Contested, voters: tuple[str, ...]) -> Iterator[str]:
    kind = "open values" if own.labels is None else f"{len(own.labels)} labels"
    rounds = getattr(own.rule, "rounds", 0)
    after = f" after {rounds} rounds" if rounds > 1 else ""
    yield f"{name} ({kind}), decided by {own.method}{after}"
    if own.why:
        yield f"  {own.why}"
    width = max(len(voter) for voter in voters)
    weights = _weights(own)
    yield f"  {'':{width}}  {'right' if own.by_gold else 'agrees':>6}  {weights[0]:>{len(weights[0])}}  {'missing':>7}"
    for place, voter in enumerate(voters):
        facts = own.voters[voter]
        sure = "-" if facts.accuracy is None else f"{facts.accuracy:.1%}"
        weight = weights[1][place] if weights[1] else "-"
        bar = "█" * round(_BAR * (facts.accuracy or 0.0))
        yield f"  {voter:{width}}  {sure:>6}  {weight:>{len(weights[0])}}  {facts.missing:>7.1%}  {bar}"
    if len(voters) <= _MOST:
        yield "  say the same:"
        for i, voter in enumerate(voters):
            cells = ("-" if share is None else f"{share:.0%}" for share in own.agreement[i][: i + 1])
            yield f"  {voter:{width}}  " + " ".join(f"{cell:>4}" for cell in cells)
    yield from (f"  warning: {warning}" for warning in own.warnings)


def _weights(own: Contested) -> tuple[str, list[str]]:
    """What stands for a weight in the kind of rule, and its figures."""
    rule = own.rule
    if isinstance(rule, Confusions):
        return "mean of its matrix's diagonal", [
            f"{sum(m[k][k] for k in range(len(m))) / len(m):.2f}" for m in rule.matrices
        ]
    if isinstance(rule, Pool):
        return "evidence taken", [f"{exponent:.2f}" for exponent in rule.exponents]
    if isinstance(rule, Stack):
        return "log-odds of a value", [f"{value:.2f}" for value, _ in rule.trust]
    return "weight", [f"{weight:.2f}" for weight in rule.weights]

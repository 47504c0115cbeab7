"""What an ensemble learned: the rules by attribute, and what is to be told of its voters; saved as JSON."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from gdo.voting.rules import Rule, Weights


@dataclass(frozen=True, slots=True)
class VoterFacts:
    """One voter on one attribute; shares are of the items, None where nothing can be said."""

    accuracy: float | None
    missing: float
    same: float
    """The share of its commonest answer."""


@dataclass(frozen=True, slots=True)
class Contested:
    """One attribute: how it is decided, and its voters."""

    method: str
    why: str
    by_gold: bool
    """Whether accuracies are against right answers; else against what was decided."""
    labels: tuple[str, ...] | None
    rule: Annotated[Rule, Field(discriminator="kind")]
    voters: Mapping[str, VoterFacts]
    agreement: tuple[tuple[float | None, ...], ...]
    """The share of equal answers of each two voters, where both answered."""
    warnings: tuple[str, ...] = ()

    def weight(self, voter: str) -> float | None:
        """What a voter weighs, where the rule has one weight for each."""
        return self.rule.weights[list(self.voters).index(voter)] if isinstance(self.rule, Weights) else None


@dataclass(frozen=True, slots=True)
class State:
    """What was learned."""

    voters: tuple[str, ...]
    contests: Mapping[str, Contested]
    notes: tuple[str, ...] = ()
    gdo: Literal["ensemble"] = "ensemble"
    version: Literal[1] = 1

    def to_json(self) -> str:
        """The state as a file holds it."""
        return _ADAPTER.dump_json(self, indent=1).decode() + "\n"

    @classmethod
    def from_json(cls, text: str) -> "State":
        """The state that `to_json` wrote.

        Raises:
            ValueError: it is none.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"it is no saved ensemble: {place or 'the file'}: {first['msg'].lower()}") from None

    def misfits(self, name: str, voters: tuple[str, ...], labels: tuple[str, ...] | None) -> list[str]:
        """Why it cannot decide an attribute of a step."""
        if name not in self.contests:
            return [f"it was learned on {', '.join(self.contests)}, not on '{name}'"]
        found = []
        if voters != self.voters:
            found.append(f"its voters are {', '.join(self.voters)}, the step's {', '.join(voters)}")
        if labels != self.contests[name].labels:
            found.append(f"the labels of '{name}' are others")
        return found

    def told(self) -> Iterator[str]:
        """The state in some lines for the end of a run."""
        for name, own in self.contests.items():
            shown = ", ".join(self._voter(own, voter) for voter in self.voters)
            yield f"{name} by {own.method}: {shown}"
            if own.why:
                yield f"  why: {own.why}"
            yield from (f"  warning: {warning}" for warning in own.warnings)
        yield from (f"warning: {note}" for note in self.notes)

    @staticmethod
    def _voter(own: Contested, voter: str) -> str:
        facts, weight = own.voters[voter], own.weight(voter)
        sure = "-" if facts.accuracy is None else f"{facts.accuracy:.0%}"
        return (
            f"{voter} {sure}"
            + ("" if weight is None else f" (weight {weight:.2f})")
            + (f" ({facts.missing:.0%} missing)" if facts.missing else "")
        )


_ADAPTER = TypeAdapter(State)

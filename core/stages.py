"""The two stages of an ensemble: every voter is asked for each row, then their votes are weighed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PrivateAttr

from gdo.answers import Answers
from gdo.ask import ROW, Ask
from gdo.document import Loc
from gdo.errors import Faults
from gdo.ledger import Failure
from gdo.op import Operator, put_column
from gdo.prompt import Udp
from gdo.scales import Contest, Scales, Weighing
from gdo.weighing import Ballot, Weighed

VOTED = "__voted__"
"""The hidden column that says which voters answered a row."""


@dataclass(frozen=True)
class Voter:
    """A voter that is ready to be asked; no model is the default one."""

    name: str
    udp: Udp
    model: str | None
    temperature: float | None
    loc: Loc

    @property
    def model_loc(self) -> Loc:
        """Where its model is named."""
        return (*self.loc, "model") if self.loc[0] == "voters" else self.loc


@dataclass(frozen=True)
class Panel:
    """Who votes on what: what the two stages of an ensemble share."""

    voters: tuple[Voter, ...]
    contests: tuple[Contest, ...]
    into: str | None
    """One column for all answers."""
    key_of: Callable[[str], Loc]
    """Where the step names a column."""

    @property
    def names(self) -> list[str]:
        """What is voted on."""
        return [contest.name for contest in self.contests]

    @property
    def gathered(self) -> str | None:
        """The column in which the answers are put together; none where each has its own."""
        return self.into if self.into not in self.names else None

    def hidden(self) -> Iterator[tuple[Contest, Voter, str]]:
        """The hidden column of each vote."""
        for i, contest in enumerate(self.contests):
            for j, voter in enumerate(self.voters):
                yield contest, voter, f"__vote_{i}_{j}__"

    def of(self, contest: Contest) -> list[str]:
        """The hidden columns of the votes on one thing, voter by voter."""
        return [column for own, _, column in self.hidden() if own == contest]


class Poll(Operator):
    """Ask every voter for each row: the first stage of an ensemble. One call a distinct prompt and voter."""

    kind = "poll"
    _panel: Panel = PrivateAttr()

    @classmethod
    def of(cls, keys: Mapping[str, object], panel: Panel) -> "Poll":
        """The stage of a step."""
        made = cls.model_construct(**keys)  # type: ignore[arg-type]
        made._panel = panel  # noqa: SLF001 (of its own class)
        return made

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """What the voters' templates read."""
        return frozenset[str]().union(*(voter.udp.columns for voter in self._panel.voters))

    def key_of(self, column: str) -> Loc:
        """Where the step names a column."""
        own = [v for v in self._panel.voters if v.loc[0] == "voters" and column in v.udp.columns]
        return own[0].loc if len(own) == 1 else self._panel.key_of(column)

    def models_asked(self) -> Mapping[Loc, str | None]:
        """The models of all voters."""
        return {voter.model_loc: voter.model for voter in self._panel.voters}

    def prompts(self) -> Sequence[tuple[Udp, str | None]]:
        """What each voter is asked."""
        return [(voter.udp, voter.model) for voter in self._panel.voters]

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """Hidden columns: each vote, and who voted."""
        voted = pa.struct([pa.field(voter.name, pa.bool_()) for voter in self._panel.voters])
        votes = [pa.field(column, contest.type) for contest, _, column in self._panel.hidden()]
        return [*votes, pa.field(VOTED, voted)]

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Ask all voters at once; a row that none of them answers has failed."""
        voters = self._panel.voters

        def answers(voter: Voter) -> Answers:
            return ask.by(voter.name, voter.model, voter.temperature)(voter.udp, batch)

        with ThreadPoolExecutor(len(voters), thread_name_prefix="gdo-voter") as pool:
            found = dict(zip((voter.name for voter in voters), pool.map(answers, voters), strict=True))
        failed = reduce(pc.and_, [own.failed for own in found.values()])
        for row in batch.column(ROW).filter(failed).to_pylist():
            ask.fail(row, Failure("no_votes", "no voter answered"))
        for contest, voter, column in self._panel.hidden():
            batch = put_column(batch, column, found[voter.name].column(contest.name))
        voted = [pc.is_valid(own.record) for own in found.values()]
        return put_column(batch, VOTED, pa.StructArray.from_arrays(voted, names=list(found)))

    def summary(self) -> str:
        """The stage in one line of a plan."""
        return f"poll({', '.join(voter.name for voter in self._panel.voters)})"


class Tally(Weighed):
    """Weigh the votes of an ensemble's voters: its second stage. No call."""

    kind = "tally"
    asks = False
    _panel: Panel = PrivateAttr()

    @classmethod
    def of(cls, keys: Mapping[str, object], panel: Panel, scales: Scales) -> "Tally":
        """The stage of a step."""
        made = cls.model_construct(**keys)  # type: ignore[arg-type]
        made._panel, made._scales = panel, scales  # noqa: SLF001 (of its own class)
        return made

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """The hidden votes, and the keys of the gold rows."""
        return frozenset({VOTED, *(column for _, _, column in self._panel.hidden()), *self.keys_read()})

    def key_of(self, column: str) -> Loc:
        """Where the step names a column."""
        return ("gold", "key") if column in self.keys_read() else self._panel.key_of(column)

    def ballot(self, batch: pa.RecordBatch, contest: Contest) -> Ballot:
        """The hidden votes; a row that passed the first stage by has none."""
        voted = batch.column(VOTED)
        return Ballot(
            [batch.column(column) for column in self._panel.of(contest)],
            [pc.fill_null(pc.struct_field(voted, voter.name), False) for voter in self._panel.voters],
        )

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The answers, gathered where the step says so, and each vote where it is kept."""
        answers, panel = super().adds(schema), self._panel
        if panel.gathered is not None:
            types = [pa.field(contest.name, contest.type) for contest in panel.contests]
            whole = types[0].type if len(types) == 1 else pa.struct(types)
            answers = [pa.field(panel.gathered, whole), *(f for f in answers if f.name not in panel.names)]
        kept = [pa.field(vote_column(c.name, v.name), c.type) for c, v, _ in panel.hidden()] if self.keep_votes else []
        over = [field.name for field in kept if field.name in schema.names]
        if over:
            hint = "give the voter another `name`, or rename the column in an sql step"
            raise Faults.one("", f"a kept vote would take the place of the column '{over[0]}'", hint)
        return [*answers, *kept]

    def writes(self, schema: pa.Schema) -> pa.Schema:
        """The schema without the hidden columns."""
        hidden = {VOTED, *(column for _, _, column in self._panel.hidden())}
        return super().writes(pa.schema([field for field in schema if field.name not in hidden]))

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """The answers, in the place of the hidden votes."""
        panel = self._panel
        decided = super().apply(batch, ask, state)
        if panel.gathered is not None:
            parts = [decided.column(name) for name in panel.names]
            for name in panel.names:  # a column of the table that has an attribute's name stays as it was
                there = name in batch.schema.names
                decided = put_column(decided, name, batch.column(name)) if there else decided.drop_columns([name])
            whole = parts[0] if len(parts) == 1 else pa.StructArray.from_arrays(parts, names=panel.names)
            decided = put_column(decided, panel.gathered, whole)
        for contest, voter, column in panel.hidden():
            if self.keep_votes:
                decided = put_column(decided, vote_column(contest.name, voter.name), batch.column(column))
        return decided.drop_columns([VOTED, *(column for _, _, column in panel.hidden())])

    def summary(self) -> str:
        """The stage in one line of a plan."""
        given = self.model_dump(include=set(Weighing.model_fields), exclude_defaults=True, mode="json")
        shown = given if self.load is not None else {"weights": self.weights, **given}
        return f"tally({', '.join(f'{key}: {value}' for key, value in shown.items())})"


def vote_column(contest: str, voter: str) -> str:
    """The column that keeps a vote."""
    return f"{contest}_{voter}"

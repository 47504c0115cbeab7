"""Operators that weigh votes: what they learn from all rows, and what they decide by it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import PrivateAttr

from gdo.ask import ROW, Ask
from gdo.errors import RunFailed
from gdo.op import Learned, Operator, Scope, put_column
from gdo.scales import Contest, Scales, Weighing
from gdo.spelling import as_text, closed_code
from gdo.voting.fit import combine, fit
from gdo.voting.score import Combined
from gdo.voting.state import State
from gdo.voting.votes import Votes, from_summary, summarise, votes_of

Spell = Callable[[pa.Array], pa.StringArray]


@dataclass(frozen=True, slots=True)
class Ballot:
    """What each voter said in a batch; where it voted, null says that there is no value."""

    values: Sequence[pa.Array]
    voted: Sequence[pa.BooleanArray]


class Weighed(Weighing, Operator):
    """What an operator of scope FIT does with votes: count their patterns, fit weights, decide."""

    _scales: Scales | None = PrivateAttr(default=None)

    @property
    def scales(self) -> Scales:
        """What is ready before the first vote."""
        assert self._scales is not None, "prepare() comes first"  # noqa: S101
        return self._scales

    @property
    def scope(self) -> Scope:
        """It learns from all rows first, unless what it learned is loaded."""
        return Scope.BATCH if self.load is not None else Scope.FIT

    def contests_in(self, schema: pa.Schema) -> Sequence[Contest]:
        """What is voted on in a table."""
        return self.scales.contests

    def ballot(self, batch: pa.RecordBatch, contest: Contest) -> Ballot:
        """What each voter said."""
        raise TypeError(f"{self.kind} has no ballots")

    def _votes(
        self, batch: pa.RecordBatch, contest: Contest, ballot: Ballot, ask: Ask, *, with_gold: bool = False
    ) -> Votes:
        spell = self._speller(contest, ask, batch.column(ROW))
        right, known = self._right(batch, contest, spell) if with_gold else (None, None)
        texts = [spell(column) for column in ballot.values]
        return votes_of(texts, ballot.voted, self.scales.voters, contest.labels, gold=right, known=known)

    def _speller(self, contest: Contest, ask: Ask, rows: pa.Array) -> Spell:
        labels = contest.labels
        if labels is None:
            return lambda column: self.scales.speller.texts(column, ask, rows)

        def closed(column: pa.Array) -> pa.StringArray:
            """A label as it was declared; a word outside the set stays a word outside the set."""
            encoded = as_text(column).dictionary_encode()
            words = encoded.dictionary.to_pylist()
            found = [label or word for word, label in zip(words, closed_code(words, labels), strict=True)]
            return pa.array(found, pa.string()).take(encoded.indices)

        return closed

    def _right(
        self, batch: pa.RecordBatch, contest: Contest, spell: Spell
    ) -> tuple[pa.Array | None, pa.BooleanArray | None]:
        """The right answers as votes are spelt, lists where any of several is right, and in which rows they are known."""
        gold = self.scales.gold
        if gold is None or contest.name not in gold.answers:
            return None, None
        places = gold.places(batch)
        answers = gold.answers[contest.name].take(places)
        known = pc.is_valid(places)
        if contest.labels is not None:
            known = pc.and_(known, pc.is_valid(answers))  # a closed set has a word of its own for "none"
        if pa.types.is_list(answers.type):
            spelt = spell(pc.list_flatten(answers))
            lengths = pc.fill_null(pc.list_value_length(answers), 0)
            offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])
            return pa.ListArray.from_arrays(offsets, spelt), known
        return spell(answers), known

    def summarise(self, batch: pa.RecordBatch, ask: Ask) -> pa.Table:
        """The patterns of the votes, counted, by contest."""
        parts = []
        for contest in self.contests_in(batch.schema):
            votes = self._votes(batch, contest, self.ballot(batch, contest), ask, with_gold=True)
            part = summarise(votes)
            parts.append(part.append_column("contest", pa.repeat(pa.scalar(contest.name), len(part))))
        return pa.concat_tables(parts)

    def fit(self, summary: pa.Table) -> pa.Table:
        """The weights that all the patterns give, as the JSON of a `State`."""
        votes = {}
        for contest in self.scales.contests:
            own = summary.filter(pc.equal(summary.column("contest"), contest.name)).drop_columns(["contest"])
            votes[contest.name] = from_summary(own, self.scales.voters, contest.labels)
        try:
            state = fit(votes, self.weights, clip_negative=self.clip_negative)
        except ValueError as error:
            raise RunFailed(f"{self.id or self.kind}: {error} (no row has a key of `gold`)") from None
        return pa.table({"state": [replace(state, notes=tuple(self._notes(votes))).to_json()]})

    def _notes(self, votes: Mapping[str, Votes]) -> Iterator[str]:
        if self.scales.gold is None:
            return
        found = max(len(own.with_gold()) for own in votes.values())
        rows = len(self.scales.gold)
        if found < rows:
            yield f"{rows - found} of the {rows} gold rows match no row of the table that has an answer"

    def learned(self, state: pa.Table) -> Learned:
        """Each voter's accuracy and weight, what was chosen and why, and warnings."""
        text = state.column("state")[0].as_py()
        return Learned(tuple(_state(text).told()), text, self.scales.save)

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """The answer of each contest."""
        if self.scales.state is not None:
            known = self.scales.state
        elif state is not None:
            known = _state(state.column("state")[0].as_py())
        else:
            raise RunFailed(f"{self.id or self.kind}: no weights were learned")
        for contest in self.contests_in(batch.schema):
            ballot = self.ballot(batch, contest)
            said = combine(known, contest.name, self._votes(batch, contest, ballot, ask))
            batch = self._put(batch, contest, ballot, said)
        return batch

    def _put(self, batch: pa.RecordBatch, contest: Contest, ballot: Ballot, said: Combined) -> pa.RecordBatch:
        code = said.code
        if self.abstain_below is not None:
            code = pc.if_else(pc.greater_equal(said.margin, self.abstain_below), code, None)
        batch = put_column(batch, contest.name, _answer(contest, ballot, code))
        for field, column in zip(self.margins(contest), (said.margin, said.agreement), strict=False):
            batch = put_column(batch, field.name, column)
        return batch

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The answers, and how sure they are where that is wanted."""
        return [f for own in self.contests_in(schema) for f in (pa.field(own.name, own.type), *self.margins(own))]

    def keys_read(self) -> Iterable[str]:
        """The key columns of the gold rows."""
        return self.gold.keys if self.gold is not None else ()


def _answer(contest: Contest, ballot: Ballot, code: pa.Int32Array) -> pa.Array:
    """The winning value as its type has it: a label, or the word of the first voter who said so."""
    if contest.labels is not None:
        return pa.array([*contest.labels, None], pa.string()).take(code).cast(contest.type)
    found = pa.nulls(len(code), contest.type)
    for place, column in enumerate(ballot.values):
        found = pc.if_else(pc.fill_null(pc.equal(code, place), False), column, found)
    return found


@lru_cache(maxsize=8)
def _state(text: str) -> State:
    return State.from_json(text)

"""Votes as codes in columns, and their patterns counted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.traits import NOTHING, Traits, no_traits, traits_of

NOBODY_SAID_NOTHING = -2
"""The code of a right answer 'no value' among open values, where no voter gave it."""


@dataclass(frozen=True, slots=True)
class Votes:
    """What voters said of items: a row an item, or a pattern that `count` items share.

    `codes` has a column a voter, null where it did not vote. Among closed labels a code is the label's place, and
    `len(labels)` the answer 'no value'. Of open values it is the first voter of the row that said the same.
    """

    voters: tuple[str, ...]
    labels: tuple[str, ...] | None
    codes: tuple[pa.Int32Array, ...]
    count: pa.Int64Array
    nothing: pa.Int32Array
    """The code of 'no value'; null where nobody said so."""
    texts: tuple[pa.StringArray, ...]
    """Each voter's open values; none for closed labels, and none in a summary."""
    traits: tuple[Traits, ...]
    """What each voter's open values are like, in a summary that was made for gold rows."""
    gold: pa.Int32Array
    """The code of the right answer; -1 (or `NOBODY_SAID_NOTHING`) where no voter gave it; null where it is not known."""

    @property
    def classes(self) -> int:
        """How many codes there may be."""
        return len(self.voters) if self.labels is None else len(self.labels) + 1

    @property
    def answers(self) -> int:
        """L of the formulas: among how many answers a voter chooses."""
        return len(self.voters) + 1 if self.labels is None else len(self.labels)

    def __len__(self) -> int:
        return len(self.count)

    def filter(self, mask: pa.BooleanArray) -> "Votes":
        """Some of the rows."""
        return self.take(pc.indices_nonzero(mask))

    def take(self, places: pa.Array) -> "Votes":
        """Rows by their places."""
        return replace(
            self,
            codes=tuple(column.take(places) for column in self.codes),
            count=self.count.take(places),
            nothing=self.nothing.take(places),
            texts=tuple(column.take(places) for column in self.texts),
            traits=tuple(Traits(*(part.take(places) for part in own)) for own in self.traits),
            gold=self.gold.take(places),
        )

    def all_traits(self) -> tuple[Traits, ...]:
        """What each voter's open values are like."""
        return traits_of(self.texts) if self.texts else self.traits

    def with_gold(self) -> "Votes":
        """The rows whose right answer is known, one an item, in an order that the order of rows does not change."""
        known = self.filter(pc.is_valid(self.gold))
        known = from_summary(summarise(known), self.voters, self.labels)
        places = [place for place, count in enumerate(known.count.to_pylist()) for _ in range(count)]
        spread = known.take(pa.array(places, pa.int64()))
        return replace(spread, count=pa.array([1] * len(places), pa.int64()))


def joined(parts: Sequence[Votes]) -> Votes:
    """The rows of several, of the same voters and labels, one after the other."""

    def put(columns: Sequence[pa.Array]) -> pa.Array:
        return pa.concat_arrays(columns)

    traits = zip(*(own.all_traits() for own in parts), strict=True)
    return Votes(
        parts[0].voters,
        parts[0].labels,
        tuple(put(columns) for columns in zip(*(own.codes for own in parts), strict=True)),
        put([own.count for own in parts]),
        put([own.nothing for own in parts]),
        (),
        tuple(Traits(*(put(column) for column in zip(*own, strict=True))) for own in traits),
        put([own.gold for own in parts]),
    )


def votes_of(
    values: Sequence[pa.StringArray],
    voted: Sequence[pa.BooleanArray],
    voters: tuple[str, ...],
    labels: tuple[str, ...] | None,
    *,
    gold: pa.Array | None = None,
    known: pa.BooleanArray | None = None,
) -> Votes:
    """Code votes that are texts; where a voter voted, null is the answer 'no value'.

    A text outside closed labels counts as missing. `gold` is a text, or a list of texts any of which is right (null or
    an empty list: 'no value' is right), where `known` says that the right answer is known.
    """
    rows = len(values[0])
    said = [pc.if_else(there, pc.fill_null(one, NOTHING), None) for one, there in zip(values, voted, strict=True)]
    codes = _open_codes(said) if labels is None else _closed_codes(said, labels)
    nothing = pa.nulls(rows, pa.int32())
    for one, code in zip(said, codes, strict=True):
        nothing = pc.coalesce(nothing, pc.if_else(pc.equal(one, NOTHING), code, None))
    texts = tuple(said) if labels is None else ()
    right = pa.nulls(rows, pa.int32())
    if gold is not None and known is not None:
        right = _gold_codes(said, codes, labels, gold, known)
    return Votes(voters, labels, tuple(codes), pa.array([1] * rows, pa.int64()), nothing, texts, (), right)


def _closed_codes(said: Sequence[pa.StringArray], labels: tuple[str, ...]) -> list[pa.Int32Array]:
    words = pa.array([*labels, NOTHING], pa.string())
    return [pc.index_in(one, value_set=words) for one in said]


def _open_codes(said: Sequence[pa.StringArray]) -> list[pa.Int32Array]:
    codes = []
    for i, one in enumerate(said):
        code = pc.if_else(pc.is_valid(one), pa.scalar(i, pa.int32()), None)
        for j in range(i - 1, -1, -1):
            same = pc.fill_null(pc.equal(one, said[j]), False)
            code = pc.if_else(same, pa.scalar(j, pa.int32()), code)
        codes.append(code)
    return codes


def _gold_codes(
    said: Sequence[pa.StringArray],
    codes: Sequence[pa.Int32Array],
    labels: tuple[str, ...] | None,
    gold: pa.Array,
    known: pa.BooleanArray,
) -> pa.Int32Array:
    places = pc.indices_nonzero(known)
    closed = {word: i for i, word in enumerate([*labels, NOTHING])} if labels is not None else None
    right: list[int | None] = [None] * len(known)
    texts = [one.take(places).to_pylist() for one in said]
    coded = [one.take(places).to_pylist() for one in codes]
    for row, (place, answer) in enumerate(zip(places.to_pylist(), gold.take(places).to_pylist(), strict=True)):
        among = {NOTHING} if answer in (None, []) else set(answer) if isinstance(answer, list) else {answer}
        given = [
            code[row] for text, code in zip(texts, coded, strict=True) if text[row] in among and code[row] is not None
        ]
        outside = NOBODY_SAID_NOTHING if closed is None and among == {NOTHING} else -1
        if closed is not None:
            outside = next((closed[word] for word in sorted(among) if word in closed), -1)
        right[place] = given[0] if given else outside
    return pa.array(right, pa.int32())


def summarise(votes: Votes) -> pa.Table:
    """The patterns of votes, counted; concatenated summaries of parts are a summary of the whole.

    Traits of open values are kept where the right answer is known, for that is where they are learned from.
    """
    columns = {f"v{i}": column for i, column in enumerate(votes.codes)}
    columns |= {"nothing": votes.nothing, "gold": votes.gold, "count": votes.count}
    for i, own in enumerate(_gold_traits(votes)):
        columns |= {f"t{i}_{name}": part for name, part in own._asdict().items()}
    return merged(pa.table(columns))


def _gold_traits(votes: Votes) -> Sequence[Traits]:
    """The traits of the rows whose right answer is known, in the place of these rows; null in the others."""
    if votes.labels is not None or not votes.texts:
        return votes.traits or [no_traits(len(votes))] * len(votes.voters)
    known = pc.is_valid(votes.gold)
    place = pc.if_else(known, pc.subtract(pc.cumulative_sum(pc.cast(known, pa.int64())), 1), None)
    found = traits_of([column.filter(known) for column in votes.texts])
    return [Traits(*(part.take(place) for part in own)) for own in found]


def merged(summary: pa.Table) -> pa.Table:
    """A summary in which each pattern stands once, in an order of its own."""
    keys = [name for name in summary.column_names if name != "count"]
    found = summary.group_by(keys).aggregate([("count", "sum")])
    found = found.rename_columns([*keys, "count"])
    return found.sort_by([(name, "ascending") for name in keys])


def from_summary(summary: pa.Table, voters: tuple[str, ...], labels: tuple[str, ...] | None) -> Votes:
    """The patterns of a summary as votes."""
    whole = merged(summary).combine_chunks()

    def column(name: str, kind: pa.DataType) -> pa.Array:
        found = whole.column(name)
        return cast("pa.Array", found.chunk(0) if found.num_chunks else pa.array([], kind)).cast(kind)

    places = range(len(voters))
    return Votes(
        voters,
        labels,
        tuple(column(f"v{i}", pa.int32()) for i in places),
        column("count", pa.int64()),
        column("nothing", pa.int32()),
        (),
        tuple(Traits(*(column(f"t{i}_{name}", pa.int32()) for name in Traits._fields)) for i in places),
        column("gold", pa.int32()),
    )

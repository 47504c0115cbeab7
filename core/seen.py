"""Rows that a prompt has answered, as Arrow looks them up: where most rows of a table are alike, none is looked at in Python."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from gdo.answers import Answers, Outcome, answers
from gdo.distinct import Distinct, counting
from gdo.schema import Record

MOST = 8192
"""Rows that are kept. A table with more of them is one of distinct rows, for which this is no gain: it is given up."""
_BITS = 13
"""Bits of a column's code: each column has no more values than there are rows."""
_COLUMNS = 4
_PLAIN = {pa.string(), pa.large_string(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.bool_(), pa.date32()}
"""Types whose equal values make equal prompts: 0.0 and -0.0 do not, and some types no hash table knows."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some distinct rows: the values of each column, the codes that stand together in a row, and what each was answered."""

    values: tuple[pa.Array, ...]
    codes: pa.Array
    answered: Answers

    def find(self, batch: pa.RecordBatch) -> pa.Array:
        """The place of each row; null for one that is not here."""
        codes = _together([pc.index_in(c, value_set=v) for c, v in zip(batch.columns, self.values, strict=True)])
        return codes if len(self.values) == 1 else pc.index_in(codes, value_set=self.codes)

    def with_more(self, rows: pa.RecordBatch, answered: Answers) -> "_Rows":
        """With some more distinct rows, none of which is here."""
        values = tuple(
            pa.concat_arrays([known, pc.unique(column.filter(pc.is_null(pc.index_in(column, value_set=known))))])
            for known, column in zip(self.values, rows.columns, strict=True)
        )
        new = _together([pc.index_in(c, value_set=v) for c, v in zip(rows.columns, values, strict=True)])
        return _Rows(values, pa.concat_arrays([self.codes, new]), _stacked(self.answered, answered))


class Seen:
    """The rows of some columns of one prompt that were answered; safe to use from several threads."""

    def __init__(self, columns: pa.Schema, output: Record) -> None:
        self._output = output
        self._lock = threading.Lock()
        self._rows: _Rows | None = None
        if 0 < len(columns) <= _COLUMNS and _PLAIN.issuperset(columns.types):
            nobody = _answers(output, [])
            self._rows = _Rows(tuple(pa.array([], kind) for kind in columns.types), pa.array([], pa.int64()), nobody)

    def find(self, batch: pa.RecordBatch) -> "Found | None":
        """What is known of a batch of these columns; None where nothing of it is."""
        rows = self._rows
        if rows is None or not len(rows.codes):
            return None
        places = rows.find(batch)
        return None if places.null_count == batch.num_rows else Found(rows.answered, places)

    def keep(self, distinct: pa.RecordBatch, outcomes: Sequence[Outcome]) -> None:
        """Remember distinct rows that did not fail."""
        with self._lock:
            known = self._rows
            if known is None:
                return
            is_new = [outcome.failure is None for outcome in outcomes]
            chosen = pc.and_(pa.array(is_new, pa.bool_()), pc.is_null(known.find(distinct)))
            if len(known.codes) + chosen.true_count > MOST:
                self._rows = None
            elif chosen.true_count:
                kept = [outcome for outcome, new in zip(outcomes, chosen.to_pylist(), strict=True) if new]
                self._rows = known.with_more(distinct.filter(chosen), _answers(self._output, kept))


@dataclass(frozen=True, slots=True)
class Found:
    """The places of a batch's rows among those that were answered."""

    known: Answers
    places: pa.Array

    @property
    def missing(self) -> pa.BooleanArray | None:
        """The rows that are not there; None where all are."""
        return pc.is_null(self.places) if self.places.null_count else None

    def together(self, rest: Answers | None = None) -> Answers:
        """What the batch is answered, with the answers to the rows that were missing."""
        if rest is None:
            return _taken(self.known, self.places)
        missing = pc.is_null(self.places)
        among = pc.cumulative_sum(missing.cast(pa.int64()), start=len(self.known.failed) - 1)
        return _taken(_stacked(self.known, rest), pc.if_else(missing, among, self.places.cast(pa.int64())))


def _stacked(first: Answers, second: Answers) -> Answers:
    """Answers to some rows, and to others behind them."""
    return Answers(*(pa.concat_arrays([getattr(first, part), getattr(second, part)]) for part in Answers.__slots__))


def _taken(known: Answers, places: pa.Array) -> Answers:
    return Answers(*(getattr(known, part).take(places) for part in Answers.__slots__))


def _answers(output: Record, outcomes: Sequence[Outcome]) -> Answers:
    whole = Distinct(pa.RecordBatch.from_pydict({}), counting(len(outcomes)), whole=True)
    return answers(output, whole, outcomes)


def _together(codes: Sequence[pa.Array]) -> pa.Array:
    """One code for the codes of a row; null where one of them is."""
    first, *others = codes
    together = first.cast(pa.int64())
    for code in others:
        together = pc.add(pc.shift_left(together, pa.scalar(_BITS, pa.int64())), code.cast(pa.int64()))
    return together

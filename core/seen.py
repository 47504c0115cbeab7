"""Rows that a prompt has answered, as Arrow looks them up: where most rows of a table are alike, none is looked at in Python."""

import threading
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from gdo.answers import Answers, answers
from gdo.rowindex import RowIndex
from gdo.schema import Record


class Seen:
    """The rows of some columns of one prompt that were answered; safe to use from several threads."""

    def __init__(self, columns: pa.Schema, output: Record) -> None:
        self._lock = threading.Lock()
        index = RowIndex.of(columns)
        self._known: tuple[RowIndex, Answers] | None = None if index is None else (index, answers(output, []))
        """None where it is no gain: a table of distinct rows is given up."""

    def find(self, batch: pa.RecordBatch) -> "Found | None":
        """What is known of a batch of these columns; None where nothing of it is."""
        if self._known is None:
            return None
        index, answered = self._known
        if not index.size:
            return None
        places = index.find(batch)
        return None if places.null_count == batch.num_rows else Found(answered, places)

    def keep(self, distinct: pa.RecordBatch, told: Answers) -> None:
        """Remember what distinct rows were answered, except for those that failed."""
        with self._lock:
            if self._known is None:
                return
            index, answered = self._known
            chosen = pc.and_(pc.invert(told.failed), pc.is_null(index.find(distinct)))
            if chosen.true_count:
                more = index.with_more(distinct.filter(chosen))
                new = told.moved(lambda part: part.filter(chosen))
                self._known = None if more is None else (more, _stacked(answered, new))


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
            return self.known.moved(lambda part: part.take(self.places))
        missing = pc.is_null(self.places)
        among = pc.cumulative_sum(missing.cast(pa.int64()), start=len(self.known.failed) - 1)
        places = pc.if_else(missing, among, self.places.cast(pa.int64()))
        return _stacked(self.known, rest).moved(lambda part: part.take(places))


def _stacked(first: Answers, second: Answers) -> Answers:
    """Answers to some rows, and to others behind them."""
    return Answers(*(pa.concat_arrays([getattr(first, part), getattr(second, part)]) for part in Answers.__slots__))

"""Answers by the arguments of a call: what a rewritten query looks up."""

from collections.abc import Iterator
from itertools import compress
from threading import Lock

import pyarrow as pa

from gdo.distinct import Distinct
from gdo.rowindex import RowIndex

Key = tuple[object, ...]


class _Table:
    """The answers to rows of some columns: found by what the rows hold, and as long as they are few by Arrow."""

    def __init__(self, schema: pa.Schema, kind: pa.DataType) -> None:
        self.places: dict[Key, int] = {}
        self._index = RowIndex.of(schema)
        self._pieces = [pa.nulls(0, kind)]

    def add(self, rows: pa.RecordBatch, answers: pa.Array) -> None:
        """Some more rows; those that are here keep their answers."""
        keys = list(_keys(rows))
        fresh = [key not in self.places for key in keys]
        if not all(fresh):
            chosen = pa.array(fresh, pa.bool_())
            rows, answers, keys = rows.filter(chosen), answers.filter(chosen), list(compress(keys, fresh))
        if self._index is not None:
            self._index = self._index.with_more(rows) if self._index.schema == rows.schema else None
        self._pieces.append(answers)
        self.places.update(zip(keys, range(len(self.places), len(self.places) + len(keys)), strict=True))

    def find(self, rows: pa.RecordBatch) -> pa.Array:
        """The places of rows, null for one that is not here."""
        if self._index is not None and self._index.schema == rows.schema:
            return self._index.find(rows)
        distinct = Distinct.of(rows, rows.schema.names)
        return distinct.spread(pa.array([self.places.get(key) for key in _keys(distinct.rows)], pa.int64()))

    @property
    def answers(self) -> pa.Array:
        """All answers, by place."""
        if len(self._pieces) > 1:
            self._pieces = [pa.concat_arrays(self._pieces)]
        return self._pieces[0]


class Known:
    """The answers of one function; safe to use from several threads."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._tables: dict[tuple[str, ...], _Table] = {}
        self._lock = Lock()
        self.missed = False
        """Whether an answer was looked up that is not here."""

    def add(self, rows: pa.RecordBatch, answers: pa.Array) -> None:
        """Keep the answers to rows that are distinct."""
        with self._lock:
            self._table(rows).add(rows, answers)

    def missing(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The distinct rows whose answers are not here."""
        distinct = Distinct.of(rows, rows.schema.names).rows
        with self._lock:
            places = self._table(rows).places
            return distinct.filter(pa.array([key not in places for key in _keys(distinct)], pa.bool_()))

    def find(self, rows: pa.RecordBatch) -> pa.Array:
        """The answers to rows, null where there is none."""
        with self._lock:
            table = self._table(rows)
            places, answers = table.find(rows), table.answers
        self.missed = self.missed or places.null_count > 0
        return answers.take(places)

    def _table(self, rows: pa.RecordBatch) -> _Table:
        names = tuple(rows.schema.names)
        return self._tables.get(names) or self._tables.setdefault(names, _Table(rows.schema, self._kind))


def _keys(rows: pa.RecordBatch) -> Iterator[Key]:
    """Each row as what can be looked up: 1, 1.0 and true are three values, and so are the prompts that they make."""
    columns = []
    for column in rows.columns:
        kind = column.type
        as_text = pa.types.is_temporal(kind) and not pa.types.is_interval(kind)
        values = (column.cast(pa.string()) if as_text else column).to_pylist()
        if not pa.types.is_string(column.type):
            values = [None if value is None else (repr(value),) for value in values]
        columns.append(values)
    return zip(*columns, strict=True)

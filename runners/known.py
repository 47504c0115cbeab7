"""Answers by the arguments of a call: what a rewritten query looks up."""

from collections.abc import Iterator
from threading import Lock

import pyarrow as pa

from gdo.distinct import Distinct

Key = tuple[object, ...]


class Known:
    """The answers of one function; safe to read from several threads."""

    def __init__(self, kind: pa.DataType) -> None:
        self._places: dict[tuple[str, ...], dict[Key, int]] = {}
        self._pieces = [pa.nulls(0, kind)]
        self._size = 0
        self._lock = Lock()
        self.missed = False
        """Whether an answer was looked up that is not here."""

    def add(self, rows: pa.RecordBatch, answers: pa.Array) -> None:
        """Keep the answers to rows."""
        with self._lock:
            places = self._places.setdefault(tuple(rows.schema.names), {})
            places.update((key, self._size + number) for number, key in enumerate(_keys(rows)))
            self._pieces.append(answers)
            self._size += len(answers)

    def missing(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """The distinct rows whose answers are not here."""
        distinct = Distinct.of(rows, rows.schema.names).rows
        places = self._places.get(tuple(rows.schema.names), {})
        return distinct.filter(pa.array([key not in places for key in _keys(distinct)], pa.bool_()))

    def find(self, rows: pa.RecordBatch) -> pa.Array:
        """The answers to rows, null where there is none."""
        places = self._places.get(tuple(rows.schema.names), {})
        if rows.num_columns == 1 and pa.types.is_string(rows.column(0).type):  # the same without a detour
            coded = rows.column(0).dictionary_encode(null_encoding="encode")
            found, index = [places.get((value,)) for value in coded.dictionary.to_pylist()], coded.indices
        else:
            distinct = Distinct.of(rows, rows.schema.names)
            found, index = [places.get(key) for key in _keys(distinct.rows)], distinct.index
        self.missed = self.missed or None in found
        return self._answers().take(pa.array(found, pa.int64())).take(index)

    def _answers(self) -> pa.Array:
        with self._lock:
            if len(self._pieces) > 1:
                self._pieces = [pa.concat_arrays(self._pieces)]
            return self._pieces[0]


def _keys(rows: pa.RecordBatch) -> Iterator[Key]:
    """Each row as what can be looked up: 1, 1.0 and true are three values, and so are the prompts that they make."""
    columns = []
    for column in rows.columns:
        values = (column.cast(pa.string()) if pa.types.is_temporal(column.type) else column).to_pylist()
        if not pa.types.is_string(column.type):
            values = [None if value is None else (repr(value),) for value in values]
        columns.append(values)
    return zip(*columns, strict=True)

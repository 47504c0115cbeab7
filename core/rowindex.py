"""Distinct rows of plain columns and their places, as Arrow looks them up: no row is looked at in Python."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

MOST = 8192
"""Rows that are kept: each look-up makes a hash table of them, so that many of them are no gain."""
_BITS = 13
"""Bits of a column's code: each column has no more values than there are rows."""
_COLUMNS = 4
_PLAIN = {pa.string(), pa.large_string(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.bool_(), pa.date32()}
"""Types whose equal values make equal prompts: 0.0 and -0.0 do not, and some types no hash table knows."""


@dataclass(frozen=True, slots=True)
class RowIndex:
    """Some distinct rows, numbered as they came: the values of each column, and the codes that stand together in a row."""

    schema: pa.Schema
    values: tuple[pa.Array, ...]
    codes: pa.Array

    @classmethod
    def of(cls, schema: pa.Schema) -> "RowIndex | None":
        """None of the rows of a schema yet; None where it has columns that are not plain, or too many."""
        if not 0 < len(schema) <= _COLUMNS or not _PLAIN.issuperset(schema.types):
            return None
        return cls(schema, tuple(pa.array([], kind) for kind in schema.types), pa.array([], pa.int64()))

    @property
    def size(self) -> int:
        """How many rows there are."""
        return len(self.codes)

    def find(self, rows: pa.RecordBatch) -> pa.Array:
        """The place of each row; null for one that is not here."""
        codes = _together([pc.index_in(c, value_set=v) for c, v in zip(rows.columns, self.values, strict=True)])
        return codes if len(self.values) == 1 else pc.index_in(codes, value_set=self.codes)

    def with_more(self, rows: pa.RecordBatch) -> "RowIndex | None":
        """With some more distinct rows, none of which is here; None where they are too many."""
        if self.size + rows.num_rows > MOST:
            return None
        values = tuple(
            pa.concat_arrays([known, pc.unique(column.filter(pc.is_null(pc.index_in(column, value_set=known))))])
            for known, column in zip(self.values, rows.columns, strict=True)
        )
        new = _together([pc.index_in(c, value_set=v) for c, v in zip(rows.columns, values, strict=True)])
        return RowIndex(self.schema, values, pa.concat_arrays([self.codes, new]))


def _together(codes: Sequence[pa.Array]) -> pa.Array:
    """One code for the codes of a row; null where one of them is."""
    first, *others = codes
    together = first.cast(pa.int64())
    for code in others:
        together = pc.add(pc.shift_left(together, pa.scalar(_BITS, pa.int64())), code.cast(pa.int64()))
    return together

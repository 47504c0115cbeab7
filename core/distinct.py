"""The distinct rows of some columns, and the way back: all in Arrow."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Distinct:
    """`rows`: each distinct row once, in order of first appearance. `index`: for every input row, its place in `rows`."""

    rows: pa.RecordBatch
    index: pa.Array
    whole: bool = False
    """Whether no row stands twice, so that `index` just counts."""

    @classmethod
    def of(cls, batch: pa.RecordBatch, columns: Sequence[str]) -> "Distinct":
        """Deduplicate a batch by some of its columns; with none, all rows are one.

        >>> found = Distinct.of(pa.RecordBatch.from_pydict({"a": [1, 2, 1], "b": ["x", "y", "x"]}), ["a", "b"])
        >>> found.rows.to_pydict(), found.index.to_pylist()
        ({'a': [1, 2], 'b': ['x', 'y']}, [0, 1, 0])
        """
        picked = _plain(batch.select(list(columns)))
        if batch.num_rows == 0:
            return cls(picked, pa.array([], pa.int64()))
        codes: pa.Array | None = None
        for column in picked.columns:
            code, size = _codes(column)
            if size == batch.num_rows:  # no value stands twice here, so no row does
                return cls(picked, counting(size), whole=True)
            # Recoding after each column keeps the product of two code ranges within 64 bits.
            codes = code if codes is None else _codes(pc.add(pc.multiply(codes, size), code))[0]
        if codes is None:
            codes = pa.array([0] * batch.num_rows, pa.int64())
        first = pa.table({"code": codes, "row": counting(batch.num_rows)}).group_by("code").aggregate([("row", "min")])
        places = first.sort_by("code").column("row_min").combine_chunks()
        return cls(picked.take(places), codes)

    def spread(self, values: pa.Array) -> pa.Array:
        """Values of the distinct rows, put back for every input row."""
        return values if self.whole else values.take(self.index)


def _plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Views and extension types as what lies under them: not every kernel knows them."""
    columns = []
    for column in batch.columns:
        column = column.storage if isinstance(column, pa.ExtensionArray) else column  # noqa: PLW2901
        columns.append(column.cast(pa.string()) if column.type == pa.string_view() else column)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names) if columns else batch


@lru_cache(maxsize=32)  # batches are of few sizes
def counting(size: int, start: int = 0) -> pa.Array:
    """So many numbers from a first one, made by Arrow: a Python range takes thirty times as long."""
    return pc.cumulative_sum(pa.repeat(pa.scalar(1, pa.int64()), size), start=start - 1)


def _codes(column: pa.Array) -> tuple[pa.Array, int]:
    if pa.types.is_nested(column.type):
        column = pa.array([repr(value) for value in column.to_pylist()], pa.string())
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)  # its own dictionary may hold a value twice, and nulls aside
    column = column.dictionary_encode(null_encoding="encode")
    return column.indices.cast(pa.int64()), max(len(column.dictionary), 1)

"""Places of distinct rows."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from gdo.rowindex import MOST, RowIndex

SCHEMA = pa.schema([("x", pa.string()), ("k", pa.int64()), ("b", pa.bool_())])
ROWS = st.lists(
    st.tuples(st.sampled_from(["", "a", "b", None]), st.sampled_from([-1, 0, 1, None]), st.sampled_from([True, None]))
)


def batch(rows: list[tuple[object, ...]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], SCHEMA)


@given(st.lists(ROWS, max_size=4), ROWS)
def test_each_row_has_the_place_at_which_it_came(
    drawn: list[list[tuple[object, ...]]], wanted: list[tuple[object, ...]]
) -> None:
    index, places = RowIndex.of(SCHEMA), {}
    assert index is not None
    for rows in drawn:
        new = [row for row in dict.fromkeys(rows) if row not in places]
        places |= {row: len(places) + number for number, row in enumerate(new)}
        index = index.with_more(batch(new))
        assert index is not None
        assert index.size == len(places)
    assert index.find(batch(wanted)).to_pylist() == [places.get(row) for row in wanted]


def test_too_many_rows_are_given_up() -> None:
    index = RowIndex.of(pa.schema([("k", pa.int64())]))
    assert index is not None
    whole = index.with_more(pa.RecordBatch.from_pydict({"k": list(range(MOST))}))
    assert whole is not None
    assert whole.find(pa.RecordBatch.from_pydict({"k": [MOST, MOST - 1]})).to_pylist() == [None, MOST - 1]
    assert whole.with_more(pa.RecordBatch.from_pydict({"k": [MOST]})) is None


def test_columns_whose_equal_values_make_other_prompts_are_refused() -> None:
    for kind in (pa.float64(), pa.list_(pa.string()), pa.timestamp("us")):
        assert RowIndex.of(pa.schema([("x", kind)])) is None
    assert RowIndex.of(pa.schema([])) is None

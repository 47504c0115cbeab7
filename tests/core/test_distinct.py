import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.distinct import Distinct

CELLS = {
    pa.int64(): st.integers(-2, 2) | st.integers(-(2**63), 2**63 - 1),
    pa.string(): st.sampled_from(["", "a", "b", "None", "0"]),
    pa.large_string(): st.sampled_from(["x", "y"]),
    pa.float64(): st.sampled_from([0.5, 1.0, -1.0]),
    pa.bool_(): st.booleans(),
    pa.date32(): st.dates(),
    pa.binary(): st.binary(max_size=1),
    pa.list_(pa.string()): st.lists(st.sampled_from(["a", "b"]), max_size=2),
    pa.struct([("k", pa.int64())]): st.fixed_dictionaries({"k": st.integers(0, 1) | st.none()}),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from(["x", "y", "z"]),
    pa.null(): st.none(),
}


@st.composite
def batches(draw):
    size = draw(st.integers(0, 12))
    kinds = draw(st.lists(st.sampled_from(list(CELLS)), min_size=1, max_size=5))
    columns = [pa.array(draw(st.lists(CELLS[kind] | st.none(), min_size=size, max_size=size)), kind) for kind in kinds]
    return pa.RecordBatch.from_arrays(columns, [f"c{i}" for i in range(len(columns))])


def tuples(batch):
    return [repr(row) for row in batch.to_pylist()]


@given(batches())
def test_spread_gives_the_rows_back(batch):
    found = Distinct.of(batch, batch.schema.names)
    rows = tuples(found.rows)
    assert [rows[place] for place in found.index.to_pylist()] == tuples(batch)


@given(batches())
def test_each_distinct_row_stands_once_in_order_of_appearance(batch):
    assert tuples(Distinct.of(batch, batch.schema.names).rows) == list(dict.fromkeys(tuples(batch)))


@given(batches())
def test_values_of_distinct_rows_come_back_to_every_row(batch):
    found = Distinct.of(batch, batch.schema.names[:1])
    spread = found.spread(pa.array(range(found.rows.num_rows), pa.int64()))
    assert spread.equals(found.index)
    assert not spread.null_count


def test_without_columns_all_rows_are_one():
    found = Distinct.of(pa.RecordBatch.from_pydict({"a": [1, 2, 3]}), [])
    assert found.index.to_pylist() == [0, 0, 0]


def test_an_empty_batch_has_no_distinct_rows():
    found = Distinct.of(pa.RecordBatch.from_pydict({"a": pa.array([], pa.string())}), ["a"])
    assert (found.rows.num_rows, len(found.index)) == (0, 0)


def test_null_is_a_value_of_its_own():
    found = Distinct.of(pa.RecordBatch.from_pydict({"a": [None, "", None, "None"]}), ["a"])
    assert found.index.to_pylist() == [0, 1, 0, 2]


def test_a_null_in_a_dictionary_column_does_not_merge_other_columns():
    words = pa.array([None, None, "x"]).dictionary_encode()
    found = Distinct.of(pa.RecordBatch.from_pydict({"a": [1, 2, 3], "b": words}), ["a", "b"])
    assert found.index.to_pylist() == [0, 1, 2]


def test_not_a_number_equals_itself():
    found = Distinct.of(pa.RecordBatch.from_pydict({"a": [math.nan, 1.0, math.nan]}), ["a"])
    assert found.index.to_pylist() == [0, 1, 0]


def test_forty_columns_of_many_values_fit_in_a_code():
    size = 3000
    columns = {f"c{i}": [(row * (i + 7)) % size for row in range(size)] for i in range(40)}
    batch = pa.RecordBatch.from_pydict(columns)
    doubled = pa.Table.from_batches([batch, batch]).combine_chunks().to_batches()[0]
    found = Distinct.of(doubled, batch.schema.names)
    assert found.rows.num_rows == size
    assert found.index.to_pylist() == [*range(size), *range(size)]


def test_a_slice_is_seen_as_a_slice():
    batch = pa.RecordBatch.from_pydict({"a": ["x", "y", "x", "z"], "b": [[1], [2], [1], None]}).slice(1, 3)
    found = Distinct.of(batch, ["a", "b"])
    assert found.rows.to_pylist() == batch.to_pylist()


@pytest.mark.parametrize("kind", [pa.string_view(), pa.uuid()])
def test_a_column_of_an_odd_type_can_be_read_by_a_prompt(kind):
    value = b"0" * 16 if kind == pa.uuid() else "a"
    batch = pa.RecordBatch.from_arrays([pa.array([value, value, None], kind)], ["a"])
    assert Distinct.of(batch, ["a"]).index.to_pylist() == [0, 0, 1]

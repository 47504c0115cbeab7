"""What open values are like beside the others of their row."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from gdo.voting.traits import NOTHING, traits_of


def test_length_likeness_and_nesting_are_told():
    columns = [pa.array(["dark red", NOTHING]), pa.array(["red", "red"]), pa.array([None, "blue"], pa.string())]
    first, second, third = traits_of(columns)
    assert first.length.to_pylist() == [8, 0]
    assert first.nested.to_pylist() == [2, 0], "'red' stands within 'dark red'; nothing is within 'no value'"
    assert second.nested.to_pylist() == [1, 0]
    assert first.alike.to_pylist()[0] == round(1000 * (1 + 2 / 3) / 2)
    assert third.length.to_pylist() == [None, 4]


@given(st.lists(st.tuples(*[st.sampled_from(["a", "a b", "b", NOTHING, None])] * 3), min_size=1, max_size=20))
def test_rows_are_looked_at_one_by_one(rows):
    whole = traits_of([pa.array(column, pa.string()) for column in zip(*rows, strict=True)])
    for i, row in enumerate(rows):
        alone = traits_of([pa.array([text], pa.string()) for text in row])
        assert [[part[i].as_py() for part in own] for own in whole] == [
            [part[0].as_py() for part in own] for own in alone
        ]


def test_no_rows_have_no_traits():
    assert [len(own.length) for own in traits_of([pa.array([], pa.string())] * 2)] == [0, 0]

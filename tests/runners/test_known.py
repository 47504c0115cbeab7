"""Answers by the arguments of a call."""

import pyarrow as pa

from gdo.runners.known import Known


def rows(**columns: object) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def test_what_was_added_is_found_and_the_rest_is_null() -> None:
    known = Known(pa.int64())
    known.add(rows(a=["x", None]), pa.array([1, 2]))
    known.add(rows(a=["y"]), pa.array([3]))
    assert known.find(rows(a=["y", "x", "y", "new", None])).to_pylist() == [3, 1, 3, None, 2]
    assert known.missing(rows(a=["y", "new", "new"])).to_pydict() == {"a": ["new"]}


def test_one_and_one_point_nought_and_true_are_three_values() -> None:
    known = Known(pa.string())
    known.add(rows(a=[1]), pa.array(["one"]))
    assert known.find(rows(a=[1.0])).to_pylist() == [None]
    assert known.find(rows(a=[True])).to_pylist() == [None]
    assert known.find(rows(a=["1"])).to_pylist() == [None]
    known.add(rows(a=[1.0]), pa.array(["float"]))
    assert known.find(rows(a=[1])).to_pylist() == ["one"]
    assert known.find(rows(a=[1.0])).to_pylist() == ["float"]


def test_rows_of_several_columns_and_of_lists_are_told_apart() -> None:
    known = Known(pa.string())
    known.add(rows(a=["x", "x", None], b=[[1, None], [], None]), pa.array(["p", "q", "r"]))
    assert known.find(rows(a=["x", "x", None, "x"], b=[[], [1, None], None, None])).to_pylist() == ["q", "p", "r", None]


def test_the_same_values_under_other_names_are_not_known() -> None:
    known = Known(pa.string())
    known.add(rows(a=["x"]), pa.array(["p"]))
    assert known.find(rows(b=["x"])).to_pylist() == [None]

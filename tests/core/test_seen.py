import threading

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.answers import Outcome, answers
from gdo.distinct import Distinct
from gdo.ledger import Failure
from gdo.rowindex import MOST
from gdo.schema import Field, Record, Scalar
from gdo.seen import Seen

OUTPUT = Record((Field("a", Scalar("string")), Field("n", Scalar("integer"))))
COLUMNS = pa.schema([("x", pa.string()), ("k", pa.int64())])
LOST = Failure("invalid", "no")


def outcome(row):
    """What a row is answered: by its values alone, as prompts are."""
    x, k = row.get("x"), row.get("k")
    if x == "lost":
        return Outcome(failure=LOST)
    if x is None and k is None:
        return Outcome()
    return Outcome({"a": repr((x, k)), "n": k}, None, (k or 0) / 8)


def asked(seen, batch):
    """As an ask does it: what is not known is answered, and kept."""

    def fresh(part):
        distinct = Distinct.of(part, part.schema.names)
        outcomes = [outcome(row) for row in distinct.rows.to_pylist()]
        told = answers(OUTPUT, outcomes)
        seen.keep(distinct.rows, told)
        return told.moved(distinct.spread)

    found = seen.find(batch)
    if found is None:
        return fresh(batch)
    return found.together() if found.missing is None else found.together(fresh(batch.filter(found.missing)))


CELLS = st.tuples(st.sampled_from(["", "a", "b", "lost"]) | st.none(), st.integers(-1, 2) | st.none())
BATCHES = st.lists(st.lists(CELLS, min_size=1, max_size=9), min_size=1, max_size=5)


@given(BATCHES, st.sampled_from([["x", "k"], ["k", "x"], ["x"], ["k"]]))
def test_what_was_seen_is_answered_as_if_it_were_asked_again(drawn, columns):
    seen = Seen(pa.schema([COLUMNS.field(name) for name in columns]), OUTPUT)
    for rows in drawn:
        whole = pa.RecordBatch.from_pylist([{"x": x, "k": k} for x, k in rows], COLUMNS)
        batch = whole.select(columns)
        got = asked(seen, batch)
        wanted = [outcome(row) for row in batch.to_pylist()]
        assert got.record.to_pylist() == [one.values for one in wanted]
        assert got.failed.to_pylist() == [one.failure is not None for one in wanted]
        assert got.confidence.to_pylist() == [one.confidence for one in wanted]


def numbers(first, count):
    return pa.RecordBatch.from_pydict({"k": pa.array(range(first, first + count), pa.int64())})


def keep(seen, first, count):
    seen.keep(numbers(first, count), answers(OUTPUT, [Outcome({"a": "x", "n": i}) for i in range(first, first + count)]))


def test_a_row_that_failed_is_not_remembered():
    seen = Seen(pa.schema([("k", pa.int64())]), OUTPUT)
    seen.keep(numbers(0, 2), answers(OUTPUT, [Outcome({"a": "x", "n": 0}), Outcome(failure=LOST)]))
    found = seen.find(numbers(0, 2))
    assert found is not None
    assert found.missing.to_pylist() == [False, True]


def test_a_table_of_distinct_rows_is_given_up():
    seen = Seen(pa.schema([("k", pa.int64())]), OUTPUT)
    keep(seen, 0, MOST)
    assert seen.find(numbers(0, 3)) is not None
    keep(seen, MOST, 1)
    assert seen.find(numbers(0, 3)) is None
    keep(seen, 0, 1)
    assert seen.find(numbers(0, 1)) is None


@pytest.mark.parametrize(
    "kind", [pa.float64(), pa.list_(pa.string()), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_a_type_whose_equal_values_may_make_other_prompts_is_left_alone(kind):
    seen = Seen(pa.schema([("k", kind)]), OUTPUT)
    rows = pa.RecordBatch.from_arrays([pa.nulls(1, kind)], ["k"])
    seen.keep(rows, answers(OUTPUT, [Outcome()]))
    assert seen.find(rows) is None


def test_rows_may_be_kept_from_several_threads():
    seen = Seen(pa.schema([("k", pa.int64())]), OUTPUT)
    threads = [threading.Thread(target=lambda: [keep(seen, i, 8) for i in range(0, 400, 4)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = seen.find(numbers(0, 404))
    assert found is not None
    assert found.together().column("n").to_pylist() == list(range(404))

"""`op: vote`: columns of answers into one."""

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import gdo
from gdo.errors import Faults

LABELS = ["good", "bad"]


def vote(tmp_path, table, **keys):
    pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
    step = {"op": "vote", "columns": {name: name for name in ("a", "b", "c")}, "into": "x", **keys}
    spec = {"source": {"path": "in.parquet"}, "steps": [step], "sink": {"path": "out.parquet"}}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return gdo.run(tmp_path / "p.yaml")


def votes(**columns):
    return pa.table({"id": range(len(columns["a"])), **columns})


def column(run, name="x"):
    return run.table().column(name).to_pylist()


def test_labels_are_forgiven_their_case_and_words_outside_the_set_have_no_vote(tmp_path):
    table = votes(a=["Good", "bad", "who knows", None], b=["good.", "BAD", "bad", None], c=["bad", "bad", None, None])
    run = vote(tmp_path, table, labels=LABELS)
    assert column(run) == ["good", "bad", "bad", None]
    assert run.errors().num_rows == 0


def test_open_values_are_compared_in_one_spelling_and_given_as_they_were_written(tmp_path):
    table = votes(a=["0.5 L", "Nike"], b=["500 ml", "nike "], c=["1 L", "Puma"])
    assert column(vote(tmp_path, table, normalize=["case", "spaces", "units"])) == ["0.5 L", "Nike"]
    assert column(vote(tmp_path, table, normalize=[{"sql": "left(value, 1)"}]))[0] == "0.5 L"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (([1, 2], [1, 3], [4, 3]), [1, 3]),
        (([1.5, None], [1.5, 2.0], [0.0, 2.0]), [1.5, 2.0]),
        (([True, False], [True, None], [False, False]), [True, False]),
        (([["x", "y"], []], [["y", "x"], []], [["z"], ["q"]]), [["x", "y"], []]),
        (([1, 2], [1.0, 3.0], [4.0, 3.0]), [1.0, 3.0]),
    ],
)
def test_votes_of_any_type_keep_it(tmp_path, values, wanted):
    table = votes(**{name: pa.array(own) for name, own in zip("abc", values, strict=True)})
    assert column(vote(tmp_path, table)) == wanted


def test_null_may_be_an_answer(tmp_path):
    table = votes(a=pa.array([None, "x"], pa.string()), b=pa.array([None, None], pa.string()), c=["y", "x"])
    assert column(vote(tmp_path, table, weights="majority")) == ["y", "x"]
    assert column(vote(tmp_path, table, weights="majority", nulls="answer")) == [None, "x"]


def test_no_votes_at_all_lose_no_row_and_are_warned_of(tmp_path):
    run = vote(tmp_path, votes(**{name: pa.nulls(3, pa.string()) for name in "abc"}), labels=LABELS)
    assert column(run) == [None] * 3
    assert any("no voter answered any row" in line for line in run.ledger.learned["vote"])


def test_an_empty_table_stays_one(tmp_path):
    assert column(vote(tmp_path, votes(**{name: pa.array([], pa.string()) for name in "abc"}), labels=LABELS)) == []


def test_labels_that_are_numbers_are_words(tmp_path):
    table = votes(a=[1, 2], b=[1, 2], c=[2, 1])
    assert column(vote(tmp_path, table, labels=[1, 2])) == ["1", "2"]


row = st.tuples(*[st.sampled_from(["good", "bad", None])] * 3)


@settings(max_examples=15, deadline=None)
@given(st.lists(row, min_size=1, max_size=30), st.sampled_from(["majority", "iwmv", "log_odds", "dawid_skene"]))
def test_rows_in_are_rows_out_and_a_unanimous_row_is_what_all_say(tmp_path_factory, rows, weights):
    columns = {name: pa.array(own, pa.string()) for name, own in zip("abc", zip(*rows, strict=True), strict=True)}
    found = column(vote(tmp_path_factory.mktemp("vote"), votes(**columns), labels=LABELS, weights="majority"))
    assert len(found) == len(rows)
    for own, said in zip(rows, found, strict=True):
        if set(own) <= {said, None} or not any(own):
            assert said == next((word for word in own if word), None)
    decided = column(vote(tmp_path_factory.mktemp("vote"), votes(**columns), labels=LABELS, weights=weights))
    assert [word is None for word in decided] == [not any(own) for own in rows]


@pytest.mark.parametrize(
    ("keys", "phrases"),
    [
        ({"columns": {"a": "aa", "b": "b"}}, ["no column 'aa'"]),
        ({"columns": {}}, ["'columns' must not be empty"]),
        ({"columns": {"p": "a", "q": "a"}}, ["the column 'a' votes twice"]),
        ({"keep_votes": True}, ["are columns already"]),
        (
            {"columns": {"a": "a", "y": "yes"}, "labels": ["yes", "no"]},
            ["'yes' is boolean, and no label is true or false"],
        ),
        ({"labels": [["x"]]}, ["labels"]),
        ({"columns": {"a": "a", "n": "id"}}, ["different types", "'a' is string", "'id' is int64"]),
        ({"gold": {"path": "in.parquet", "key": "idd", "column": "a"}}, ["no column 'idd'"]),
        ({"weights": "stack", "gold": {"path": "in.parquet"}}, ["'key' is missing"]),
    ],
)
def test_what_is_wrong_is_told_with_its_place(tmp_path, keys, phrases):
    with pytest.raises(Faults) as raised:
        vote(tmp_path, votes(a=["x"], b=["y"], c=["z"], yes=[True]), **keys)
    text = str(raised.value)
    assert ".yaml:" in text
    for phrase in phrases:
        assert phrase in text

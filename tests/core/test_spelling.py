"""When two open values are one."""

import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.spelling import Speller, as_text, by_sql


def spelt(words, *texts):
    return Speller(tuple(words)).texts(pa.array(texts, pa.string()), None).to_pylist()


def test_case_and_spaces_are_forgiven():
    assert spelt(["case", "spaces"], "  Dark  RED ", None, "STRASSE", "straße") == [
        "dark red",
        None,
        "strasse",
        "strasse",
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.5 L", "500ml"),
        ("1,5 kg", "1500 g"),
        ("12 oz", "340.19427750 g"),
        ("6 in", "152.4 mm"),
        ("2 TB", "2000 GB"),
        ("5'", "5'"),
    ],
)
def test_amounts_in_other_units_are_the_same(one, other):
    assert len(set(spelt(["case", "spaces", "units"], one, other))) == 1


@pytest.mark.parametrize("text", ["iphone 5s", "model 10-4", "no. 7", "v2", "100% cotton", "3.5.1"])
def test_what_is_no_amount_stays(text):
    assert spelt(["units"], text) == [text]


def test_punctuation_goes_but_not_out_of_numbers():
    assert spelt(["punctuation", "spaces"], "T-Shirt, (red).", "1.5") == ["T Shirt red", "1.5"]


@given(st.lists(st.one_of(st.none(), st.text(max_size=12)), max_size=12))
def test_a_spelling_spelt_again_stays(texts):
    words = ["case", "spaces", "punctuation"]
    once = spelt(words, *texts)
    assert spelt(words, *once) == once


def test_a_sql_expression_spells_and_where_it_gives_null_the_text_stays():
    texts = pa.array(["red-1", "blue", None], pa.string())
    assert by_sql("nullif(regexp_replace(value, '-.*', ''), 'blue')", texts).to_pylist() == ["red", "blue", None]


def test_values_of_any_type_are_texts_that_are_equal_where_they_are():
    assert as_text(pa.array([1, 10**15, None])).to_pylist() == ["1", "1000000000000000", None]
    assert as_text(pa.array([0.1 + 0.2, 0.3, 5.0])).to_pylist() == ["0.3", "0.3", "5"]
    assert as_text(pa.array([["b", "a"], ["a", "b"], None])).to_pylist() == ['["a", "b"]', '["a", "b"]', None]
    assert as_text(pa.array([{"x": 1, "d": dt.date(2024, 5, 1)}])).to_pylist() == ['{"d": "2024-05-01", "x": 1}']
    assert as_text(pa.array([True, False])).to_pylist() == ["true", "false"]

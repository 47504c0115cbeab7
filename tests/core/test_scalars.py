# ruff: noqa: PT017, DTZ001 (either outcome is right; timestamps here have no zone)
import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.scalars import ARROW, CHECKS, AnswerFault, fold, show

WHOLE = st.integers(-(2**63), 2**63 - 1)
VALUES = {
    "string": st.text(alphabet=st.characters(codec="utf-8")).map(str.strip),
    "integer": WHOLE,
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "date": st.dates(),
    "timestamp": st.datetimes(),
}


@pytest.mark.parametrize("word", VALUES)
@given(draw=st.data())
def test_a_value_of_its_type_is_itself(word, draw):
    value = draw.draw(VALUES[word])
    written = value.isoformat() if isinstance(value, dt.date) else value
    assert CHECKS[word](written) == value


@pytest.mark.parametrize("word", ["integer", "number", "boolean", "date", "timestamp"])
@given(draw=st.data())
def test_a_value_written_as_text_loses_nothing(word, draw):
    value = draw.draw(VALUES[word])
    text = value.isoformat() if isinstance(value, dt.date) else str(value)
    assert CHECKS[word](f" {text} ") == value


@pytest.mark.parametrize("word", CHECKS)
@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=3,
    )
)
def test_whatever_comes_is_checked_or_an_answer_fault(word, value):
    try:
        CHECKS[word](value)
    except AnswerFault as fault:
        assert str(fault)


@pytest.mark.parametrize(
    ("word", "given_", "value"),
    [
        ("integer", "12", 12),
        ("integer", 12.0, 12),
        ("integer", "12.0", 12),
        ("number", "1,5", 1.5),
        ("number", "\u22123", -3.0),
        ("number", 3, 3.0),
        ("boolean", "Yes.", True),
        ("boolean", "FALSE", False),
        ("string", 5, "5"),
        ("string", " a ", "a"),
        ("date", "2024-12-31", dt.date(2024, 12, 31)),
        ("timestamp", "2024-12-31T01:00:00+01:00", dt.datetime(2024, 12, 31)),
        ("timestamp", "2024-12-31", dt.datetime(2024, 12, 31)),
        ("timestamp", "2024-12-31T00:00:00Z", dt.datetime(2024, 12, 31)),
    ],
)
def test_a_near_miss_that_loses_nothing_is_mended(word, given_, value):
    found = CHECKS[word](given_)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("word", "given_"),
    [
        ("integer", 1.5),
        ("integer", True),
        ("integer", "many"),
        ("integer", 2**63),
        ("integer", None),
        ("integer", "1,5"),
        ("number", "1,234"),
        ("number", "nan"),
        ("number", math.inf),
        ("number", "inf"),
        ("number", False),
        ("number", "12 kg"),
        ("boolean", 1),
        ("boolean", "maybe"),
        ("boolean", None),
        ("string", True),
        ("string", None),
        ("string", ["a"]),
        ("date", "31.12.2024"),
        ("date", "2024-02-30"),
        ("date", 20241231),
        ("date", ""),
        ("timestamp", "noon"),
        ("timestamp", 0),
        ("number", 10**400),
    ],
)
def test_what_would_lose_something_is_a_fault(word, given_):
    with pytest.raises(AnswerFault):
        CHECKS[word](given_)


@pytest.mark.parametrize("text", ["2024-01-02 or 2025-03-04", "2024-01-02garbage", "2024-01-02 (?)"])
def test_a_date_with_more_behind_it_is_a_fault(text):
    with pytest.raises(AnswerFault, match="is not a date"):
        CHECKS["date"](text)


@pytest.mark.parametrize("text", ["1" * 5000, "-" + "9" * 10_000])
def test_a_number_of_thousands_of_digits_is_a_fault(text):
    with pytest.raises(AnswerFault):
        CHECKS["integer"](text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_moment_outside_the_calendar_is_a_fault(text):
    with pytest.raises(AnswerFault):
        CHECKS["timestamp"](text)


def test_every_word_has_an_arrow_type():
    assert ARROW.keys() == CHECKS.keys()


@given(st.text(max_size=20))
def test_a_folded_word_is_folded(text):
    assert fold(fold(text)) == fold(text) or text.strip() != text or "'" in text


@given(st.text(max_size=500))
def test_a_value_in_a_message_is_one_short_line(text):
    assert len(show(text)) <= 80
    assert "\n" not in show(text)

"""Accuracy, F1 and their intervals."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.measure import Outcome, macro_f1, measured


def of(said, right):
    return Outcome(said, right, said == right)


pairs = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(["a", "b", None])), min_size=1, max_size=40
)


def test_a_wrong_value_counts_twice_and_a_right_no_value_not_at_all():
    rows = [of("a", "a"), of("b", "a"), of(None, "a"), of("a", None), of(None, None)]
    found = measured({"ours": rows}, "ours")["ours"][0]
    assert found.accuracy == pytest.approx(2 / 5)
    assert found.f1 == pytest.approx(2 * 1 / (3 + 3))


@given(pairs)
def test_an_f1_lies_within_its_interval_and_all_within_0_and_1(given_rows):
    found = measured({"ours": [of(*pair) for pair in given_rows]}, "ours")["ours"][0]
    assert 0 <= found.low <= found.high <= 1
    assert 0 <= found.f1 <= 1
    assert found.low - 0.35 <= found.f1 <= found.high + 0.35


@given(pairs)
def test_where_every_row_has_a_value_f1_is_accuracy(given_rows):
    rows = [of(said or "a", right or "b") for said, right in given_rows]
    found = measured({"ours": rows}, "ours")["ours"][0]
    assert found.f1 == pytest.approx(found.accuracy)


def test_a_gain_is_reckoned_row_against_row():
    ours = [of("a", "a")] * 80 + [of("b", "a")] * 20
    theirs = [of("a", "a")] * 60 + [of("b", "a")] * 40
    found = measured({"ours": ours, "theirs": theirs}, "ours")
    assert found["ours"][1] is None
    gain, low, high = found["theirs"][1]
    assert gain == pytest.approx(0.2)
    assert 0.1 < low < 0.2 < high < 0.3
    same = measured({"ours": ours, "theirs": ours}, "ours")["theirs"][1]
    assert same == (0.0, 0.0, 0.0)


def test_macro_f1_is_the_mean_over_labels():
    rows = [of("a", "a")] * 8 + [of("a", "b")] * 2 + [of("b", "b")] * 2
    assert macro_f1(rows) == pytest.approx((16 / 18 + 4 / 6) / 2)
    assert macro_f1([of(str(i), str(i)) for i in range(30)]) is None, "open values have no classes"

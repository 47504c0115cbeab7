"""What is told of voters: accuracy, missing votes, agreement, warnings."""

from typing import get_args

import pytest

from gdo.voting.fit import fit
from gdo.voting.rules import Method

LABELS = "ab"


def told(state):
    return "\n".join(state.told())


def warnings(votes, rows, labels=LABELS):
    return fit({"x": votes(rows, labels)}, "iwmv").contests["x"].warnings


def test_accuracy_is_against_gold_rows_where_there_are_some(votes):
    rows = [["a", "b", "a"]] * 6 + [["b", "b", "a"]] * 4
    known = fit({"x": votes(rows, LABELS, ["a"] * 5 + [None] * 5)}, "iwmv").contests["x"]
    assert known.by_gold
    assert [own.accuracy for own in known.voters.values()] == [1.0, 0.0, 1.0]
    unknown = fit({"x": votes(rows, LABELS)}, "majority").contests["x"]
    assert not unknown.by_gold
    assert [own.accuracy for own in unknown.voters.values()] == [1.0, 0.4, 0.6]


def test_missing_votes_are_shares_of_the_rows_that_anybody_voted_on(votes):
    facts = fit({"x": votes([["a", None], ["a", "a"], [None, None]], LABELS)}, "majority").contests["x"].voters
    assert [own.missing for own in facts.values()] == [0.0, 0.5]


def test_few_voters_silent_ones_and_stuck_ones_are_warned_of(votes):
    assert "only 2 voters answer" in warnings(votes, [["a", "b"], ["b", "a"]])[0]
    assert warnings(votes, [["a"], ["b"]]) == ("only one voter: its word is the answer",)
    silent = warnings(votes, [["a", "b", None, "a"], ["b", "b", None, "a"]])
    assert "'m2' never answers" in silent
    assert "'m3' always says the same" in silent
    assert warnings(votes, [[None, None]]) == ("no voter answered any row",)


def test_two_voices_that_are_one_are_warned_of_and_agreement_on_easy_rows_is_not(votes):
    rows = [["a", "a", "b"], ["b", "b", "a"], ["a", "a", "a"], ["b", "b", "b"]] * 5
    assert any("'m0' and 'm1' say the same" in warning for warning in warnings(votes, rows))
    easy = [["a", "a", "a"], ["b", "b", "b"]] * 10
    assert not any("say the same in" in warning for warning in warnings(votes, easy))


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("rows", [[[None, None, None]], [["a", "a", "a"]], [["zebra", None, None]]])
def test_every_way_bears_any_votes(votes, method, rows):
    rows = [*rows, ["a", "b", "a"]]
    gold = [None] * (len(rows) - 1) + ["a" if method in {"confusion", "stack"} else None]
    assert told(fit({"x": votes(rows, LABELS, gold)}, method))


@pytest.mark.parametrize("method", ["confusion", "stack"])
def test_what_learns_from_gold_rows_says_so_where_there_is_none(votes, method):
    with pytest.raises(ValueError, match="learns from gold rows, and there is none"):
        fit({"x": votes([["a", "b"]], LABELS)}, method)

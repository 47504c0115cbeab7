"""Weights of voters: the facts that the papers state, and what must not change them."""

import math
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.voting.score import Packed
from gdo.voting.votes import Votes, from_summary, summarise, votes_of
from gdo.voting.weighted import decide, iwmv, log_odds, majority

LABELS = ("a", "b", "c")


def closed(rows, labels=LABELS, gold=None):
    """Votes of rows (a word or None a voter) on closed labels."""
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    voters = tuple(f"m{i}" for i in range(len(columns)))
    right = None if gold is None else pa.array(gold, pa.string())
    known = None if right is None else pc.is_valid(right)
    return votes_of(columns, [pc.is_valid(c) for c in columns], voters, labels, gold=right, known=known)


def opened(rows):
    return closed(rows, None)


def won(votes, weights):
    return decide(votes, weights).code.to_pylist()


rows_of_votes = st.integers(1, 5).flatmap(
    lambda voters: st.lists(st.tuples(*[st.sampled_from([*LABELS, None])] * voters), min_size=1, max_size=30)
)


def counted(row, weights, labels):
    """The class of the greatest weight as the formula says it, and whether it is the only one."""
    scores = [sum(w for said, w in zip(row, weights, strict=True) if said == label) for label in labels]
    best = max(scores)
    return scores.index(best), sum(abs(score - best) < 1e-6 for score in scores) == 1


@given(rows_of_votes, st.lists(st.floats(-2, 5), min_size=5, max_size=5))
def test_the_class_of_the_greatest_weight_wins(rows, weights):
    weights = weights[: len(rows[0])]
    for row, code in zip(rows, won(closed(rows), weights), strict=True):
        expected, alone = counted(row, weights, LABELS)
        assert (code is None) == (not any(row))
        if any(row) and alone:
            assert code == expected


@given(rows_of_votes)
def test_the_first_round_is_the_majority_vote(rows):
    votes = closed(rows)
    first = decide(votes, [1.0] * len(votes.voters)).code
    assert iwmv(votes, rounds=1).accuracies == majority(votes).accuracies
    assert first.equals(decide(votes, majority(votes).weights).code)


@given(rows_of_votes)
def test_weights_are_what_the_formula_makes_of_the_agreement(rows):
    votes = closed(rows)
    found = iwmv(votes, rounds=1)
    if any(a is not None and 3 * a - 1 for a in found.accuracies):
        assert found.weights == tuple(0.0 if a is None else 3 * a - 1 for a in found.accuracies)


def test_a_voter_at_chance_weighs_nothing_and_one_below_it_counts_against_its_word():
    rows = [("a", "a", "a", "b"), ("b", "b", "b", "c"), ("c", "c", "c", "c"), ("a", "a", "a", "c")]
    rows += [("a", "a", "a", "b"), ("b", "b", "b", "a")]
    weights = iwmv(closed(rows)).weights
    assert weights[:3] == (2.0, 2.0, 2.0)
    assert weights[3] == pytest.approx(3 / 6 - 1)
    assert iwmv(closed(rows), clip_negative=True).weights[3] == 0.0


def test_log_odds_reckon_with_all_the_wrong_answers():
    rows = [("a", "a", "a"), ("b", "b", "b"), ("c", "c", "a"), ("a", "a", "b")]
    weights = log_odds(closed(rows)).weights
    assert weights[2] == pytest.approx(math.log(2 * 0.5 / 0.5))
    assert weights[0] == pytest.approx(math.log(2 * 0.999 / 0.001)), "an accuracy of 1 is drawn in a little"


def test_a_tie_goes_to_the_heaviest_voter_then_to_the_first_label():
    votes = closed([("b", "a", "a")])
    assert won(votes, [2.0, 1.0, 1.0]) == [1]
    assert won(closed([("c", "b")]), [1.0, 1.0]) == [1]
    assert won(opened([("y", "x")]), [1.0, 1.0]) == [0], "of open values to the first voter's"


def test_no_votes_give_no_answer_and_a_label_outside_the_set_is_no_vote():
    assert won(closed([(None, None), ("zebra", "b"), ("zebra", None)]), [3.0, 1.0]) == [None, 1, None]


def test_a_voter_that_never_answers_weighs_nothing():
    found = iwmv(closed([("a", "a", None), ("b", "b", None)]))
    assert (found.weights[2], found.accuracies[2]) == (0.0, None)


@given(rows_of_votes, st.randoms())
def test_the_order_of_rows_changes_nothing(rows, random):
    shuffled = random.sample(rows, len(rows))
    assert iwmv(closed(rows)).accuracies == pytest.approx(iwmv(closed(shuffled)).accuracies)


@given(rows_of_votes, st.integers(0, 30))
def test_summaries_of_parts_are_a_summary_of_the_whole(rows, cut):
    whole = closed(rows)
    parts = [summarise(closed(part)) for part in (rows[:cut], rows[cut:]) if part]
    again = from_summary(pa.concat_tables(parts), whole.voters, LABELS)
    assert sum(again.count.to_pylist()) == len(rows)
    assert iwmv(again) == iwmv(from_summary(summarise(whole), whole.voters, LABELS))
    assert iwmv(again).accuracies == pytest.approx(iwmv(whole).accuracies)


@given(rows_of_votes)
def test_open_values_are_told_apart_by_who_agrees_with_whom(rows):
    votes = opened(rows)
    for i, row in enumerate(rows):
        codes = [code[i].as_py() for code in votes.codes]
        assert codes == [None if said is None else row.index(said) for said in row]


def test_no_value_is_an_answer_where_the_voter_voted():
    values = [pa.array([None, "x"]), pa.array([None, None], pa.string()), pa.array(["y", "x"])]
    yes = pa.array([True, True])
    votes = votes_of(values, [yes, yes, yes], ("p", "q", "r"), None)
    assert [code.to_pylist() for code in votes.codes] == [[0, 0], [0, 1], [2, 0]]
    assert votes.nothing.to_pylist() == [0, 1]
    assert won(votes, [1.0, 1.0, 1.0]) == [0, 0]


def test_gold_is_the_code_of_who_said_it():
    values = [pa.array(["red", "blue", None]), pa.array(["navy", "blue", None])]
    gold = pa.array([["navy", "dark blue"], ["green"], []], pa.list_(pa.string()))
    yes = pa.array([True, True, True])
    votes = votes_of(values, [yes, yes], ("p", "q"), None, gold=gold, known=yes)
    assert votes.gold.to_pylist() == [1, -1, 0]


@given(rows_of_votes)
def test_packed_sums_are_the_sums_voter_by_voter(rows):
    votes: Votes = closed(rows)
    weights = [float(i + 1) for i in range(len(votes.voters))]
    lookup = [[[w if a == k else 0.0 for a in range(4)] for k in range(4)] for w in weights]
    for k, found in enumerate(Packed(votes).sums(lookup, pa.float64())):
        own = [
            pc.multiply(pc.cast(pc.fill_null(pc.equal(c, k), False), pa.float64()), w)
            for c, w in zip(votes.codes, weights, strict=True)
        ]
        assert found.equals(reduce(pc.add, own))

"""What is best on gold rows is taken, and the best single voter when nothing leads it."""

import random

import pyarrow.compute as pc
import pytest

from gdo.voting.auto import choose
from gdo.voting.fit import combine, fit

LABELS = "abcd"


def strong_and_weak(rows, seed, weak=4):
    """One voter that is right in nine of ten rows, and some that guess the same way."""
    draw = random.Random(seed)
    said, right = [], []
    for _ in range(rows):
        truth, rumour = draw.choice(LABELS), draw.choice(LABELS)
        said.append([truth if draw.random() < 0.9 else draw.choice(LABELS), *([rumour] * weak)])
        right.append(truth)
    return said, right


def share(votes, code):
    return pc.mean(pc.cast(pc.fill_null(pc.equal(code, votes.gold), False), "float64")).as_py()


@pytest.mark.parametrize("seed", range(5))
def test_a_strong_voter_among_weak_ones_is_not_outvoted(votes, seed):
    said, right = strong_and_weak(60, seed)
    state = fit({"x": votes(said, LABELS, right)}, "auto")
    more, truth = strong_and_weak(500, seed + 50)
    held = votes(more, LABELS, truth)
    assert share(held, combine(state, "x", held).code) >= share(held, held.codes[0]) - 0.01
    assert share(held, combine(fit({"x": held}, "majority"), "x", held).code) < 0.5


def test_what_is_taken_and_why_is_told(votes, followers):
    said, right = followers(200, 5)
    gold = {"x": votes(said, LABELS, right)}
    method, why = choose(gold, {"x": gold["x"].with_gold()})
    assert method in {"stack", "single", "confusion"}
    assert "200 gold rows" in why
    assert "m5" in why, "the best single voter is named"


def test_few_gold_rows_compare_nothing(votes):
    gold = {"x": votes([["a", "b", "a"]] * 5, LABELS, ["a"] * 5)}
    assert choose(gold, {"x": gold["x"].with_gold()}) == ("iwmv", "5 gold rows are too few to compare ways of weighing")


def test_a_choice_does_not_hang_on_the_order_of_rows(votes, followers):
    said, right = followers(80, 3)
    order = list(range(80))
    random.Random(1).shuffle(order)
    one = fit({"x": votes(said, LABELS, right)}, "auto")
    other = fit({"x": votes([said[i] for i in order], LABELS, [right[i] for i in order])}, "auto")
    assert one.contests["x"].rule == other.contests["x"].rule


def test_open_and_closed_attributes_are_decided_each_in_its_way(votes, followers):
    said, right = followers(60, 3)
    state = fit({"closed": votes(said, LABELS, right), "open": votes(said, None, right)}, "stack")
    assert [type(own.rule).__name__ for own in state.contests.values()] == ["Pool", "Stack"]

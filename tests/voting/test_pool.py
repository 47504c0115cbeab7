"""A pool learns how much of each voter's evidence to take."""

import pyarrow.compute as pc
import pytest

from gdo.voting.dawid_skene import confusion, decide_by
from gdo.voting.pool import decide_pooled, fit_pool
from gdo.voting.weighted import decide, majority

LABELS = "abcd"


def share(votes, code):
    return pc.mean(pc.cast(pc.fill_null(pc.equal(code, votes.gold), False), "float64")).as_py()


@pytest.mark.parametrize("seed", range(4))
def test_voters_who_follow_one_source_are_believed_less_than_matrices_alone_would(votes, followers, seed):
    said, right = followers(1000, 6, seed)
    gold = votes(said, LABELS, right)
    pool = fit_pool(gold.with_gold())
    more, truth = followers(3000, 6, seed + 100)
    held = votes(more, LABELS, truth)
    ours = share(held, decide_pooled(held, pool).code)
    assert ours > share(held, decide(held, majority(held).weights).code) + 0.1
    assert ours > share(held, decide_by(held, confusion(gold)).code) + 0.05
    assert ours > share(held, held.codes[6]) - 0.01, "as good as the one good voter"
    assert pool.exponents[6] > max(pool.exponents[:6])


def test_a_margin_is_a_lead_in_probability(votes, followers):
    said, right = followers(100, 2)
    held = votes([*said, [None] * 3], LABELS, [*right, None])
    found = decide_pooled(held, fit_pool(held.with_gold()))
    assert all(0 <= margin <= 1 for margin in found.margin.to_pylist()[:-1])
    assert found.code.to_pylist()[-1] is None
    assert found.margin.to_pylist()[-1] is None


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_a_handful_of_gold_rows_is_enough_for_an_answer(votes, rows):
    gold = votes([["a", "a", "b"]] * rows, LABELS, ["a"] * rows)
    assert decide_pooled(gold, fit_pool(gold.with_gold())).code.to_pylist() == [0] * rows


def test_a_voter_that_never_answers_disturbs_nobody(votes, followers):
    said, right = followers(60, 2)
    gold = votes([[*row, None] for row in said], LABELS, right)
    without = votes(said, LABELS, right)
    found = decide_pooled(gold, fit_pool(gold.with_gold())).code.to_pylist()
    wanted = decide_pooled(without, fit_pool(without.with_gold())).code.to_pylist()
    assert sum(a == b for a, b in zip(found, wanted, strict=True)) >= 58

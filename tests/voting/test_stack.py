"""A stack tells the right one of a row's candidates by who gave it and what it is like."""

import random

import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.stack import decide_stacked, fit_stack
from gdo.voting.votes import from_summary, summarise, votes_of
from gdo.voting.weighted import decide, majority


def panel(rows, seed, *, brand_of=0, size_of=1):
    """Two attributes, three voters: one voter knows each attribute, the other two make the same mistakes."""
    draw = random.Random(seed)
    found = {}
    for name, expert in (("brand", brand_of), ("size", size_of)):
        said, gold = [], []
        for i in range(rows):
            right = f"{name} {i}"
            wrong = f"{right} and more" if draw.random() < 0.7 else right
            said.append([right if voter == expert else wrong for voter in range(3)])
            gold.append(right)
        columns = [pa.array(column) for column in zip(*said, strict=True)]
        yes = pa.array([True] * rows)
        found[name] = votes_of(columns, [yes] * 3, ("p", "q", "r"), None, gold=pa.array(gold), known=yes)
    return found


def share(votes, code):
    return pc.mean(pc.cast(pc.fill_null(pc.equal(code, votes.gold), False), pa.float64())).as_py()


def test_each_attribute_believes_the_voter_that_knows_it():
    rules = fit_stack({name: own.with_gold() for name, own in panel(60, 1).items()})
    for name, held in panel(200, 2).items():
        assert share(held, decide_stacked(held, rules[name]).code) > 0.98
        assert share(held, decide(held, majority(held).weights).code) < 0.5


def test_a_summary_learns_the_same_as_the_rows():
    rows = panel(40, 3)
    whole = {name: own.with_gold() for name, own in rows.items()}
    halves = {
        name: from_summary(
            pa.concat_tables([summarise(own.filter(pa.array([i % 2 == k for i in range(40)]))) for k in (0, 1)]),
            own.voters,
            None,
        ).with_gold()
        for name, own in rows.items()
    }
    assert fit_stack(whole) == fit_stack(halves)


def test_a_voter_that_is_wrong_about_no_value_is_not_believed_when_it_says_so():
    draw = random.Random(5)
    said, gold = [], []
    for i in range(120):
        right = None if draw.random() < 0.3 else f"value {i}"
        forgetful = None if draw.random() < 0.6 else right
        said.append([forgetful, forgetful, right])
        gold.append(right)
    columns = [pa.array(column, pa.string()) for column in zip(*said, strict=True)]
    yes = pa.array([True] * 120)
    votes = votes_of(columns, [yes] * 3, ("p", "q", "r"), None, gold=pa.array(gold), known=yes)
    rules = fit_stack({"x": votes.with_gold()})
    assert share(votes, decide_stacked(votes, rules["x"]).code) > 0.95
    assert share(votes, decide(votes, majority(votes).weights).code) < 0.8

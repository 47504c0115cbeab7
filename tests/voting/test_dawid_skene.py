"""Confusion matrices: published figures, and what gold rows make of them."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gdo.voting.dawid_skene import confusion, dawid_skene, decide_by, posterior
from gdo.voting.votes import votes_of
from gdo.voting.weighted import decide, majority

CROWD = Path(__file__).parents[3] / "shared" / "data" / "crowd-labels"


def crowd(name):
    """A crowd-sourced set: a column a worker, the truth as gold."""
    with duckdb.connect() as connection:
        query = f"SELECT task, worker, label::VARCHAR FROM '{CROWD}/answers.parquet' WHERE dataset = '{name}'"
        answers = connection.execute(query).fetchall()
        query = f"SELECT task, truth::VARCHAR FROM '{CROWD}/truth.parquet' WHERE dataset = '{name}'"
        truth = dict(connection.execute(query).fetchall())
    tasks, workers, labels = (sorted({answer[i] for answer in answers}) for i in range(3))
    said = {(task, worker): label for task, worker, label in answers}
    columns = [pa.array([said.get((task, worker)) for task in tasks], pa.string()) for worker in workers]
    gold = pa.array([truth.get(task) for task in tasks], pa.string())
    voted = [pc.is_valid(column) for column in columns]
    return votes_of(columns, voted, tuple(workers), tuple(labels), gold=gold, known=pc.is_valid(gold))


def right(votes, code):
    known = votes.gold.is_valid()
    return 100 * pc.mean(pc.cast(pc.fill_null(pc.equal(code, votes.gold), False).filter(known), pa.float64())).as_py()


@pytest.mark.skipif(not CROWD.is_dir(), reason="the crowd-sourced sets are not here")
@pytest.mark.parametrize(
    ("name", "least", "gain"), [("d_product", 93.16, 3.0), ("d_possent", 95.5, 2.0), ("bluebird-duck", 88.0, 10.0)]
)
def test_dawid_skene_comes_to_the_published_accuracy(name, least, gain):
    votes = crowd(name)
    found = right(votes, decide_by(votes, dawid_skene(votes)).code)
    assert found >= least
    assert found >= right(votes, decide(votes, majority(votes).weights).code) + gain


def test_gold_tells_a_voter_that_takes_one_label_for_another():
    said = ["a", "b"] * 20
    swapped = ["b" if word == "a" else "a" for word in said]
    columns = [pa.array(swapped), pa.array(["a"] * 40)]
    gold = pa.array([*said[:20], *[None] * 20])
    yes = pa.array([True] * 40)
    votes = votes_of(columns, [yes, yes], ("liar", "stuck"), ("a", "b"), gold=gold, known=pc.is_valid(gold))
    code = decide_by(votes, confusion(votes)).code.to_pylist()
    assert ["ab"[k] for k in code] == said


def test_probabilities_of_a_row_sum_to_one():
    yes = pa.array([True] * 3)
    votes = votes_of([pa.array(["a", "b", "a"]), pa.array(["a", "a", "b"])], [yes, yes], ("p", "q"), ("a", "b"))
    shares = posterior(votes, dawid_skene(votes))
    assert [sum(row) for row in zip(*(share.to_pylist() for share in shares), strict=True)] == pytest.approx([1.0] * 3)

"""Facts about calibrated scores, from their definition: s = log p(l|x) - prior(l); argmax; softmax."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gdo.prompt import Example, Udp
from gdo.schema import Field, Labels, ListOf, Record, Scalar
from gdo.score import CONTENT_FREE, calibration_prompts, candidates, closed_labels, prior, verdict
from gdo.template import Template

SCORE = st.floats(-50, 0)
ROWS = st.integers(1, 6).flatmap(lambda n: st.tuples(*[st.lists(SCORE, min_size=n, max_size=n)] * 2))
LABELS = ["a", "b", "c", "d", "e", "f"]


@given(ROWS)
def test_the_confidence_is_the_largest_share_of_the_softmax(rows):
    scores, offsets = rows
    found = verdict(LABELS[: len(scores)], scores, offsets)
    weights = [math.exp(s - o) for s, o in zip(scores, offsets, strict=True)]
    assert found.confidence == pytest.approx(max(weights) / sum(weights), rel=1e-6)
    assert 1 / len(scores) - 1e-9 <= found.confidence <= 1


@given(ROWS, st.floats(-20, 20))
def test_a_constant_for_all_labels_changes_nothing(rows, constant):
    scores, offsets = rows
    labels = LABELS[: len(scores)]
    one = verdict(labels, scores, offsets)
    other = verdict(labels, [s + constant for s in scores], offsets)
    assert one.confidence == pytest.approx(other.confidence, rel=1e-6)


@given(ROWS)
def test_a_row_like_the_content_free_one_is_undecided(rows):
    scores, _ = rows
    assert verdict(LABELS[: len(scores)], scores, scores).confidence == pytest.approx(1 / len(scores))


@given(ROWS, st.randoms())
def test_the_order_of_labels_does_not_matter(rows, random):
    scores, offsets = rows
    calibrated = sorted(s - o for s, o in zip(scores, offsets, strict=True))
    assume(len(scores) < 2 or calibrated[-1] - calibrated[-2] > 1e-9)
    order = list(range(len(scores)))
    random.shuffle(order)
    mixed = verdict([LABELS[i] for i in order], [scores[i] for i in order], [offsets[i] for i in order])
    assert mixed.label == verdict(LABELS[: len(scores)], scores, offsets).label


def test_the_first_label_wins_a_tie():
    assert verdict(["x", "y"], [-1.0, -1.0], [0.0, 0.0]).label == "x"


def test_calibration_takes_away_what_the_prompt_makes_of_a_label_anyway():
    raw, offsets = [-0.2, -1.7], [-0.1, -3.0]
    assert verdict(["often", "seldom"], raw, [0.0, 0.0]).label == "often"
    assert verdict(["often", "seldom"], raw, offsets).label == "seldom"


@given(st.lists(st.lists(SCORE, min_size=2, max_size=2), min_size=1, max_size=5))
def test_the_prior_over_content_free_rows_is_their_mean(scores):
    found = prior([""] * len(scores), scores)
    assert found == pytest.approx([sum(column) / len(scores) for column in zip(*scores, strict=True)])


def test_content_free_rows_weigh_as_much_as_all_examples():
    assert prior(["", "", "a"], [[0.0], [2.0], [5.0]]) == [3.0]


def test_examples_weigh_the_same_by_label():
    many = prior(["", *["a"] * 9, "b"], [[0.0], *[[4.0]] * 9, [8.0]])
    assert many == prior(["", "a", "b"], [[0.0], [4.0], [8.0]]) == [3.0]


def test_a_prior_of_examples_alone_or_of_nothing_can_be_had():
    assert prior(["a"], [[1.0, 2.0]]) == [1.0, 2.0]
    assert prior([], []) == []


def test_closed_types_are_labels_and_truths():
    assert closed_labels(Labels(("x", "y"))) == ("x", "y")
    assert closed_labels(Scalar("boolean")) == ("yes", "no")
    assert closed_labels(Scalar("string")) == closed_labels(ListOf(Labels(("x",)))) == ()


def test_a_candidate_continues_a_prompt_that_ends_in_a_colon():
    assert candidates(["red", "dark blue"]) == (" red", " dark blue")


def test_the_prior_is_measured_on_content_free_rows_and_the_examples():
    output = Record((Field("label", Labels(("x", "y"))),))
    udp = Udp("u", Template("{{ a }} {{ b }}"), output, examples=(Example({"a": 1, "b": 2}, {"label": "x"}),))
    found = calibration_prompts(udp)
    assert [group for group, _ in found] == [*[""] * len(CONTENT_FREE), "x"]
    assert found[0][1] == f"{CONTENT_FREE[0]} {CONTENT_FREE[0]}"
    assert found[-1][1] == "1 2"


def test_a_row_that_the_template_fails_on_measures_no_prior():
    output = Record((Field("label", Labels(("x", "y"))),))
    udp = Udp("u", Template("{{ a + 1 }}"), output, examples=(Example({"a": 1}, {"label": "x"}),))
    assert calibration_prompts(udp) == [("x", "2")]

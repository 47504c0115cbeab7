"""Coefficients of greatest likelihood."""

import math
import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.voting.newton import choice, diagonal, logistic, solve


def test_log_odds_are_found_again():
    x = [0.0] * 100 + [1.0] * 100
    y = [1.0] * 20 + [0.0] * 80 + [1.0] * 60 + [0.0] * 40
    slope, intercept = logistic([pa.array(x)], pa.array(y), 1e-9)
    assert intercept == pytest.approx(math.log(0.2 / 0.8), abs=1e-4)
    assert slope == pytest.approx(math.log(0.6 / 0.4) - intercept, abs=1e-4)


def test_classes_that_can_be_told_apart_whole_still_have_an_end():
    slope, _ = logistic([pa.array([0.0, 0.0, 1.0, 1.0])], pa.array([0.0, 0.0, 1.0, 1.0]), 1.0)
    assert 0 < slope < 10


def test_a_choice_of_two_classes_is_a_logistic_regression():
    draw = random.Random(3)
    x = [draw.gauss(0, 1) for _ in range(200)]
    y = [float(draw.random() < 1 / (1 + math.exp(-1.5 * one))) for one in x]
    alone, _ = logistic([pa.array(x)], pa.array(y), 1.0)
    feature = pa.array([*([0.0] * 200), *x])
    right = pa.array([*(1 - one for one in y), *y])
    constant = pa.array([*([0.0] * 200), *([1.0] * 200)])
    together, _ = choice([feature, constant], right, 2, [0.0, 0.0], diagonal([1.0, 1e-6]))
    assert together == pytest.approx(alone, abs=1e-4)


def test_coefficients_stay_where_they_start_when_nothing_tells_otherwise():
    flat = pa.array([1.0] * 6)
    assert choice([flat], pa.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0]), 2, [0.5], diagonal([1.0])) == pytest.approx([0.5])


row_of_three = st.lists(st.floats(-3, 3), min_size=3, max_size=3)


@given(st.lists(row_of_three, min_size=3, max_size=3), row_of_three)
def test_a_solution_solves(rows, right):
    matrix = [[sum(r[i] * r[j] for r in rows) + (2.0 if i == j else 0.0) for j in range(3)] for i in range(3)]
    found = solve(matrix, right)
    for row, wanted in zip(matrix, right, strict=True):
        assert sum(a * b for a, b in zip(row, found, strict=True)) == pytest.approx(wanted, abs=1e-6)

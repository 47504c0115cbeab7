"""Logistic regression by Newton's method over Arrow columns."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

_STEPS = 25
_CLOSE = 1e-6


def logistic(features: Sequence[pa.DoubleArray], right: pa.DoubleArray, ridge: float) -> list[float]:
    """The coefficients of the features, and last the intercept, that make `right` (0 or 1) most likely.

    `ridge` draws each coefficient but the intercept towards 0. Costs a pass over each pair of columns a step.
    """
    columns = [*features, pa.repeat(pa.scalar(1.0), len(right))]
    size = len(columns)
    beta = [0.0] * size
    penalty = [ridge] * len(features) + [1e-6]
    for _ in range(_STEPS):
        chance = sigmoid(linear(columns, beta))
        off = pc.subtract(right, chance)
        spread = pc.multiply(chance, pc.subtract(1.0, chance))
        slope = [_dot(column, off) - penalty[i] * beta[i] for i, column in enumerate(columns)]
        scaled = [pc.multiply(column, spread) for column in columns]
        bend = [[0.0] * size for _ in range(size)]
        for i in range(size):
            for j in range(i + 1):
                bend[i][j] = bend[j][i] = _dot(scaled[i], columns[j])
            bend[i][i] += penalty[i] + 1e-9
        step = solve(bend, slope)
        beta = [b + s for b, s in zip(beta, step, strict=True)]
        if max(abs(s) for s in step) < _CLOSE:
            break
    return beta


def linear(columns: Sequence[pa.DoubleArray], beta: Sequence[float]) -> pa.DoubleArray:
    """The sum of columns, each times its coefficient."""
    total = pc.multiply(columns[0], beta[0])
    for column, own in zip(columns[1:], beta[1:], strict=True):
        total = pc.add(total, pc.multiply(column, own))
    return total


def sigmoid(values: pa.DoubleArray) -> pa.DoubleArray:
    """Log-odds as probabilities."""
    bounded = pc.max_element_wise(pc.min_element_wise(values, 30.0), -30.0)
    return pc.divide(1.0, pc.add(1.0, pc.exp(pc.negate(bounded))))


def _dot(left: pa.DoubleArray, right: pa.DoubleArray) -> float:
    return float(pc.sum(pc.multiply(left, right)).as_py() or 0.0)


def solve(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """The solution of a system with a symmetric positive definite matrix, by Cholesky's decomposition.

    >>> solve([[4.0, 2.0], [2.0, 3.0]], [2.0, 1.0])
    [0.5, 0.0]
    """
    size = len(right)
    low = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(low[i][k] * low[j][k] for k in range(j))
            low[i][j] = max(rest, 1e-12) ** 0.5 if i == j else rest / low[j][j]
    half: list[float] = []
    for i in range(size):
        half.append((right[i] - sum(low[i][k] * half[k] for k in range(i))) / low[i][i])
    found = [0.0] * size
    for i in reversed(range(size)):
        found[i] = (half[i] - sum(low[k][i] * found[k] for k in range(i + 1, size))) / low[i][i]
    return found

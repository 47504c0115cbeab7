"""Logistic regression by Newton's method over Arrow columns: of yes or no, and of a choice among classes."""

from collections.abc import Callable, Sequence
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

_STEPS = 40
_CLOSE = 1e-5
_HALVINGS = 12

Matrix = Sequence[Sequence[float]]
Fit = tuple[float, list[float], Callable[[], list[list[float]]]]
"""How likely it all is under some coefficients, which way that grows, and (when asked) how it bends."""


def logistic(features: Sequence[pa.DoubleArray], right: pa.DoubleArray, ridge: float) -> list[float]:
    """The coefficients of the features, and last the intercept, that make `right` (0 or 1) most likely.

    `ridge` draws each coefficient but the intercept towards 0. Costs a pass over each pair of columns a step.
    """
    columns = [*features, pa.repeat(pa.scalar(1.0), len(right))]
    size = len(columns)
    penalty = diagonal([*[ridge] * len(features), 1e-6])

    def likelihood(beta: list[float]) -> Fit:
        chance = sigmoid(linear(columns, beta))
        said = pc.add(
            pc.multiply(right, pc.ln(chance)), pc.multiply(pc.subtract(1.0, right), pc.ln(pc.subtract(1.0, chance)))
        )
        off = pc.subtract(right, chance)

        def bend() -> list[list[float]]:
            spread = pc.multiply(chance, pc.subtract(1.0, chance))
            return _products([pc.multiply(column, spread) for column in columns], columns)

        return float(pc.sum(said).as_py() or 0.0), [_dot(column, off) for column in columns], bend

    return maximise(likelihood, [0.0] * size, [0.0] * size, penalty)


def choice(
    features: Sequence[pa.DoubleArray], right: pa.DoubleArray, classes: int, start: Sequence[float], penalty: Matrix
) -> list[float]:
    """The coefficients that make the right class of each row most likely, its chance being the softmax of their sum.

    Columns hold all rows of the first class, then all of the second, and so on. `penalty` draws the coefficients
    towards `start` (as far as it has no direction of its own in which they are free).

    Source: the conditional logit (McFadden, Conditional logit analysis of qualitative choice behavior, 1974).
    """
    rows = len(right) // classes

    def likelihood(beta: list[float]) -> Fit:
        sums = linear(features, beta)
        parts = [sums.slice(k * rows, rows) for k in range(classes)]
        top = pc.max_element_wise(*parts)
        shares = [pc.exp(pc.subtract(part, top)) for part in parts]
        total = reduce(pc.add, shares)
        chance = pa.concat_arrays([pc.divide(share, total) for share in shares])
        off = pc.subtract(right, chance)
        least = pc.ln(pc.max_element_wise(chance, 1e-300))

        def bend() -> list[list[float]]:
            weighted = [pc.multiply(column, chance) for column in features]
            means = [reduce(pc.add, [w.slice(k * rows, rows) for k in range(classes)]) for w in weighted]
            inner, outer = _products(weighted, features), _products(means, means)
            return [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(inner, outer, strict=True)]

        return _dot(right, least), [_dot(column, off) for column in features], bend

    return maximise(likelihood, list(start), list(start), penalty)


def maximise(
    likelihood: Callable[[list[float]], Fit], start: list[float], centre: list[float], penalty: Matrix
) -> list[float]:
    """The coefficients of the greatest likelihood less half the penalty on what they are off the centre."""
    beta = start

    def off(own: Sequence[float]) -> list[float]:
        apart = [b - c for b, c in zip(own, centre, strict=True)]
        return [sum(p * a for p, a in zip(row, apart, strict=True)) for row in penalty]

    def worth(own: Sequence[float], found: Fit) -> float:
        return found[0] - 0.5 * sum(o * (b - c) for o, b, c in zip(off(own), own, centre, strict=True))

    found = likelihood(beta)
    for _ in range(_STEPS):
        slope = [s - o for s, o in zip(found[1], off(beta), strict=True)]
        bend = [[a + b for a, b in zip(x, y, strict=True)] for x, y in zip(found[2](), penalty, strict=True)]
        step = solve(bend, slope)
        for _ in range(_HALVINGS):  # a step too far would make it worse
            further = [b + s for b, s in zip(beta, step, strict=True)]
            then = likelihood(further)
            if worth(further, then) >= worth(beta, found) - 1e-9:
                break
            step = [s / 2 for s in step]
        else:
            return beta
        beta, found = further, then
        if max(abs(s) for s in step) < _CLOSE:
            break
    return beta


def diagonal(values: Sequence[float]) -> list[list[float]]:
    """A matrix with these values on its diagonal."""
    return [[value if i == j else 0.0 for j in range(len(values))] for i, value in enumerate(values)]


def linear(columns: Sequence[pa.DoubleArray], beta: Sequence[float]) -> pa.DoubleArray:
    """The sum of columns, each times its coefficient."""
    return reduce(pc.add, [pc.multiply(column, own) for column, own in zip(columns, beta, strict=True)])


def sigmoid(values: pa.DoubleArray) -> pa.DoubleArray:
    """Log-odds as probabilities."""
    bounded = pc.max_element_wise(pc.min_element_wise(values, 30.0), -30.0)
    return pc.divide(1.0, pc.add(1.0, pc.exp(pc.negate(bounded))))


def _products(left: Sequence[pa.DoubleArray], right: Sequence[pa.DoubleArray]) -> list[list[float]]:
    """The product of each two columns, where it does not matter which comes first."""
    found = [[0.0] * len(left) for _ in left]
    for i, column in enumerate(left):
        for j in range(i + 1):
            found[i][j] = found[j][i] = _dot(column, right[j])
    return found


def _dot(left: pa.DoubleArray, right: pa.DoubleArray) -> float:
    return float(pc.sum(pc.multiply(left, right)).as_py() or 0.0)


def solve(matrix: Matrix, right: Sequence[float]) -> list[float]:
    """The solution of a system with a symmetric positive definite matrix, by Cholesky's decomposition.

    >>> solve([[4.0, 2.0], [2.0, 3.0]], [2.0, 1.0])
    [0.5, 0.0]
    """
    size = len(right)
    low = [[0.0] * size for _ in range(size)]
    for i in range(size):
        for j in range(i + 1):
            rest = matrix[i][j] - sum(low[i][k] * low[j][k] for k in range(j))
            low[i][j] = max(rest, 1e-9) ** 0.5 if i == j else rest / low[j][j]
    half: list[float] = []
    for i in range(size):
        half.append((right[i] - sum(low[i][k] * half[k] for k in range(i))) / low[i][i])
    found = [0.0] * size
    for i in reversed(range(size)):
        found[i] = (half[i] - sum(low[k][i] * found[k] for k in range(i + 1, size))) / low[i][i]
    return found

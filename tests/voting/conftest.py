"""Votes written by rows, and panels of made-up voters whose errors go together."""

import random
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from gdo.voting.votes import Votes, votes_of

Rows = Sequence[Sequence[str | None]]


def make_votes(rows: Rows, labels: Sequence[str] | None, gold: Sequence[object] | None = None) -> Votes:
    columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
    voters = tuple(f"m{i}" for i in range(len(columns)))
    right = None if gold is None else pa.array(gold)
    known = None if right is None else pc.is_valid(right)
    closed = None if labels is None else tuple(labels)
    return votes_of(columns, [pc.is_valid(c) for c in columns], voters, closed, gold=right, known=known)


@pytest.fixture
def votes() -> Callable[..., Votes]:
    return make_votes


@pytest.fixture
def followers() -> Callable[..., tuple[list[list[str]], list[str]]]:
    """Rows of `copies` voters who all follow one bad source, and of one voter who is mostly right; and what is right."""

    def made(rows: int, copies: int, seed: int = 0, labels: str = "abcd") -> tuple[list[list[str]], list[str]]:
        draw = random.Random(seed)
        said, right = [], []
        for _ in range(rows):
            truth = draw.choice(labels)
            source = truth if draw.random() < 0.55 else draw.choice(labels)
            follow = [source if draw.random() < 0.95 else draw.choice(labels) for _ in range(copies)]
            said.append([*follow, truth if draw.random() < 0.8 else draw.choice(labels)])
            right.append(truth)
        return said, right

    return made

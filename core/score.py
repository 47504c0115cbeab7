"""Closed label sets by calibrated log-probability, for models that give it.

`s(l | x) = log p(l | prompt(x)) - prior(l)`, answer `argmax s`, confidence `softmax(s)`. The prior is what the prompt
itself makes of a label whatever the row: the mean of two means, over content-free inputs (contextual calibration, Zhao
et al. 2021, arXiv 2102.09690) and over the prompt's own examples, balanced by label. Neither depends on the data, so a
row's answer does not depend on its neighbours, and the prior is paid for once per prompt.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from gdo.model import Model
from gdo.prompt import Udp, plain_word
from gdo.schema import AnswerType, Labels, Scalar
from gdo.template import TemplateFault

CONTENT_FREE = ("N/A", "[MASK]", "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The label of a row and its share of the softmax over all labels."""

    label: str
    confidence: float


def closed_labels(answer: AnswerType) -> tuple[str, ...]:
    """The words among which a type chooses: its labels, yes and no for a boolean, none for an open type."""
    if isinstance(answer, Labels):
        return answer.labels
    if answer == Scalar("boolean"):
        return (plain_word(True), plain_word(False))
    return ()


def split_fields(udp: Udp, model: Model) -> tuple[list[str], list[str]]:
    """The fields of a prompt that a model scores among closed labels, and those that it writes."""
    if not (model.capabilities.logprobs and model.style == "plain"):
        return [], list(udp.output.names)
    scored = [p.name for p in udp.output.fields if closed_labels(p.type) and not p.nullable]
    return scored, [name for name in udp.output.names if name not in scored]


def candidates(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels as continuations of a plain prompt that ends in a colon."""
    return tuple(f" {label}" for label in labels)


def calibration_prompts(udp: Udp) -> list[tuple[str, str]]:
    """What the prior is measured on, each with its group: "" for content-free rows, else the example's label.

    A template of numbers cannot be rendered for a content-free text.
    """
    rows: list[tuple[str, Mapping[str, object]]] = [("", dict.fromkeys(udp.names, text)) for text in CONTENT_FREE]
    only = udp.output.names[0]
    rows += [(str(example.out[only]), example.row) for example in udp.examples]
    found = []
    for group, row in rows:
        with suppress(TemplateFault):
            found.append((group, udp.render(row)))
    return found


def prior(groups: Sequence[str], scores: Sequence[Sequence[float]]) -> list[float]:
    """The mean score of each label over the calibration rows.

    The content-free group weighs as much as all examples together; examples weigh the same by label, so that a label
    with many examples is not held against.

    >>> prior(["", "a", "a", "b"], [[0.0], [2.0], [4.0], [1.0]])
    [1.0]
    """
    means = {group: _mean([row for name, row in zip(groups, scores, strict=True) if name == group]) for group in groups}
    free = means.pop("", None)
    shown = _mean(list(means.values())) if means else None
    return _mean([part for part in (free, shown) if part])


def _mean(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def verdict(labels: Sequence[str], scores: Sequence[float], offsets: Sequence[float]) -> Verdict:
    """The label whose calibrated score is highest; the first one on a tie.

    >>> verdict(["a", "b"], [-1.0, -1.2], [-0.5, -1.5])
    Verdict(label='b', confidence=0.6899744811276125)
    """
    calibrated = [score - offset for score, offset in zip(scores, offsets, strict=True)]
    best = max(range(len(labels)), key=calibrated.__getitem__)
    total = sum(math.exp(score - calibrated[best]) for score in calibrated)
    return Verdict(labels[best], 1.0 / total)

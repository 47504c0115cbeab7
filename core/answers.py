"""What a batch was answered: one outcome a distinct prompt, and the columns that they make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from gdo.ledger import Failure
from gdo.schema import Record

Values = dict[str, object]


@dataclass(frozen=True, slots=True)
class Answers:
    """What a batch was answered, row for row.

    `record` is a struct column of the output's fields, null where there is no answer; `failed` marks the rows whose
    call or reply failed (a row whose inputs are all null is null and not failed); `confidence` is null where the
    model gives no log-probabilities.
    """

    record: pa.StructArray
    failed: pa.BooleanArray
    confidence: pa.DoubleArray

    def column(self, name: str) -> pa.Array:
        """One field as a column, null where there is no answer."""
        return pc.struct_field(self.record, name)

    def moved(self, how: Callable[[pa.Array], pa.Array]) -> "Answers":
        """Each part brought to other rows in the same way."""
        return Answers(*(how(getattr(self, part)) for part in Answers.__slots__))


class Outcome(NamedTuple):
    """What one distinct prompt came to: values, a failure, or neither where there was nothing to ask."""

    values: Values | None = None
    failure: Failure | None = None
    confidence: float | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the same prompt would fare no better in another batch."""
        if self.failure is None:
            return True
        return self.was_asked and self.failure.reason in {"refused", "context", "unparsable", "invalid"}

    @property
    def was_asked(self) -> bool:
        """Whether a model was asked, and not only to be: a run that ends asks nothing more."""
        return self.failure is None or self.failure.attempts > 0


NOTHING = Outcome()


def joined(parts: Sequence[Outcome]) -> Outcome:
    """The outcome of parts of a record that were asked one by one."""
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        if part.failure is not None:
            return part
    values: Values = {}
    for part in parts:
        values |= part.values or {}
    return Outcome(values)


def answers(output: Record, outcomes: Sequence[Outcome]) -> Answers:
    """The columns of outcomes, one row each."""
    values = [outcome.values for outcome in outcomes]
    columns = [
        pa.array([None if value is None else value[part.name] for value in values], part.type.arrow())
        for part in output.fields
    ]
    missing = pa.array([value is None for value in values], pa.bool_())
    record = pa.StructArray.from_arrays(columns, fields=list(output.arrow()), mask=missing)
    return Answers(
        record=record,
        failed=pa.array([outcome.failure is not None for outcome in outcomes], pa.bool_()),
        confidence=pa.array([outcome.confidence for outcome in outcomes], pa.float64()),
    )

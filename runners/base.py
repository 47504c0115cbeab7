"""What every runner does alike: one operator over one batch, with its condition, its faults and its row count."""

import datetime as dt
from dataclasses import dataclass
from typing import Protocol

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from gdo.ask import ROW, Ask
from gdo.database import condition_mask, message
from gdo.distinct import counting
from gdo.errors import RunFailed
from gdo.ledger import Ledger
from gdo.op import Operator, Rows, Scope
from gdo.plan import Node, Plan


class Runner(Protocol):
    """Runs a plan to its end."""

    def run(self, plan: Plan) -> None:
        """Write every sink whole.

        Raises:
            RunFailed: it could not; nothing half-written is left.
        """

    def stop(self) -> None:
        """Send nothing more to a model; may be called from any thread."""


class Asking(Protocol):
    """Where a step asks, and where its rows are counted."""

    @property
    def ledger(self) -> Ledger:
        """The counts."""

    def ask(self, step: str, op: Operator) -> Ask:
        """What a step asks by, for one batch."""


@dataclass(frozen=True, slots=True)
class Work:
    """One node over batches; `schema` is what it gives, the row number included."""

    node: Node
    schema: pa.Schema
    desk: Asking
    state: pa.Table | None = None

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows out for a batch, in the node's schema.

        Raises:
            RunFailed: rows were lost or made where the operator may not.
        """
        return conform(self.raw(batch), self.schema)

    def raw(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The rows out as the operator gave them: with their numbers only where it kept them."""
        op = self.node.op
        ask = self.desk.ask(self.node.id, op)
        try:
            chosen, others = self._split(batch)
            out = op.apply(chosen, ask, self.state) if chosen.num_rows or others is None else chosen
        except duckdb.Error as error:
            raise RunFailed(f"step '{self.node.id}': {message(error)}") from None
        failed = ask.failed_rows if op.on_error == "reject" else set()
        if failed and ROW in out.schema.names:
            out = out.filter(pc.invert(pc.is_in(out.column(ROW), pa.array(sorted(failed), pa.int64()))))
        if others is not None:
            out = self._joined(out, others)
        self._count(batch, out, len(failed))
        return out

    def summarise(self, batch: pa.RecordBatch) -> pa.Table:
        """What a FIT operator keeps of a batch to learn from: of the rows of its condition alone."""
        self.desk.ledger.add(self.node.id, seen=batch.num_rows)
        if self.node.op.where is not None:
            batch = batch.filter(condition_mask(self.node.op.where, batch))
        return self.node.op.summarise(batch, self.desk.ask(self.node.id, self.node.op))

    def _split(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
        if self.node.op.where is None:
            return batch, None
        mask = condition_mask(self.node.op.where, batch)
        return batch.filter(mask), batch.filter(pc.invert(mask))

    def _joined(self, out: pa.RecordBatch, others: pa.RecordBatch) -> pa.RecordBatch:
        """The rows that the step worked on and those that passed it by: in their order where they kept a number.

        Behind whole groups, those that passed by come last.
        """
        kept = ROW in out.schema.names and self.node.op.scope is not Scope.GROUP
        table = pa.Table.from_batches([conform(out, self.schema), conform(others, self.schema)])
        if kept:
            table = table.take(pc.sort_indices(table, sort_keys=[(ROW, "ascending")]))
        return one_batch(table)

    def _count(self, batch: pa.RecordBatch, out: pa.RecordBatch, rejected: int) -> None:
        name, op = self.node.id, self.node.op
        self.desk.ledger.add(name, rows_in=batch.num_rows, rows_out=out.num_rows, rejected=rejected)
        kept = batch.num_rows - rejected
        wrong = (op.rows is Rows.SAME and out.num_rows != kept) or (op.rows is Rows.SUBSET and out.num_rows > kept)
        if wrong:
            raise RunFailed(
                f"step '{name}': {batch.num_rows} rows in, {out.num_rows} out, {rejected} rejected: rows were lost or made"
            )


def keeps_numbers(op: Operator) -> bool:
    """Whether each row out of a step is one of the rows in, so that its number still tells it."""
    return op.rows is not Rows.ANY or op.decides_by() is not None


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table as one batch, also when it is empty."""
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch with just the columns of a schema, in its order and types; a column that it lacks is null.

    A row number that it lacks is given anew, from 0.
    """
    columns = []
    for field in schema:
        place = batch.schema.get_field_index(field.name)
        if place >= 0:
            column = batch.column(place)
            columns.append(column if column.type == field.type else _cast(column, field))
        elif field.name == ROW:
            columns.append(counting(batch.num_rows))
        else:
            columns.append(pa.nulls(batch.num_rows, field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _cast(column: pa.Array, field: pa.Field) -> pa.Array:
    kind = field.type
    if pa.types.is_interval(column.type) and pa.types.is_duration(kind):  # DuckDB hands durations back as intervals
        spans = [
            None if v is None else dt.timedelta(days=v.days, microseconds=v.nanoseconds // 1000)
            for v in column.to_pylist()
        ]
        return pa.array(spans, kind)
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        what = f"the column '{field.name}' ({column.type}) does not fit in {kind} without loss: {error}"
        raise RunFailed(f"{what} (cast it before it comes in)") from None


def numbered(schema: pa.Schema) -> pa.Schema:
    """A schema with the hidden row number behind its columns."""
    return schema.append(pa.field(ROW, pa.int64()))

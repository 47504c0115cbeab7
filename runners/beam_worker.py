"""What runs on a worker: steps over batches, several of them in flight, their faults and counts handed out beside the rows."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics import Metrics
from apache_beam.utils.windowed_value import WindowedValue

from gdo.ask import ROW
from gdo.database import scratch
from gdo.plan import Node
from gdo.runfolder import CALLS, ERRORS, error_row
from gdo.runners.base import Work, conform, keeps_numbers, numbered, one_batch
from gdo.runners.beam_desk import THREADS, BatchDesk, DeskSpec, Tally
from gdo.runners.beam_fault import told
from gdo.runners.beam_parcel import Parcel
from gdo.runners.beam_shared import acquire, release
from gdo.runners.beam_source import Piece, Reading
from gdo.runners.feed import MAX_ROWS
from gdo.runners.groups import GROUP, by_group, whole_groups

COUNTS = ("rows_in", "rows_out", "rejected", "calls", "cached", "prompt_tokens", "completion_tokens", "errors")
METRICS = "gdo"
HELD_ROWS = 1 << 15
"""Rows that a bundle holds in flight."""
REST = 1 << 61
"""Added to the number of a row that a grouping step leaves out: such rows come after all groups."""


class Meter:
    """Counts as Beam metrics, by step: `gdo`, `<step>.calls` and so on."""

    def __init__(self) -> None:
        self._known: dict[str, object] = {}

    def count(self, tally: Tally, began: float) -> None:
        """Hand on the totals of one batch; to be called in Beam's own thread."""
        ended = time.time()
        for step, found in tally.steps.items():
            for key in COUNTS:
                amount = getattr(found, key)
                if amount:
                    self._counter(f"{step}.{key}").inc(amount)
            times = self._distribution(f"{step}.time_ms")
            times.update(round(began * 1000))
            times.update(round(ended * 1000))

    def _counter(self, name: str) -> "beam.metrics.metric.Metrics.DelegatingCounter":
        return self._known.setdefault(name, Metrics.counter(METRICS, name))

    def _distribution(self, name: str) -> "beam.metrics.metric.Metrics.DelegatingDistribution":
        return self._known.setdefault(name, Metrics.distribution(METRICS, name))


class Read(beam.DoFn):
    """Pieces of a source in, its rows out."""

    def __init__(self, source: str, reading: Reading) -> None:
        self._source = source
        self._reading = reading

    def setup(self) -> None:
        """Nothing but the counters."""
        self._meter = Meter()

    def process(self, piece: Piece) -> Iterator[pa.RecordBatch]:
        """The numbered rows of a piece."""
        with told():
            began = time.time()
            for batch in self._reading.batches(piece):
                tally = Tally()
                tally.add(self._source, rows_in=batch.num_rows, rows_out=batch.num_rows)
                self._meter.count(tally, began)
                yield batch


class InFlight(beam.DoFn):
    """Works on several batches at once, in the threads of the process, and hands them on in their order.

    A small batch leaves room for more of them: what is bounded is the rows that are held.
    """

    def __init__(self, desk: DeskSpec, packed: Parcel[tuple[Node, ...]]) -> None:
        self._spec = desk
        self._packed = packed

    def setup(self) -> None:
        """Unpack the steps, and find the desk of the run."""
        with told(launched=self._spec.launched):
            self._nodes = self._packed.opened()
            self._desk = acquire(self._spec)
        self._meter = Meter()

    def teardown(self) -> None:
        """Let the desk go."""
        release(self._spec)

    def start_bundle(self) -> None:
        """Nothing is in flight."""
        self._flying: deque[tuple[Future[object], Tally, float, int, object, object]] = deque()
        self._held = 0

    def pieces(self, element: Any) -> Iterator[pa.RecordBatch]:
        """The batches of an element, whatever a subclass gets."""
        yield element

    def work(self, batch: pa.RecordBatch, desk: BatchDesk, state: pa.Table | None) -> object:
        """What a batch becomes, in a thread; None for nothing."""
        raise NotImplementedError

    def process(
        self,
        element: Any,
        window: object = beam.DoFn.WindowParam,
        timestamp: object = beam.DoFn.TimestampParam,
        state: pa.Table | None = None,
    ) -> Iterator[object]:
        """Send the batches of an element off, and hand on what is done."""
        with told(launched=self._spec.launched):
            for batch in self.pieces(element):
                desk = self._desk.batch()
                future = self._desk.pool.submit(self.work, batch, desk, state)
                self._flying.append((future, desk.ledger, time.time(), batch.num_rows, window, timestamp))
                self._held += batch.num_rows
                while self._flying and (self._full() or self._flying[0][0].done()):
                    yield from self._landed()

    def finish_bundle(self) -> Iterator[object]:
        """Wait for the rest."""
        with told(launched=self._spec.launched):
            while self._flying:
                yield from self._landed()

    def _full(self) -> bool:
        return len(self._flying) >= THREADS or self._held > HELD_ROWS

    def _landed(self) -> Iterator[object]:
        future, tally, began, rows, window, timestamp = self._flying.popleft()
        self._held -= rows
        try:
            out = future.result()
        except BaseException:
            for other, *_ in self._flying:
                other.cancel()
            raise
        self._meter.count(tally, began)
        failures = [error_row(row, step, failure) for step, row, failure in tally.kept.failures]
        calls = tally.kept.requests
        if failures:
            beside = WindowedValue(_batch(failures, ERRORS), timestamp, (window,))
            yield beam.pvalue.TaggedOutput("errors", beside)
        if calls:
            beside = WindowedValue(_batch(calls, CALLS), timestamp, (window,))
            yield beam.pvalue.TaggedOutput("calls", beside)
        if out is not None:
            yield WindowedValue(out, timestamp, (window,))


def _batch(rows: Sequence[tuple[object, ...]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


class Steps(InFlight):
    """A run of row-by-row steps, or a fitted one: each batch passes all of them in one go.

    Where the last one makes rows, each has the number of the row that it came of, and waits for its own.
    """

    def work(self, batch: pa.RecordBatch, desk: BatchDesk, state: pa.Table | None) -> pa.RecordBatch | None:
        """The rows out; None when there is none."""
        for node in self._nodes:
            work = Work(node, numbered(node.schema), desk, state)
            batch = work(batch) if keeps_numbers(node.op) else _made(work, batch)
        return batch if batch.num_rows else None


def _made(work: Work, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows that a step makes of a batch; where it gives them no number, all have that of the batch's first row."""
    out = work.raw(batch)
    if ROW not in out.schema.names and out.num_rows:
        first = pc.min(batch.column(ROW)).as_py()
        out = out.append_column(ROW, pa.array([first] * out.num_rows, pa.int64()))
    return conform(out, work.schema)


class Summarise(InFlight):
    """Each batch as a small table to learn from, with the number of its first row: summaries are put in that order."""

    def work(self, batch: pa.RecordBatch, desk: BatchDesk, state: pa.Table | None) -> tuple[int, pa.RecordBatch]:
        """The summary of a batch."""
        first = pc.min(batch.column(ROW)).as_py() or 0
        (node,) = self._nodes
        summary = Work(node, numbered(node.schema), desk).summarise(batch)
        return first, one_batch(summary)


class Groups(InFlight):
    """Some groups with all their rows: batches of whole groups, and the rows that `where` leaves out."""

    def setup(self) -> None:
        """Unpack the step."""
        super().setup()
        (self._node,) = self._nodes
        # Rows of no group pass it by, so that what is worked on meets the condition.
        self._inner = replace(self._node, op=self._node.op.model_copy(update={"where": None}))

    def pieces(self, element: "tuple[int, Iterable[pa.RecordBatch]]") -> Iterator[pa.RecordBatch]:
        """Batches of whole groups; last, with the column that tells groups, the rows of none."""
        table = pa.Table.from_batches(list(element[1]))
        with scratch() as connection:
            connection.register("part", table)
            query = by_group(self._node.op, "part")
            ordered = connection.sql(query).to_arrow_table()
        inside = ordered.filter(pc.is_valid(ordered.column(GROUP)))
        yield from whole_groups(inside.to_batches(MAX_ROWS))
        yield from ordered.filter(pc.is_null(ordered.column(GROUP))).to_batches(MAX_ROWS)

    def work(self, batch: pa.RecordBatch, desk: BatchDesk, state: pa.Table | None) -> pa.RecordBatch | None:
        """The rows out, each with the number of its group's first row."""
        schema = numbered(self._node.schema)
        if GROUP in batch.schema.names:
            desk.ledger.add(self._node.id, rows_in=batch.num_rows, rows_out=batch.num_rows)
            late = pc.add(batch.column(ROW), pa.scalar(REST, pa.int64()))
            return conform(batch.set_column(batch.schema.get_field_index(ROW), ROW, late), schema)
        out = _made(Work(self._inner, schema, desk), batch)
        return out if out.num_rows else None

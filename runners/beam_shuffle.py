"""Rows on their way between workers: groups that meet, numbers for rows that a step made, summaries that become a state."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.utils.windowed_value import WindowedValue

from gdo.ask import ROW
from gdo.database import column_list, query_batch
from gdo.op import Operator
from gdo.runners.base import one_batch
from gdo.runners.beam_fault import told
from gdo.runners.beam_parcel import Parcel

PARTITIONS = 64
"""Groups are dealt out to so many parts; each must fit in the memory of a worker."""
_HELD_ROWS = 1 << 15
_PART = "__gdo_part__"


class Deal(beam.DoFn):
    """Batches in, rows out by the part that their group belongs to: equal keys (as SQL groups them) meet in one part."""

    def __init__(self, op: Operator) -> None:
        self._query = f"SELECT CAST(hash({column_list(op.group_by)}) % {PARTITIONS} AS INTEGER) AS part FROM input"

    def start_bundle(self) -> None:
        """Nothing is held."""
        self._held: list[tuple[pa.RecordBatch, object, object]] = []
        self._rows = 0

    def process(
        self,
        batch: pa.RecordBatch,
        window: object = beam.DoFn.WindowParam,
        timestamp: object = beam.DoFn.TimestampParam,
    ) -> Iterator[object]:
        """Small batches are dealt out together, so that the parts of a batch are not tiny."""
        if self._held and self._held[0][1] != window:
            yield from self._dealt()
        self._held.append((batch, window, timestamp))
        self._rows += batch.num_rows
        if self._rows >= _HELD_ROWS:
            yield from self._dealt()

    def finish_bundle(self) -> Iterator[object]:
        """Deal out the rest."""
        yield from self._dealt()

    def _dealt(self) -> Iterator[object]:
        if not self._held:
            return
        whole = one_batch(pa.Table.from_batches([batch for batch, _, _ in self._held]))
        _, window, timestamp = self._held[0]
        self._held, self._rows = [], 0
        parts = query_batch(self._query, whole).column("part").combine_chunks()
        for part, rows in _split(whole, parts):
            yield WindowedValue((part, rows), timestamp, (window,))


def _split(batch: pa.RecordBatch, keys: pa.Array) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of a batch by an integer key."""
    order = pc.sort_indices(keys)
    if not len(order):
        return
    sorted_keys = keys.take(order).to_numpy(zero_copy_only=False)
    rows = batch.take(order)
    cuts = [0, *(np.flatnonzero(np.diff(sorted_keys)) + 1).tolist(), len(sorted_keys)]
    for start, end in itertools.pairwise(cuts):
        yield int(sorted_keys[start]), rows.slice(start, end - start)


COUNTED = pa.schema([("key", pa.int64()), ("rows", pa.int64())])


class Count(beam.DoFn):
    """How many rows there are of each number; where no other batch holds numbers between a batch's own, of all together."""

    def __init__(self, *, apart: bool) -> None:
        self._apart = apart

    def process(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Numbers and rows."""
        keys = batch.column(ROW).to_numpy()
        starts = _runs(keys, apart=self._apart)
        counts = np.diff([*starts, len(keys)])
        yield pa.RecordBatch.from_arrays([pa.array(keys[starts]), pa.array(counts, pa.int64())], schema=COUNTED)


class Number(beam.DoFn):
    """New numbers from 0 for rows that a step made, in the order of those that they came of."""

    def __init__(self, *, apart: bool) -> None:
        self._apart = apart
        self._known: tuple[int, np.ndarray, np.ndarray] | None = None

    def process(self, batch: pa.RecordBatch, counted: Sequence[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The batch with its new numbers; `counted` is what `Count` told of all batches."""
        keys, firsts = self._firsts(counted)
        own = batch.column(ROW).to_numpy()
        starts = _runs(own, apart=self._apart)
        lengths = np.diff([*starts, len(own)])
        found = firsts[np.searchsorted(keys, own[starts])]
        numbers = np.repeat(found - starts, lengths) + np.arange(len(own))
        place = batch.schema.get_field_index(ROW)
        yield batch.set_column(place, ROW, pa.array(numbers, pa.int64()))

    def _firsts(self, counted: Sequence[pa.RecordBatch]) -> tuple[np.ndarray, np.ndarray]:
        if self._known is None or self._known[0] != id(counted):
            table = pa.Table.from_batches(counted, COUNTED).sort_by("key")
            rows = table.column("rows").to_numpy()
            self._known = (id(counted), table.column("key").to_numpy(), np.cumsum(rows) - rows)
        return self._known[1:]


def _runs(keys: np.ndarray, *, apart: bool) -> np.ndarray:
    """Where a new number begins; only at the start where all numbers of the batch are its own."""
    if apart:
        return np.zeros(1, np.int64)
    return np.concatenate(([0], np.flatnonzero(np.diff(keys)) + 1))


class Fit(beam.CombineFn):
    """Summaries in, the state that they give out; in the order of their first rows, whoever comes first."""

    def __init__(self, op: Parcel[Operator], *, launched: bool) -> None:
        self._op = op
        self._launched = launched

    def create_accumulator(self) -> list[tuple[int, pa.RecordBatch]]:
        """No summary."""
        return []

    def add_input(
        self, accumulator: list[tuple[int, pa.RecordBatch]], element: tuple[int, pa.RecordBatch]
    ) -> list[tuple[int, pa.RecordBatch]]:
        """One summary more."""
        accumulator.append(element)
        return accumulator

    def merge_accumulators(
        self, accumulators: Iterable[list[tuple[int, pa.RecordBatch]]]
    ) -> list[tuple[int, pa.RecordBatch]]:
        """Concatenated summaries are again a summary."""
        return [summary for accumulator in accumulators for summary in accumulator]

    def extract_output(self, accumulator: list[tuple[int, pa.RecordBatch]]) -> pa.Table | None:
        """The state; none where there was no row."""
        if not accumulator:
            return None
        in_order = sorted(accumulator, key=lambda summary: summary[0])
        with told(launched=self._launched):
            return self._op.opened().fit(pa.Table.from_batches([summary for _, summary in in_order]))

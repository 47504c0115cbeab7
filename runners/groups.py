"""Rows group by group: the order that puts them so, and batches cut where a group ends."""

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc

from gdo.ask import ROW
from gdo.database import column_list, quote
from gdo.op import Operator
from gdo.runners.base import one_batch

GROUP = "__gdo_group__"
"""The column that tells a group: the number of its first row, null for rows that `where` leaves out."""


def by_group(op: Operator, table: str) -> str:
    """The query for a table's rows group by group, in the order in which groups first appear; then those of no group."""
    keys = column_list(op.group_by)
    partition = f"PARTITION BY {keys}" if keys else ""
    chosen = f"coalesce(CAST(({op.where}\n) AS BOOLEAN), false)" if op.where else "true"
    over = f"{partition + ', ' if partition else 'PARTITION BY '}{chosen}"
    group = f"CASE WHEN {chosen} THEN min({quote(ROW)}) OVER ({over}) END AS {quote(GROUP)}"
    return f"SELECT *, {group} FROM {table} ORDER BY {quote(GROUP)} NULLS LAST, {quote(ROW)}"


def whole_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of `by_group` in batches that end where a group ends, without the column that tells groups.

    Each row is copied once, however long its group.
    """
    held: list[pa.RecordBatch] = []
    group: object = None
    for batch in batches:
        last = batch.column(GROUP)[-1]
        # Rows of a group stand together, and rows of none, which need not wait for others, at the end.
        open_ = pc.sum(pc.equal(batch.column(GROUP), last)).as_py() if last.is_valid else 0
        cut = batch.num_rows - open_
        if held and (cut or group != last.as_py()):
            yield _joined([*held, batch.slice(0, cut)])
            held = []
        elif cut:
            yield _joined([batch.slice(0, cut)])
        if open_:
            held.append(batch.slice(cut))
            group = last.as_py()
    if held:
        yield _joined(held)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return one_batch(pa.Table.from_batches(batches).drop_columns([GROUP]))

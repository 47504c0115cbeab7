"""Rows group by group: the order that puts them so, and batches cut where a group ends."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

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
    """The rows of `by_group` in batches that hold whole groups, without the column that tells them."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        table = pa.Table.from_batches(held)
        groups = table.column(GROUP)
        last = groups[len(groups) - 1]
        cut = len(groups)
        while cut and last.is_valid and groups[cut - 1].equals(last):  # rows of no group need not wait for others
            cut -= 1
        if cut:
            yield one_batch(table.slice(0, cut).drop_columns([GROUP]))
        held = table.slice(cut).to_batches()
    if held:
        yield one_batch(pa.Table.from_batches(held).drop_columns([GROUP]))

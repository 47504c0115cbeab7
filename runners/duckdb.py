"""The embedded runner: DuckDB reads, filters and spills; several Arrow batches are in flight at once.

Memory is bounded by the batches in flight: what must be seen whole (groups, what is learned from, what several steps
read) waits in a DuckDB file in the run folder.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa

from gdo.ask import ROW
from gdo.database import column_list, message, quote
from gdo.desk import Desk
from gdo.errors import RunFailed
from gdo.op import Scope
from gdo.plan import Node, Plan, SourceNode
from gdo.runners.base import Work, conform, keeps_numbers, numbered
from gdo.runners.feed import Batches, Feed, renumbered
from gdo.runners.flight import IN_FLIGHT, in_order
from gdo.runners.groups import by_group, whole_groups
from gdo.sink import Writer, open_writer
from gdo.tables import Source

Out = TypeVar("Out")


class DuckDBRunner:
    """Runs a plan in this process.

    `spill` is a file that does not exist yet; it is removed at the end. `batch_rows` fixes the rows a batch; by
    default a small table is cut so that all batches in flight have work.
    """

    def __init__(self, desk: Desk, spill: Path, run_id: str, batch_rows: int | None = None) -> None:
        self.desk = desk
        self.spill = spill
        self.run_id = run_id
        self._batch_rows = batch_rows

    def run(self, plan: Plan) -> None:
        """Write every sink whole, or none of those not yet begun."""
        self.plan = plan
        self._spooled: dict[str, str] = {}
        try:
            self.feed = Feed(self.spill, plan.folder, self._batch_rows)
        except (duckdb.Error, OSError) as error:
            raise RunFailed(f"DuckDB: {message(error)}") from None
        self._pool = ThreadPoolExecutor(IN_FLIGHT * 4, thread_name_prefix="gdo-batch")
        writers: list[Writer] = []
        try:
            for sink in plan.sinks:
                writers.append(open_writer(sink.sink, plan.folder, plan.schema(sink.input), self.run_id))
                for batch in self._open(sink.input):
                    writers[-1].write(conform(batch, writers[-1].schema))
            self._check_edges()
            self._close()  # before the sinks are put in place: one may be a table of a database that was read
            for writer in writers:
                writer.commit()
        except BaseException as error:
            for writer in writers:
                writer.abort()
            if isinstance(error, duckdb.Error):
                raise RunFailed(f"DuckDB: {message(error)}") from error
            raise
        finally:
            self._close()

    def stop(self) -> None:
        """Send nothing more; what is in flight is finished and stored."""
        self.desk.stop()

    def _close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        self.feed.close()

    # What a name gives

    def _open(self, name: str) -> Batches:
        """The rows of a node or source, numbered, in order."""
        if name in self._spooled:
            return renumbered(self.feed.read(f"SELECT * FROM {self._spooled[name]}"), self.plan.schema(name), keep=True)
        if len(self.plan.readers(name)) > 1:
            self._spool(name)
            return self._open(name)
        return self._fresh(name)

    def _fresh(self, name: str) -> Batches:
        source = next((source for source in self.plan.sources if source.id == name), None)
        if source is not None:
            return self._source(source)
        node = self._node(name)
        if node.op.scope is Scope.FIT:
            return self._fitted(node)
        if node.op.scope is Scope.GROUP:
            return self._query(node) if node.op.sql() is not None and node.op.where is None else self._grouped(node)
        return self._chain(node)

    def _node(self, name: str) -> Node:
        return next(node for node in self.plan.nodes if node.id == name)

    def _work(self, node: Node, state: pa.Table | None = None) -> Work:
        return Work(node, numbered(node.schema), self.desk, state)

    def _chain(self, node: Node) -> Batches:
        """A run of row-by-row steps: each batch passes all of them in one go."""
        works: list[Work] = [self._work(node)]
        while True:
            above = next((n for n in self.plan.nodes if n.id == works[0].node.input), None)
            joins = above is not None and above.op.scope is Scope.BATCH and keeps_numbers(above.op)
            if above is None or not joins or len(self.plan.readers(above.id)) > 1 or above.id in self._spooled:
                break
            works.insert(0, self._work(above))

        def all_steps(batch: pa.RecordBatch) -> pa.RecordBatch:
            for work in works:
                batch = work(batch)
            return batch

        first = works[0].node
        if self._reads_source(first):
            rows = self._filtered(first)
            works.pop(0)
        else:
            rows = self._open(first.input)
        out = self._ordered(all_steps, rows) if works else rows
        return renumbered(out, node.schema, keep=keeps_numbers(node.op))

    # Sources

    def _reads_source(self, node: Node) -> bool:
        """Whether DuckDB can run a condition while it reads the file."""
        source = next((s for s in self.plan.sources if s.id == node.input), None)
        return (
            node.op.decides_by() is not None
            and node.op.where is None
            and source is not None
            and isinstance(source.source, Source)
            and len(self.plan.readers(source.id)) == 1
        )

    def _filtered(self, node: Node) -> Batches:
        source = next(s for s in self.plan.sources if s.id == node.input)
        query = node.op.sql(numbered=True)
        connection = self.feed.cursor()
        inner = self.feed.scan(source, connection)
        total = self.feed.total(source)
        self.desk.ledger.add(node.id, rows_in=total or 0)
        self.desk.ledger.step(source.id).rows_out = total or 0
        view = f"SELECT *, row_number() OVER () - 1 AS {quote(ROW)} FROM ({inner})"
        for batch in self.feed.read(query or "", view=view, connection=connection):
            self.desk.ledger.add(node.id, rows_out=batch.num_rows)
            yield conform(batch, numbered(node.schema))

    def _source(self, source: SourceNode) -> Batches:
        total = self.feed.total(source)
        self.desk.ledger.step(source.id).total = total
        if isinstance(source.source, Source):
            connection = self.feed.cursor()
            batches = self.feed.read(self.feed.scan(source, connection), connection=connection)
        else:
            batches = self.feed.stream(source)
        for batch in renumbered(batches, source.schema, keep=False):
            self.desk.ledger.add(source.id, rows_in=batch.num_rows, rows_out=batch.num_rows)
            yield batch

    def _spool(self, name: str) -> None:
        table = self.feed.store(numbered(self.plan.schema(name)), self._fresh(name))
        self._spooled[name] = table

    def _spooled_input(self, node: Node) -> str:
        if node.input not in self._spooled:
            self._spool(node.input)
        return self._spooled[node.input]

    # What must be seen whole

    def _query(self, node: Node) -> Batches:
        """A query over all rows, by DuckDB."""
        table = self._spooled_input(node)
        inner = column_list(self.plan.schema(node.input).names)
        out = self.feed.read(node.op.sql() or "", view=f"SELECT {inner} FROM {table}")
        self.desk.ledger.add(node.id, rows_in=self.feed.count(table))
        for batch in renumbered(out, node.schema, keep=False):
            self.desk.ledger.add(node.id, rows_out=batch.num_rows)
            yield batch

    def _grouped(self, node: Node) -> Batches:
        """Whole groups, in the order in which they first appear; rows that `where` leaves out come last."""
        query = by_group(node.op, self._spooled_input(node))
        out = self._ordered(self._work(node), whole_groups(self.feed.read(query)))
        return renumbered(out, node.schema, keep=False)

    def _fitted(self, node: Node) -> Batches:
        """Learn from all rows, then work on each slice."""
        table = self._spooled_input(node)
        query = f"SELECT * FROM {table}"
        schema = self.plan.schema(node.input)

        summaries = list(
            self._ordered(self._work(node).summarise, renumbered(self.feed.read(query), schema, keep=True))
        )
        state = node.op.fit(pa.concat_tables(summaries)) if summaries else None
        if state is not None:
            self.desk.learned(node.id, node.op, state)
        rows = renumbered(self.feed.read(query), schema, keep=True)
        out = self._ordered(self._work(node, state), rows)
        return renumbered(out, node.schema, keep=keeps_numbers(node.op))

    # Batches in flight

    def _ordered(self, work: Callable[[pa.RecordBatch], Out], batches: Batches) -> Iterator[Out]:
        return in_order(self._pool, work, batches)

    def _check_edges(self) -> None:
        steps = self.desk.ledger.steps
        for node in self.plan.nodes:
            gave, got = steps.get(node.input), steps.get(node.id)
            if gave and got and gave.rows_out != got.rows_in:
                raise RunFailed(
                    f"step '{node.id}' got {got.rows_in} rows of the {gave.rows_out} that '{node.input}' gave"
                )

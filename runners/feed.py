"""Batches out of DuckDB and into it: sources, queries, and tables that wait on disk."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa

from gdo.ask import ROW
from gdo.database import column_list, connect, literal, look_in, message
from gdo.distinct import counting
from gdo.errors import Faults, RunFailed
from gdo.plan import SourceNode
from gdo.runfolder import remove
from gdo.runners.base import conform, numbered
from gdo.runners.flight import IN_FLIGHT
from gdo.tables import Source, source_query

Batches = Iterator[pa.RecordBatch]
MAX_ROWS = 2048
MIN_ROWS = 32
FIRST_ROWS = 128


class Feed:
    """One DuckDB file for the length of a run; `folder` is that of the pipeline."""

    def __init__(self, spill: Path, folder: Path, batch_rows: int | None) -> None:
        self._spill = spill
        self._folder = folder
        self._batch_rows = batch_rows
        self._rows: dict[str, int] = {}
        self._numbers = itertools.count()
        spill.parent.mkdir(parents=True, exist_ok=True)
        self._db = connect(str(spill))
        self._db.execute(f"SET temp_directory = {literal(str(spill.with_suffix('.tmp')))}")

    def close(self) -> None:
        """Let every file go, and remove what was spilled."""
        self._db.close()
        for left in self._spill.parent.glob(f"{self._spill.stem}.*"):
            remove(left)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection with a transaction and settings of its own."""
        return self._db.cursor()

    def read(
        self, query: str, *, view: str | None = None, connection: duckdb.DuckDBPyConnection | None = None
    ) -> Batches:
        """The rows of a query, a few at a time; with `view`, `input` is that query.

        Raises:
            RunFailed: DuckDB cannot run it, or a file of it breaks off.
        """
        connection = connection or self._db.cursor()
        if view is not None:
            look_in(self._folder, connection)
            connection.execute(f"CREATE OR REPLACE TEMP VIEW input AS {view}")
        try:
            reader = connection.sql(query).to_arrow_reader(MAX_ROWS)
            before = 0
            for batch in reader:
                yield from self._pieces(batch, before)
                before += batch.num_rows
        except (duckdb.Error, OSError) as error:
            raise RunFailed(f"while reading: {message(error)}") from None
        finally:
            connection.close()

    def store(self, schema: pa.Schema, batches: Batches) -> str:
        """Put rows into a table on disk; its name."""
        table = f"spool_{next(self._numbers)}"
        connection = self.cursor()  # its own transaction: what it reads may have to be spooled first
        connection.register("__empty__", schema.empty_table())
        connection.execute(f"CREATE TABLE {table} AS SELECT * FROM __empty__")
        connection.execute("BEGIN")
        for batch in batches:
            connection.register("__batch__", pa.Table.from_batches([batch]))
            connection.execute(f"INSERT INTO {table} SELECT * FROM __batch__")
        connection.execute("COMMIT")
        connection.close()
        return table

    def count(self, table: str) -> int:
        """How many rows a stored table has."""
        row = self._db.execute(f"SELECT count(*) FROM {table}").fetchone()
        return int(row[0]) if row else 0

    # Sources

    def scan(self, source: SourceNode, connection: duckdb.DuckDBPyConnection) -> str:
        """The query that reads just the needed columns of a source."""
        assert isinstance(source.source, Source)  # noqa: S101 (told by the caller)
        query = source_query(source.source, self._folder, connection)
        limit = "" if source.limit is None else f" LIMIT {source.limit}"
        return f"SELECT {column_list(source.columns)} FROM ({query}\n){limit}"

    def stream(self, source: SourceNode) -> Batches:
        """The rows of an Arrow stream."""
        assert not isinstance(source.source, Source)  # noqa: S101 (told by the caller)
        left = source.limit
        before = 0
        for batch in pa.RecordBatchReader.from_stream(source.source):
            kept = conform(batch, source.schema).slice(0, left)
            yield from self._pieces(kept, before)
            before += kept.num_rows
            if left is not None:
                left -= kept.num_rows
                if not left:
                    return

    def total(self, source: SourceNode) -> int | None:
        """How many rows a source has, where that can be known; costs a pass over a text file."""
        if source.id in self._rows:
            return self._rows[source.id]
        if not isinstance(source.source, Source):
            total = getattr(source.source, "num_rows", None)
            total = min(total, source.limit or total) if isinstance(total, int) else None
        else:
            connection = self._db.cursor()
            try:
                row = connection.execute(f"SELECT count(*) FROM ({self.scan(source, connection)}\n)").fetchone()
            except duckdb.Error as error:
                raise Faults.one(source.source.text(), f"cannot be read: {message(error)}") from None
            total = int(row[0]) if row else None
        if total is not None:
            self._rows[source.id] = total
        return total

    def _size(self) -> int:
        if self._batch_rows is not None:
            return self._batch_rows
        total = max(self._rows.values(), default=MAX_ROWS * IN_FLIGHT)
        return max(MIN_ROWS, min(MAX_ROWS, -(-total // IN_FLIGHT)))

    def _pieces(self, batch: pa.RecordBatch, before: int = 0) -> Batches:
        """A batch in pieces; the first ones of a table are small, so that its first calls are soon on their way."""
        start = 0
        while start < batch.num_rows:
            size = self._size()
            if self._batch_rows is None:
                size = min(size, max(FIRST_ROWS, before + start))
            yield batch.slice(start, size)
            start += size


def renumbered(batches: Batches, schema: pa.Schema, *, keep: bool) -> Batches:
    """Batches of a schema with row numbers: their own, or new ones in order."""
    full = numbered(schema)
    start = 0
    for batch in batches:
        if keep:
            yield conform(batch, full)
            continue
        named = [name for name in batch.schema.names if name != ROW]
        numbers = counting(batch.num_rows, start)
        start += batch.num_rows
        yield conform(batch.select(named).append_column(ROW, numbers), full)

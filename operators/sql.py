"""`op: sql`."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
from pydantic import Field, PrivateAttr

from gdo.ask import ROW, Ask
from gdo.database import Query, describe, query_batch
from gdo.errors import Faults, Finding
from gdo.op import Operator, Rows, Scope, Site


class Sql(Operator, kind="sql"):
    """Any SELECT over the table `input`, by DuckDB.

    Rows: any number. A query whose rows each depend on one row alone streams; another one (GROUP BY, ORDER BY, joins,
    windows) sees the whole table, which waits on disk. No calls.
    """

    rows = Rows.ANY
    asks = False
    subject = "query"

    query: str = Field(min_length=1, description="A SELECT over the table `input`")

    _query: Query = PrivateAttr(default=Query(""))
    _folder: Path | None = PrivateAttr(default=None)

    def prepare(self, site: Site) -> list[Finding]:
        """Parse the query."""
        self._query = Query(self.query.strip().rstrip(";"))
        self._folder = site.folder
        try:
            self._query.tree  # noqa: B018 (parsed for its faults)
        except Faults as error:
            where = site.document.where((*site.loc, "query"))
            return [Finding(where, finding.what, finding.hint) for finding in error.findings]
        return []

    @property
    def scope(self) -> Scope:
        """A slice of rows, or all of them as one group."""
        return Scope.BATCH if self._query.is_row_wise else Scope.GROUP

    def cuts(self) -> bool:
        """What it does not read is not in its result."""
        return True

    def decides_by(self) -> frozenset[str] | None:
        """For `SELECT * FROM input WHERE ...`: the columns of the condition."""
        return self._query.names if self._query.is_row_filter else None

    def sql(self, *, numbered: bool = False) -> str | None:
        """The query itself."""
        if not numbered:
            return self._query.text
        return self._query.numbered(ROW) if self._query.is_row_wise else None

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """The columns without which the result would be another one; all of them under a `*`."""
        names = frozenset(columns)
        if self._query.has_star:
            return names
        folded = {name.lower() for name in self._query.names}
        return frozenset(name for name in names if name.lower() in folded)

    def writes(self, schema: pa.Schema) -> pa.Schema:
        """What DuckDB says that the query gives."""
        return describe(self._query.text, schema, self._folder)

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Run the query over the batch."""
        if not self._query.is_row_wise:
            batch = batch.drop_columns([ROW])
        table = query_batch(self.sql(numbered=self._query.is_row_wise) or "", batch, self._folder).combine_chunks()
        return table.to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], schema=table.schema)

"""Sources: where rows come from, as a query that DuckDB reads."""

import csv
import glob
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

import duckdb
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gdo.database import connect, literal, look_in, message, quote
from gdo.errors import Faults, Finding, nearest
from gdo.sink import suffix

# Left to guess, DuckDB may drop lines: those before what looks like a table, and those that begin with a '#'.
_EVERY_LINE = "sample_size = 100000, skip = 0, comment = ''"
READERS = {
    ".csv": f"read_csv({{paths}}, {_EVERY_LINE})",
    ".tsv": f"read_csv({{paths}}, delim = '\t', {_EVERY_LINE})",
    ".jsonl": "read_json({paths}, format = 'newline_delimited', sample_size = 100000)",
    ".ndjson": "read_json({paths}, format = 'newline_delimited', sample_size = 100000)",
    ".parquet": "read_parquet({paths})",
}


@runtime_checkable
class ArrowStream(Protocol):
    """Anything that exports an Arrow stream: a Polars or pandas frame, an Arrow table, a DuckDB relation."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule protocol."""


class Source(BaseModel):
    """Where rows come from: a file or a glob of files, a query, or a table of a DuckDB database."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str | None = Field(default=None, description="A csv, tsv, jsonl, ndjson or parquet file, or a glob of them")
    format: str | None = Field(default=None, description="csv, tsv, jsonl or parquet, where the name does not tell")
    sql: str | None = Field(default=None, description="A query that DuckDB runs; files stand in it as 'path'")
    database: str | None = Field(default=None, description="A DuckDB file; with `table`, or with `sql`")
    table: str | None = Field(default=None, description="A table of the database")

    @model_validator(mode="after")
    def _one_of(self) -> "Source":
        if self.path is not None and (self.sql or self.database or self.table):
            raise ValueError("`path` stands alone | or give `sql`, or `database` and `table`")
        if self.path is None and self.sql is None and self.table is None:
            raise ValueError("needs `path`, `sql`, or `database` and `table`")
        if self.table is not None and (self.database is None or self.sql is not None):
            raise ValueError("`table` goes with `database`")
        if self.format is not None and f".{self.format}" not in READERS:
            raise ValueError(f"unknown format '{self.format}' | one of csv, tsv, jsonl, parquet")
        return self

    def text(self) -> str:
        """The source in one line of a plan."""
        return ", ".join(f"{key}: {value}" for key, value in self.model_dump(exclude_none=True).items())


def source_query(source: Source, folder: Path, connection: duckdb.DuckDBPyConnection) -> str:
    """The query that reads a source; a database is attached to the connection under a name of its own.

    Raises:
        Faults: there is no such file, or its kind is not known (no place in the finding).
    """
    if source.path is not None:
        paths = paths_of(source.path, folder)
        kind = f".{source.format}" if source.format else suffix(paths[0].name)
        if kind not in READERS:
            raise Faults.one(
                "", f"'{source.path}' is of an unknown kind", "csv, tsv, jsonl or parquet, or say `format:`"
            )
        listed = ", ".join(literal(glob.escape(str(path))) for path in paths)
        return f"SELECT * FROM {READERS[kind].format(paths=f'[{listed}]')}"
    if source.database is None:
        return _in_folder(source.sql or "", folder, connection)
    path = folder / source.database
    if not path.is_file():
        near = nearest(path.name, (p.name for p in path.parent.glob("*"))) if path.parent.is_dir() else ""
        raise Faults.one("", f"no database file '{source.database}'", near)
    name = _attach(path, connection)
    if source.table is None:
        connection.execute(f"USE {quote(name)}")
        return _in_folder(source.sql or "", folder, connection)
    schema, table = "main", source.table
    there = "SELECT table_name FROM information_schema.tables WHERE table_catalog = ?"
    known = [str(row[0]) for row in connection.execute(there, [name]).fetchall()]
    if table not in known and "." in table:
        schema, _, table = table.rpartition(".")
    if table.lower() not in {word.lower() for word in known}:
        raise Faults.one("", f"cannot be read: no table '{table}' in '{source.database}'", nearest(table, known))
    return f"SELECT * FROM {quote(name)}.{quote(schema)}.{quote(table)}"


def _attach(path: Path, connection: duckdb.DuckDBPyConnection) -> str:
    attached = {row[0] for row in connection.execute("SELECT database_name FROM duckdb_databases()").fetchall()}
    name = next(name for i in range(1000) if (name := f"source_{i}") not in attached)
    try:
        connection.execute(f"ATTACH {literal(str(path))} AS {quote(name)} (READ_ONLY)")
    except duckdb.Error as error:
        raise Faults.one("", f"'{path}' is not a DuckDB database that can be read: {message(error)}") from None
    return name


def _in_folder(sql: str, folder: Path, connection: duckdb.DuckDBPyConnection) -> str:
    look_in(folder, connection)
    return sql.strip().rstrip(";")


def paths_of(pattern: str, folder: Path) -> list[Path]:
    """The files of a path or a glob, in order.

    Raises:
        Faults: there is none (no place in the finding).
    """
    path = folder / pattern
    if path.is_file():
        return [path]
    if path.is_dir():
        raise Faults.one(
            "", f"'{pattern}' is a folder", f"name a file, or a glob such as {pattern.rstrip('/')}/*.parquet"
        )
    if any(mark in pattern for mark in "*?["):
        names = glob.glob(f"{glob.escape(str(folder))}/{pattern}", recursive=True)  # noqa: PTH207 (absolute patterns)
        found = sorted(place for name in names if (place := Path(name)).is_file())
        if found:
            return found
        raise Faults.one("", f"no file matches '{pattern}'", "paths are relative to the pipeline file")
    near = nearest(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else ""
    raise Faults.one("", f"no such file '{pattern}'", near or "paths are relative to the pipeline file")


def source_schema(source: Source, folder: Path) -> pa.Schema:
    """The columns of a source.

    Raises:
        Faults: it cannot be read (no place in the finding).
    """
    with connect() as connection:
        query = source_query(source, folder, connection)
        try:
            schema = connection.sql(f"SELECT * FROM ({query}\n) LIMIT 0").to_arrow_table().schema
        except duckdb.Error as error:
            what = message(error)
            if "sniffing" in what:
                what = _ragged(source, folder, ",") or what
            raise Faults.one("", f"cannot be read: {what}") from None
        only = schema.names[0] if len(schema) == 1 else ""
        # Where its lines differ in their number of fields, DuckDB takes each line for one value.
        marks = [mark for mark in ",;|\t" if mark in only] or [","] * (only == "column0")
        what = _ragged(source, folder, marks[0]) if marks else ""
        if what:
            raise Faults.one("", f"cannot be read: {what}")
        return schema


def _ragged(source: Source, folder: Path, mark: str) -> str:
    """Which line of a text table has more or fewer fields than its header; nothing if none has."""
    if source.path is None or Path(source.path).suffix.lower() not in {".csv", ".tsv"}:
        return ""
    for path in paths_of(source.path, folder):
        if not path.stat().st_size:
            return "the file is empty"
        with path.open(encoding="utf-8", errors="replace", newline="") as lines:
            rows = csv.reader(lines, delimiter=mark)
            wanted = len(next(rows))
            for row in rows:
                if row and len(row) != wanted:
                    return f"line {rows.line_num} of {path.name} has {len(row)} fields, its header {wanted}"
    return ""


def placed(error: Faults, where: str) -> Iterator[Finding]:
    """Findings that lack a place, with one."""
    for finding in error.findings:
        yield finding if finding.where else Finding(where, finding.what, finding.hint)

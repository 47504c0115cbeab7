"""Sinks: where rows go, written beside their name and renamed when whole."""

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path

import duckdb
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gdo.database import connect, literal, message, quote
from gdo.encode import Encoder, type_fault
from gdo.errors import RunFailed
from gdo.runfolder import remove

FORMATS = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
COMPRESSED = (".gz", ".zst")


class Sink(BaseModel):
    """Where rows go: a file, or a table of a DuckDB database; what was there before is replaced when all is written."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    path: str | None = Field(default=None, description="A parquet, csv, tsv or jsonl file")
    database: str | None = Field(default=None, description="A DuckDB file, made if it is not there")
    table: str | None = Field(default=None, description="A table of the database, replaced when all is written")
    from_: str | None = Field(default=None, alias="from", description="The step to write; the last one by default")

    @model_validator(mode="after")
    def _one_of(self) -> "Sink":
        if (self.path is None) == (self.database is None):
            raise ValueError("needs `path`, or `database` and `table`")
        if (self.database is None) != (self.table is None):
            raise ValueError("`database` and `table` go together")
        if self.path is not None and suffix(self.path) not in FORMATS:
            raise ValueError(f"'{self.path}' is of an unknown kind | a name that ends in {', '.join(FORMATS)}")
        if self.path is not None and ".parquet." in self.path.lower() and self.path.lower().endswith(COMPRESSED):
            raise ValueError(
                f"'{self.path}' would be compressed twice | a parquet file is compressed inside: end in .parquet"
            )
        return self

    def text(self) -> str:
        """The sink in one line of a plan and of the summary."""
        return self.path or f"{self.database} (table {self.table})"


def suffix(path: str) -> str:
    """The ending that tells a file's format; that of compression is passed over."""
    name = path.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def stem(place: str) -> tuple[str, str]:
    """What stands before the number of a shard, and behind it.

    >>> stem("out/cat.v2.csv.gz")
    ('out/cat.v2', '.csv.gz')
    """
    found = re.search(r"\.\w+(\.(gz|zst))?$", place.lower())
    cut = found.start() if found else len(place)
    return place[:cut], place[cut:]


def shard(place: str, number: int, count: int) -> str:
    """The name of one of the files that a sink is written to by many workers.

    >>> shard("out/cat.parquet", 0, 16)
    'out/cat-00000-of-00016.parquet'
    """
    before, after = stem(place)
    return f"{before}-{number:05}-of-{count:05}{after}"


def shards(place: str, names: Iterable[str]) -> list[str]:
    """Those of some files that are shards of a sink, in order."""
    before, after = map(re.escape, stem(place))
    whole = re.compile(rf"{before}-\d{{5,}}-of-\d{{5,}}{after}")
    return sorted(name for name in names if whole.fullmatch(name))


def parts_of(sink: Sink, folder: Path, run_id: str) -> list[Path]:
    """Where a run writes a sink before it is whole."""
    place = folder / (sink.path or sink.database or "")
    return [part_of(place, run_id)] if sink.table is None else _table_parts(place, sink.table, run_id)


def _table_parts(place: Path, table: str, run_id: str) -> list[Path]:
    """A database, and what DuckDB may make beside it."""
    part = part_of(place.with_name(f"{place.name}.{table}".replace("/", "_")), run_id)
    return [part, *(part.with_name(part.name + ending) for ending in (".wal", ".tmp"))]


def part_of(place: Path, run_id: str) -> Path:
    """Where a file is written before it is whole."""
    return place.with_name(f".{place.name}.{run_id}.part")


class Writer(ABC):
    """Takes batches in order; nobody sees the sink change before `commit`."""

    def __init__(self, place: Path, schema: pa.Schema) -> None:
        self.place = place
        self.schema = schema

    @abstractmethod
    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows.

        Raises:
            RunFailed: the disk or the database refused.
        """

    @abstractmethod
    def commit(self) -> None:
        """Put the whole result in its place."""

    @abstractmethod
    def abort(self) -> None:
        """Leave no trace."""


def sink_fault(sink: Sink, folder: Path) -> tuple[str, str]:
    """Why a sink cannot be written, and a hint, as far as a look can tell before the run; empty texts for nothing."""
    place = folder / (sink.path or sink.database or "")
    if place.is_dir():
        return f"'{place.name}' is a folder", "name a file"
    there = next(parent for parent in place.absolute().parents if parent.exists())
    if not there.is_dir():
        return f"'{there}' is a file, not a folder", "write somewhere else"
    if not os.access(there, os.W_OK):
        return f"no permission to write in '{there}'", "write somewhere else"
    return "", ""


def open_writer(sink: Sink, folder: Path, schema: pa.Schema, run_id: str) -> Writer:
    """The writer of a sink; folders on the way are made.

    Raises:
        RunFailed: it cannot be written there.
    """
    place = folder / (sink.path or sink.database or "")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if sink.table is not None:
            return TableWriter(place, schema, sink.table, run_id)
        if place.is_dir():
            raise RunFailed(f"{place}: is a folder (name a file)")
        return FileWriter(place, schema, run_id)
    except (OSError, duckdb.Error) as error:
        raise RunFailed(f"{place}: cannot be written: {error}") from None


class FileWriter(Writer):
    """A parquet, csv, tsv or jsonl file; the ending tells which, and .gz or .zst compresses."""

    def __init__(self, place: Path, schema: pa.Schema, run_id: str) -> None:
        super().__init__(place, schema)
        self.beside = part_of(place, run_id)
        kind = suffix(place.name)
        compression = {".gz": "gzip", ".zst": "zstd"}.get(place.suffix.lower())
        fault = type_fault(kind, schema)
        if fault:
            raise RunFailed(f"{place}: {fault}")
        self._rows = Encoder(pa.output_stream(str(self.beside), compression=compression), kind, schema)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        try:
            self._rows.write(batch)
        except OSError as error:
            raise RunFailed(f"{self.place}: cannot be written: {error}") from None

    def commit(self) -> None:
        """Close, and rename over the old file in one step."""
        try:
            self._rows.close()
            os.replace(self.beside, self.place)  # noqa: PTH105 (the word for it)
        except OSError as error:
            raise RunFailed(f"{self.place}: cannot be written: {error}") from None

    def abort(self) -> None:
        """Remove the part that was written."""
        try:
            self._rows.abandon()
        except OSError:
            pass
        finally:
            self.beside.unlink(missing_ok=True)


class TableWriter(Writer):
    """A table of a DuckDB database; rows wait in a database beside it, so a run may read the one that it writes to."""

    def __init__(self, place: Path, schema: pa.Schema, table: str, run_id: str) -> None:
        super().__init__(place, schema)
        self.table = table
        if place.is_file() and place.stat().st_size and not _is_database(place):
            raise RunFailed(f"{place}: is not a DuckDB database")
        self._parts = _table_parts(place, table, run_id)
        self.beside = self._parts[0]
        self._connection = connect(str(self.beside))
        self._connection.register("__schema__", schema.empty_table())
        self._connection.execute("CREATE TABLE result AS SELECT * FROM __schema__")

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        try:
            self._connection.register("__batch__", pa.Table.from_batches([batch]))
            self._connection.execute("INSERT INTO result SELECT * FROM __batch__")
        except duckdb.Error as error:
            raise RunFailed(f"{self.place}: cannot be written: {message(error)}") from None

    def commit(self) -> None:
        """Put the new table in the old one's place, in one transaction."""
        self._connection.close()
        try:
            with connect(str(self.place)) as target:
                target.execute(f"ATTACH {literal(str(self.beside))} AS __part__ (READ_ONLY)")
                target.execute("BEGIN")
                target.execute(f"CREATE OR REPLACE TABLE {quote(self.table)} AS SELECT * FROM __part__.result")
                target.execute("COMMIT")
        except duckdb.Error as error:
            raise RunFailed(f"{self.place}: cannot be written: {message(error)}") from None
        finally:
            self.abort()

    def abort(self) -> None:
        """Leave no trace."""
        self._connection.close()
        for left in self._parts:
            remove(left)


def _is_database(place: Path) -> bool:
    with place.open("rb") as file:
        return file.read(12)[8:] == b"DUCK"

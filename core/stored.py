"""What a sink holds, read again."""

import glob
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from gdo.database import connect, quote
from gdo.encode import flat_schema
from gdo.errors import Faults
from gdo.sink import Sink, shards, stem, suffix
from gdo.tables import Source, source_query


def read_sink(sink: Sink, folder: Path, schema: pa.Schema | None = None) -> pa.Table:
    """What a sink holds; with its schema, a csv file is read in the types that were written (lists and records as text)."""
    if sink.database is not None:
        with connect(str(folder / sink.database), read_only=True) as connection:
            return connection.sql(f"SELECT * FROM {quote(sink.table or '')}").to_arrow_table()
    if "://" in (sink.path or ""):
        raise Faults.one(
            "table", f"'{sink.path}' lies on another filesystem", "read it there, by the tools that know it"
        )
    path = folder / (sink.path or "")
    before, after = stem(str(path))
    parts = shards(str(path), glob.glob(f"{glob.escape(before)}-*-of-*{glob.escape(after)}"))  # noqa: PTH207
    if parts and not path.exists():
        return pa.concat_tables([read_file(Path(part), folder, schema) for part in parts])
    return read_file(path, folder, schema)


def whereabouts(sink: Sink, folder: Path) -> str:
    """Where a sink is, for a user who wants to read it: a file, or a pattern of the files that it was written in."""
    if "://" in (sink.path or ""):
        before, after = stem(str(sink.path))
        return f"{before}-*-of-*{after}"
    path = folder / sink.text()
    before, after = stem(str(path))
    parts = shards(str(path), glob.glob(f"{glob.escape(before)}-*-of-*{glob.escape(after)}"))  # noqa: PTH207
    if sink.path is None or path.exists() or not parts:
        return str(path)
    return f"{before}-*{parts[0][-len(after) - 9 :]}"


def read_file(path: Path, folder: Path, schema: pa.Schema | None = None) -> pa.Table:
    """What one file of a sink holds."""
    if suffix(path.name) == ".parquet":
        return pyarrow.parquet.read_table(path)
    if schema is not None and suffix(path.name) in {".csv", ".tsv"}:
        kinds = {field.name: field.type for field in flat_schema(schema)}
        convert = pyarrow.csv.ConvertOptions(
            column_types=kinds, strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        parse = pyarrow.csv.ParseOptions(
            delimiter="\t" if suffix(path.name) == ".tsv" else ",", newlines_in_values=True
        )
        return pyarrow.csv.read_csv(path, parse_options=parse, convert_options=convert)
    with connect() as connection:
        return connection.sql(source_query(Source(path=str(path)), folder, connection)).to_arrow_table()

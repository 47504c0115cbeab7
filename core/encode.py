"""Rows as the bytes of a parquet, csv, tsv or jsonl file."""

from decimal import Decimal

import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

GROUP_ROWS = 1 << 16
GROUP_BYTES = 32 << 20


def type_fault(kind: str, schema: pa.Schema) -> str:
    """Why a file of this kind (its ending) cannot hold such columns; an empty text where it can."""
    for field in schema:
        if kind not in {".jsonl", ".ndjson"} and pa.types.is_interval(field.type):
            return f"the column '{field.name}' is an interval, which a {kind} file cannot hold (cast it in an sql step)"
    return ""


class Encoder:
    """Writes batches of a schema to a stream, which it closes; `kind` is the ending that tells the format."""

    def __init__(self, stream: pa.NativeFile, kind: str, schema: pa.Schema) -> None:
        self.kind = kind
        self._stream = stream
        self._table: pyarrow.parquet.ParquetWriter | pyarrow.csv.CSVWriter | None = None
        self._held: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = 0
        if kind == ".parquet":
            self._table = pyarrow.parquet.ParquetWriter(stream, schema, compression="zstd")
        elif kind in {".csv", ".tsv"}:
            self._flat = flat_schema(schema)
            options = pyarrow.csv.WriteOptions(delimiter="\t" if kind == ".tsv" else ",")
            self._table = pyarrow.csv.CSVWriter(stream, self._flat, write_options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows."""
        if self._table is None:
            rows = batch.to_pylist()
            self._stream.write(b"".join(orjson.dumps(row, default=_json) + b"\n" for row in rows))
        elif self.kind == ".parquet":
            self._hold(batch)
        else:
            self._table.write_batch(flattened(batch, self._flat))

    def _hold(self, batch: pa.RecordBatch) -> None:
        """Keep rows until they make a row group that is worth reading."""
        self._held.append(batch)
        self._held_rows += batch.num_rows
        self._held_bytes += batch.nbytes
        if self._held_rows >= GROUP_ROWS or self._held_bytes >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._held and self._table is not None:
            self._table.write_table(pa.Table.from_batches(self._held).combine_chunks())
        self._held, self._held_rows, self._held_bytes = [], 0, 0

    def close(self) -> None:
        """Write what is held back, and close."""
        self._flush()
        self.abandon()

    def abandon(self) -> None:
        """Close, whatever is missing."""
        if self._table is not None:
            self._table.close()
        if not self._stream.closed:
            self._stream.close()


def _needs_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def flat_schema(schema: pa.Schema) -> pa.Schema:
    """A schema as a csv file holds it: what is nested or binary is text, and an enumeration its words."""
    return pa.schema([field.with_type(_flat(field.type)) for field in schema])


def _flat(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    return pa.string() if _needs_text(kind) else kind


def _json(value: object) -> object:
    """How JSON writes what it has no word for: decimals as numbers, bytes in hexadecimal, the rest as text."""
    if isinstance(value, Decimal):
        whole = value == value.to_integral_value() and abs(value) < 2**53
        return int(value) if whole else float(value)
    return value.hex() if isinstance(value, bytes) else str(value)


def flattened(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch whose lists and structs are JSON texts and whose bytes are hexadecimal: what a csv file can hold."""
    columns = []
    for field, column in zip(schema, batch.columns, strict=True):
        if pa.types.is_nested(column.type):
            texts = [None if v is None else orjson.dumps(v, default=_json).decode() for v in column.to_pylist()]
            columns.append(pa.array(texts, field.type))
        elif _needs_text(column.type):
            columns.append(pa.array([None if v is None else v.hex() for v in column.to_pylist()], field.type))
        else:
            columns.append(column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)

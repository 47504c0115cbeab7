"""Rows of a user's own Beam pipeline: into batches with numbers, and out of them again, by Beam's schemas."""

import keyword
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from types import UnionType
from typing import Any, Optional

import apache_beam as beam
import pyarrow as pa
from apache_beam.portability.api import schema_pb2
from apache_beam.typehints import arrow_type_compatibility as compatible
from apache_beam.typehints import typehints
from apache_beam.typehints.native_type_compatibility import convert_to_beam_type
from apache_beam.typehints.row_type import RowTypeConstraint
from apache_beam.typehints.schemas import typing_from_runner_api, typing_to_runner_api
from apache_beam.utils.windowed_value import WindowedValue

from gdo.ask import ROW
from gdo.distinct import counting
from gdo.errors import Faults
from gdo.runners.base import numbered
from gdo.runners.beam_arrow import BatchCoder
from gdo.runners.feed import MAX_ROWS

_SHIFT = 20
_BASES = 1 << 40
_LIST = type(typehints.List[int])
_DICT = type(typehints.Dict[str, int])


def arrow_schema(element: object) -> pa.Schema:
    """The columns of a PCollection's rows.

    Raises:
        Faults: its elements have no schema, or one that Arrow has no word for.
    """
    row = element if isinstance(element, RowTypeConstraint) else RowTypeConstraint.from_user_type(element)
    if row is None:
        hint = "rows are beam.Row(...) or a NamedTuple; say it with .with_output_types(...)"
        raise Faults.one("gdo.beam", f"elements of {element} have no schema", hint)
    return pa.schema([_field(name, kind) for name, kind in row._fields])


def _field(name: str, kind: Any) -> pa.Field:
    row = RowTypeConstraint.from_fields([(name, _settled([kind]))])
    try:
        (field,) = compatible.arrow_schema_from_beam_schema(typing_to_runner_api(row).row_type.schema)
    except (ValueError, NotImplementedError):  # Beam's dates, times and decimals, and what it knows no type of
        hint = "say its type (.with_output_types(...), in Beam YAML output_type: string), or turn it into text or a number first"
        word = getattr(kind, "__name__", kind)
        raise Faults.one("gdo.beam", f"the column '{name}' of the rows cannot be read: it is {word}", hint) from None
    return pa.field(name, _plain(field.type))


def _settled(kinds: Iterable[Any]) -> Any:
    """The one type of values that Beam has found types for: an empty list is of whatever type the others are.

    Where there is none, what Beam makes of them.
    """
    members = [member for kind in kinds for member in _members(kind)]
    known = [kind for kind in dict.fromkeys(members) if kind not in (type(None), Any, typehints.Any)]
    if not known:
        return Any
    settled = _one(known)
    return Optional[settled] if type(None) in members else settled  # noqa: UP045 (it is what Beam reads)


def _members(kind: Any) -> Iterable[Any]:
    """The types of a union, by whatever word; else the type itself."""
    if isinstance(kind, UnionType):
        return [convert_to_beam_type(member) for member in kind.__args__]
    kind = convert_to_beam_type(kind)
    return kind.union_types if isinstance(kind, typehints.UnionConstraint) else [kind]


def _one(kinds: list[Any]) -> Any:
    """What types have in common that are not null."""
    if all(isinstance(kind, _LIST) for kind in kinds):
        return typehints.List[_settled(kind.inner_type for kind in kinds)]
    if all(isinstance(kind, _DICT) for kind in kinds):
        return typehints.Dict[_settled(kind.key_type for kind in kinds), _settled(kind.value_type for kind in kinds)]
    if all(isinstance(kind, RowTypeConstraint) for kind in kinds):
        columns = [dict(kind._fields) for kind in kinds]
        if all(column.keys() == columns[0].keys() for column in columns):
            fields = [(name, _settled(column[name] for column in columns)) for name in columns[0]]
            return RowTypeConstraint.from_fields(fields)
    if set(kinds) == {int, float}:
        return float
    return kinds[0] if len(kinds) == 1 else typehints.Union[tuple(kinds)]


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type without what Beam says of its parts: their names, and whether they may be null."""
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, _plain(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    return kind


def row_type(schema: pa.Schema) -> type:
    """The type of rows with such columns; what Beam's schemas have no word for is text.

    Raises:
        Faults: a column's name cannot be that of an attribute.
    """
    wrong = [name for name in schema.names if not name.isidentifier() or keyword.iskeyword(name) or name[0] == "_"]
    if wrong:
        raise Faults.one("gdo.beam", f"a row cannot have an attribute '{wrong[0]}'", "rename the column with `into`")
    told = compatible.beam_schema_from_arrow_schema(
        pa.schema([field.with_type(_known(field.type)) for field in schema])
    )
    found: type = typing_from_runner_api(schema_pb2.FieldType(row_type=schema_pb2.RowType(schema=told)))
    return found


def _known(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_list(kind):
        return pa.list_(_known(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_known(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_known(kind.key_type), _known(kind.item_type))
    return kind if kind in compatible.PYARROW_TO_ATOMIC_TYPE else pa.string()


class ToBatches(beam.DoFn):
    """Rows with a schema in, numbered batches out.

    The rows of a PCollection have no order: a batch is numbered by its content, so that a bundle that is done again
    gives the same numbers.
    """

    def __init__(self, schema: pa.Schema, batch_rows: int = MAX_ROWS) -> None:
        self._schema = schema
        self._size = batch_rows

    def start_bundle(self) -> None:
        """No row is held."""
        self._held: list[object] = []
        self._mark: tuple[object, object] | None = None

    def process(
        self, row: Any, window: object = beam.DoFn.WindowParam, timestamp: object = beam.DoFn.TimestampParam
    ) -> Iterator[object]:
        """Hold the row; a batch when it is full, or when another window begins."""
        if self._held and self._mark is not None and self._mark[0] != window:
            yield self._batch()
        self._mark = (window, timestamp)
        self._held.append(row)
        if len(self._held) >= self._size:
            yield self._batch()

    def finish_bundle(self) -> Iterator[object]:
        """What is left."""
        if self._held:
            yield self._batch()

    def _batch(self) -> WindowedValue:
        assert self._mark is not None  # noqa: S101 (a row is held)
        arrays = [_array([getattr(row, field.name) for row in self._held], field.type) for field in self._schema]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._schema)
        digest = blake2b(BatchCoder().encode(batch), digest_size=8).digest()
        first = int.from_bytes(digest, "big") % _BASES << _SHIFT
        numbers = counting(batch.num_rows, first)
        window, timestamp = self._mark
        self._held, self._mark = [], None
        numbered_batch = pa.RecordBatch.from_arrays([*batch.columns, numbers], schema=numbered(self._schema))
        return WindowedValue(numbered_batch, timestamp, (window,))


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """Values of rows as a column."""
    if pa.types.is_nested(kind):
        take = _taken(kind)
        values = [take(value) for value in values]
    return pa.array(values, kind)


def _taken(kind: pa.DataType) -> Callable[[Any], object]:
    """How a value of a row stands in a column: what Arrow takes for it."""
    if pa.types.is_list(kind):
        item = _taken(kind.value_type)
        return lambda value: None if value is None else [item(part) for part in value]
    if pa.types.is_struct(kind):
        parts = {field.name: _taken(field.type) for field in kind}
        return lambda value: (
            None if value is None else {name: take(getattr(value, name)) for name, take in parts.items()}
        )
    if pa.types.is_map(kind):
        key, item = _taken(kind.key_type), _taken(kind.item_type)
        return lambda value: None if value is None else [(key(k), item(v)) for k, v in value.items()]
    return lambda value: value


class ToRows(beam.DoFn):
    """Batches in, rows out."""

    def process(self, batch: pa.RecordBatch) -> Iterator[beam.Row]:
        """Each row, without its number."""
        batch = batch.drop_columns([ROW]) if ROW in batch.schema.names else batch
        columns = [
            [turn(value) for value in column.to_pylist()]
            for column, turn in zip(batch.columns, map(_turn, batch.schema.types), strict=True)
        ]
        names = batch.schema.names
        for values in zip(*columns, strict=True):
            yield beam.Row(**dict(zip(names, values, strict=True)))


def _turn(kind: pa.DataType) -> Callable[[object], object]:
    """How a value of a column stands in a row."""
    if pa.types.is_list(kind):
        item = _turn(kind.value_type)
        return lambda value: None if value is None else [item(part) for part in value]  # type: ignore[attr-defined]
    if pa.types.is_struct(kind):
        parts = {field.name: _turn(field.type) for field in kind}
        return lambda value: (
            None if value is None else beam.Row(**{name: turn(value[name]) for name, turn in parts.items()})  # type: ignore[index]
        )
    if pa.types.is_map(kind):
        key, part = _turn(kind.key_type), _turn(kind.item_type)
        return lambda value: None if value is None else {key(k): part(v) for k, v in value}  # type: ignore[attr-defined]
    if kind in compatible.PYARROW_TO_ATOMIC_TYPE:
        return lambda value: value
    return lambda value: None if value is None else value.isoformat() if hasattr(value, "isoformat") else str(value)

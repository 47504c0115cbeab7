"""SQL functions: what a call asks, as a step of a pipeline, so that its prompts and cache keys are those of `gdo run`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from gdo.answers import Answers
from gdo.ask import ROW
from gdo.errors import Faults
from gdo.op import absent, answer_fields
from gdo.prompted import Compiled

Settled = tuple[object, ...]
"""The arguments that say what is asked: a template, labels, a schema."""
Asking = Callable[["Function", Compiled, pa.RecordBatch], Answers]


@dataclass(frozen=True)
class Function:
    """One SQL function of `count` arguments.

    `settles` are the places of the arguments that say what is asked; the others are the row: a struct in the place
    `struct`, or one argument for each of `inputs`. `kind` is the type of the result; with `json` that is text which holds
    the answer. Null gives null: with `strict` where any input is null, without it where all are that the prompt reads.
    """

    name: str
    count: int
    kind: pa.DataType
    step: Callable[[Settled], Compiled] = field(repr=False)
    settles: tuple[int, ...] = ()
    struct: int | None = None
    inputs: tuple[str, ...] = ()
    strict: bool = False
    json: bool = False
    only: str = ""
    """The name of a UDP's only field."""

    def flat(self, arguments: pa.RecordBatch) -> pa.RecordBatch:
        """Arguments by their places as plain columns: what is in the struct stands by itself, under `1.title`."""
        place = arguments.schema.get_field_index(str(self.struct))
        if place < 0 or not pa.types.is_struct(arguments.column(place).type):
            return arguments
        column = arguments.column(place)
        found = dict(zip(arguments.schema.names, arguments.columns, strict=True))
        del found[str(self.struct)]
        if not column.type.num_fields:  # columns tell how many rows there are
            return pa.RecordBatch.from_pydict(found | {str(self.struct): pa.nulls(arguments.num_rows)})
        names = [f"{self.struct}.{part.name}" for part in column.type]
        return pa.RecordBatch.from_pydict(found | dict(zip(names, column.flatten(), strict=True)))

    @property
    def key(self) -> str:
        """Its name in a registry: `prompt` of two arguments and of three are two functions."""
        return f"{self.name.lower()} json" if self.json else self.name.lower()

    @property
    def signature(self) -> str:
        """Its arguments in words."""
        if self.struct is not None:
            return "template, struct" if self.count == len(self.settles) + 1 == 2 else "template, struct, schema"  # noqa: PLR2004
        return ", ".join((*self.inputs, "labels")) if self.settles else ", ".join(self.inputs)

    def answer(self, rows: pa.RecordBatch, asking: Asking) -> pa.Array:
        """The answers to rows of arguments that `flat` made plain.

        Raises:
            Faults: a template, labels or a schema are wrong, or a template reads what its row does not have.
        """
        columns = self._columns(rows)
        pieces, order, filled = [pa.nulls(1, self.kind)], [0] * rows.num_rows, 1
        for settled, places in self._groups(rows, columns).items():
            op = self.step(settled)
            batch = self._batch(op, columns, places)
            pieces.append(self._shaped(asking(self, op, batch), op))
            for number, place in enumerate(places, filled):
                order[place] = number
            filled += len(places)
        return pa.concat_arrays(pieces).take(pa.array(order, pa.int64()))

    def typed(self, schema: str) -> "Function":
        """The same function for one schema: its result has that type and is no text.

        Raises:
            Faults: the schema is wrong.
        """
        return replace(self, kind=answer_kind(self.step(("the type of an answer", schema))), json=False)

    def _columns(self, rows: pa.RecordBatch) -> dict[str, pa.Array]:
        """The row by the names that a template calls it by."""
        if self.struct is None:
            places = [place for place in range(self.count) if place not in self.settles]
            return {name: rows.column(str(place)) for name, place in zip(self.inputs, places, strict=True)}
        if str(self.struct) in rows.schema.names:
            kind = rows.schema.field(str(self.struct)).type
            if pa.types.is_null(kind) or not rows.num_rows:
                return {}
            what = f"its argument {self.struct + 1} is a {kind}, not a struct"
            raise Faults.one(self.name, what, "name the values that the template reads: {t: title}")
        named = (name.partition(".") for name in rows.schema.names)
        return {inner: rows.column(f"{place}.{inner}") for place, _, inner in named if place == str(self.struct)}

    def _groups(self, rows: pa.RecordBatch, columns: Mapping[str, pa.Array]) -> dict[Settled, list[int]]:
        """The places of the rows to ask, by what is asked."""
        wanted = [True] * rows.num_rows
        if self.strict:
            for column in columns.values():
                wanted = pc.and_(pa.array(wanted, pa.bool_()), column.is_valid()).to_pylist()
        if self.struct is not None and not columns:
            return {}
        settled = [rows.column(str(place)).to_pylist() for place in self.settles]
        groups: dict[Settled, list[int]] = {}
        for place in range(rows.num_rows):
            key = tuple(_fixed(values[place]) for values in settled)
            if wanted[place] and None not in key:
                groups.setdefault(key, []).append(place)
        return groups

    def _batch(self, op: Compiled, columns: Mapping[str, pa.Array], places: Sequence[int]) -> pa.RecordBatch:
        """The rows that a prompt is asked for, with just the columns that it reads."""
        read = sorted(op.compiled.columns)
        lacking = absent(read, pa.schema([(name, column.type) for name, column in columns.items()]))
        if lacking:
            name, hint = lacking[0]
            raise Faults.one(self.name, f"the template reads '{name}', which its struct does not have", hint)
        chosen = pa.array(places, pa.int64())
        whole = len(places) == len(next(iter(columns.values()), places))
        picked = {name: columns[name] if whole else columns[name].take(chosen) for name in read}
        return pa.RecordBatch.from_pydict({**picked, ROW: list(range(len(places)))})

    def _shaped(self, answers: Answers, op: Compiled) -> pa.Array:
        parts = op.compiled.output.names
        array = answers.record if len(parts) > 1 else answers.column(parts[0])
        if not self.json:
            return array
        return pa.array([None if v is None else orjson.dumps(v).decode() for v in array.to_pylist()], pa.string())


def answer_kind(op: Compiled) -> pa.DataType:
    """The type of a step's answer: a struct, or the bare type where it has one field."""
    return answer_fields(op.compiled.output, into="answer")[0].type


def _fixed(value: object) -> object:
    """A value that can be looked up; a list with a null in it is no list of labels."""
    return tuple(value) if isinstance(value, list) else value

"""`op: python`."""

import importlib
import re
import sys
from collections.abc import Callable, Iterable

import pyarrow as pa
from pydantic import Field, PrivateAttr, field_validator

from gdo.ask import ROW, Ask
from gdo.errors import Finding, RunFailed
from gdo.ledger import Failure
from gdo.no_pandas import expect_pandas
from gdo.op import Operator, Site, answer_fields, put_column
from gdo.schema import Record
from gdo.udp import UdpBuilder

Function = Callable[[pa.RecordBatch], pa.RecordBatch]


class Python(Operator, kind="python"):
    """Compute columns by a Python function: the UDF behind the interface of a UDP, so that one can replace the other.

    Rows: the same. `function` gets a RecordBatch and returns one of as many rows that holds the columns of `writes`.
    Where it raises, the batch is halved until the rows that make it raise are found; they alone fail. One that returns
    something else ends the run. No calls.
    """

    asks = False

    function: str = Field(description="module:name, a function RecordBatch -> RecordBatch")
    declared: dict[str, object] = Field(alias="writes", description="The columns that it gives, name to type")

    @field_validator("function")
    @classmethod
    def _is_place(cls, value: str) -> str:
        if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", value):
            raise ValueError(f"'{value}' names no function | write module:name, for example prices:add_tax")
        return value

    _call: Function | None = PrivateAttr(default=None)
    _output: Record = PrivateAttr(default=Record(()))

    def prepare(self, site: Site) -> list[Finding]:
        """Import the function; modules beside the pipeline file are found."""
        faults: list[Finding] = []
        here = UdpBuilder(site.document, site.loc, faults)
        self._output = here.output(self.declared, ("writes",))
        if str(site.folder) not in sys.path:
            sys.path.insert(0, str(site.folder))
        module, _, name = self.function.partition(":")
        expect_pandas()
        try:
            found: object = importlib.import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except Exception as error:  # noqa: BLE001 (a user's module may raise anything while it is imported)
            here.fault(
                ("function",), f"'{self.function}' cannot be imported: {error}", "modules beside the file are found"
            )
            return faults
        if not callable(found):
            here.fault(("function",), f"'{self.function}' is not a function")
            return faults
        self._call = found
        return faults

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """All of them: what a function reads is not known."""
        return frozenset(columns)

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The columns of `writes`."""
        return answer_fields(self._output)

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Call the function, and put its columns in."""
        given = batch.drop_columns([ROW])
        pieces = list(self._pieces(given, batch.column(ROW), ask)) if batch.num_rows else []
        for part in self._output.fields:
            chunks = [piece.column(part.name) for piece in pieces]
            column = pa.concat_arrays(chunks) if chunks else pa.array([], part.type.arrow())
            batch = put_column(batch, part.name, column)
        return batch

    def _pieces(self, batch: pa.RecordBatch, numbers: pa.Array, ask: Ask) -> Iterable[pa.RecordBatch]:
        try:
            yield self._checked(batch)
        except (Exception, SystemExit) as error:
            if isinstance(error, RunFailed):
                raise
            if batch.num_rows == 1:
                ask.fail(numbers[0].as_py(), Failure("python", f"{type(error).__name__}: {error}", self.function))
                kinds = {part.name: part.type.arrow() for part in self._output.fields}
                yield pa.RecordBatch.from_pydict({name: pa.nulls(1, kind) for name, kind in kinds.items()})
                return
            half = batch.num_rows // 2
            yield from self._pieces(batch.slice(0, half), numbers.slice(0, half), ask)
            yield from self._pieces(batch.slice(half), numbers.slice(half), ask)

    def _broken(self, what: str) -> RunFailed:
        """A function that breaks its contract would give wrong rows without a word: the run ends."""
        return RunFailed(f"step '{self.id or self.kind}': {self.function}: {what}")

    def _checked(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        assert self._call is not None  # noqa: S101
        result = self._call(batch)
        if not isinstance(result, pa.RecordBatch):
            raise self._broken(f"it returned a {type(result).__name__}, not a RecordBatch")
        if result.num_rows != batch.num_rows:
            raise self._broken(f"it returned {result.num_rows:,} rows for {batch.num_rows:,}")
        missing = set(self._output.names) - set(result.schema.names)
        if missing:
            raise self._broken(f"it did not return {', '.join(sorted(missing))}")
        columns = [result.column(part.name).cast(part.type.arrow()) for part in self._output.fields]
        return pa.RecordBatch.from_arrays(columns, list(self._output.names))

"""`op: map`."""

import pyarrow as pa
from pydantic import Field

from gdo.ask import Ask
from gdo.op import answer_fields, put_fields
from gdo.prompted import Prompted
from gdo.schema import Record
from gdo.udp import UdpBuilder


class Map(Prompted, kind="map"):
    """Ask a prompt for each row; the fields of its answer become columns.

    Rows: the same. A field that has the name of a column takes its place. One call a distinct prompt.
    """

    output: dict[str, object] = Field(default={}, description="Field name to type, beside `prompt`")
    into: str | None = Field(default=None, description="Put the whole answer into one column of this name")

    def output_type(self, here: UdpBuilder) -> Record:
        """The output beside a prompt in place."""
        return here.declared(self.output)

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The answer's columns."""
        return answer_fields(self.compiled.output, self.into)

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Ask, and append the answers."""
        return put_fields(batch, ask(self.compiled, batch).record, self.into)

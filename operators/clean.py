"""`op: clean`."""

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
from pydantic import Field

from gdo.ask import Ask
from gdo.errors import Finding
from gdo.op import Site, put_column
from gdo.prompt import Udp
from gdo.prompted import Prompted, single_output
from gdo.schema import Record
from gdo.udp import UdpBuilder


class Clean(Prompted, kind="clean"):
    """Rewrite one column in place by a prompt of one answer.

    Rows: the same. A null stays null and costs nothing when the prompt reads that column alone. One call a distinct
    prompt.
    """

    column: str = Field(description="The column to rewrite")
    keep_original: bool = Field(default=False, description="Keep the old values in <column>_original")
    into: str | None = Field(default=None, description="Write to this column instead, and leave the old one alone")

    def output_type(self, here: UdpBuilder) -> Record:
        """The column, as text."""
        return here.output({self.column: "string"}, ("column",))

    def adapted(self, udp: Udp) -> Udp:
        """A UDP that reads a column of its only field's name reads the column to be cleaned, whatever that is called."""
        if self.udp is None or len(udp.output.names) != 1 or self.column in udp.columns or len(udp.columns) != 1:
            return udp
        return replace(udp, renamed={next(iter(udp.columns)): self.column})

    def prepare(self, site: Site) -> list[Finding]:
        """Compile the prompt; it must have one answer."""
        faults = super().prepare(site)
        fault = single_output(self.kind, self.compiled, "field") if self._udp else ""
        return [*faults, Finding(site.document.where((*site.loc, "udp")), fault)] if fault else faults

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """The columns of the template, and the one that is rewritten."""
        return self.compiled.columns | {self.column}

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The column in its place, and the original where it is kept."""
        cleaned = pa.field(self.into or self.column, self.compiled.output.fields[0].type.arrow())
        if not self.keep_original or self.column not in schema.names:
            return [cleaned]
        return [cleaned, pa.field(f"{self.column}_original", schema.field(self.column).type)]

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Ask, and put the answers in the column's place."""
        answers = ask(self.compiled, batch)
        if self.keep_original:
            batch = put_column(batch, f"{self.column}_original", batch.column(self.column))
        return put_column(batch, self.into or self.column, answers.column(self.compiled.output.names[0]))

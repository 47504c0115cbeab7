"""`op: clean`."""

from collections.abc import Iterable
from dataclasses import replace

import pyarrow as pa
from pydantic import Field, PrivateAttr

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

    _own: Udp | None = PrivateAttr(default=None)

    def output_type(self, here: UdpBuilder) -> Record:
        """The column, as text."""
        return here.output({self.column: "string"}, ("column",))

    def _for(self, columns: Iterable[str]) -> Udp:
        """The prompt for a table: a UDP of one input reads the column to be cleaned, whatever the UDP calls it.

        It does so when it answers with what it reads (name -> name), or when the table lacks what it reads.
        """
        udp = self.compiled
        if self.udp is None or len(udp.names) != 1:
            return udp
        name = next(iter(udp.names))
        elsewhere = name != udp.output.names[0] and name in columns
        return udp if elsewhere or name == self.column else self._renamed(udp, name)

    def _renamed(self, udp: Udp, name: str) -> Udp:
        if self._own is None:  # one object for all batches: what it renders of its head is kept with it
            self._own = replace(udp, renamed={name: self.column})
        return self._own

    def prepare(self, site: Site) -> list[Finding]:
        """Compile the prompt; it must have one answer."""
        faults = super().prepare(site)
        fault = single_output(self.kind, self.compiled, "field") if self._udp else ""
        return [*faults, Finding(site.document.where((*site.loc, "udp")), fault)] if fault else faults

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """The columns of the template, and the one that is rewritten."""
        return self._for(columns).columns | {self.column}

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The column in its place, and the original where it is kept."""
        cleaned = pa.field(self.into or self.column, self.compiled.output.fields[0].type.arrow())
        if not self.keep_original or self.column not in schema.names:
            return [cleaned]
        return [cleaned, pa.field(f"{self.column}_original", schema.field(self.column).type)]

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Ask, and put the answers in the column's place."""
        answers = ask(self._for(batch.schema.names), batch)
        if self.keep_original:
            batch = put_column(batch, f"{self.column}_original", batch.column(self.column))
        return put_column(batch, self.into or self.column, answers.column(self.compiled.output.names[0]))

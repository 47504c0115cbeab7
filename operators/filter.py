"""`op: filter`."""

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gdo.ask import Ask
from gdo.errors import Finding
from gdo.op import Rows, Site, put_column
from gdo.prompt import Udp
from gdo.prompted import Prompted, is_boolean
from gdo.schema import Record
from gdo.udp import UdpBuilder


class Filter(Prompted, kind="filter"):
    """Keep the rows for which the model says yes.

    Rows: a subset. A row that could not be asked (its inputs are null, or its call failed under `on_error: keep`)
    stays: nothing is dropped without a no. One call a distinct prompt.
    """

    rows = Rows.SUBSET

    confidence: bool = Field(default=False, description="Add a column with the model's confidence in its answer")
    into: str = Field(default="filter_confidence", description="The name of the confidence column")

    def output_type(self, here: UdpBuilder) -> Record:
        """Yes or no."""
        return here.output({"answer": "boolean"}, ("prompt",))

    def prepare(self, site: Site) -> list[Finding]:
        """Compile the prompt; it must answer yes or no."""
        faults = super().prepare(site)
        if self._udp is not None and not is_boolean(self._udp):
            what = f"filter takes a UDP of one boolean; '{self._udp.name}' gives {', '.join(self._udp.output.names)}"
            faults.append(Finding(site.document.where((*site.loc, "udp")), what))
        return faults

    def adapted(self, udp: Udp) -> Udp:
        """Tell a chat model, and a plain one without examples, what kind of answer is wanted."""
        return replace(udp, task="Answer true for yes and false for no.")

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The confidence where it is wanted."""
        return [pa.field(self.into, pa.float64())] if self.confidence else []

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Ask, and keep what was not answered no."""
        answers = ask(self.compiled, batch)
        if self.confidence:
            batch = put_column(batch, self.into, answers.confidence)
        return batch.filter(pc.fill_null(answers.column(self.compiled.output.names[0]), fill_value=True))

"""`op: extract`."""

from dataclasses import replace

import pyarrow as pa
from pydantic import Field

from gdo.ask import Ask
from gdo.ensemble import Ensembled
from gdo.errors import Finding
from gdo.op import Site, answer_fields, put_fields
from gdo.prompt import Udp
from gdo.schema import Labels, Record
from gdo.udp import ExampleSpec, UdpBuilder


class Extract(Ensembled, kind="extract"):
    """Read typed attributes from a text; each becomes a column, null where the text does not say.

    Rows: the same. One call a distinct text (and voter).
    """

    text: str = Field(description="A Jinja2 template: what is read")
    attributes: dict[str, object] = Field(description="Name to type, or {type, labels, description, nullable}")
    examples: list[ExampleSpec] = Field(default=[], description="[{in: {column: value}, out: {attribute: value}}]")
    system: str = Field(default="", description="What the model is told before any row")
    into: str | None = Field(default=None, description="Put all attributes into one column of this name")

    def prepare(self, site: Site) -> list[Finding]:
        """Build the prompt from the text, the attributes and the examples."""
        faults: list[Finding] = []
        here = UdpBuilder(site.document, site.loc, faults)
        output = self._output(here)
        template = here.template(self.text, ("text",))
        examples = tuple(here.examples(self.examples, output, ("examples",)))
        told = [f"{part.name}: {part.description}" for part in output.fields if part.description]
        task = " ".join(["Read the attributes from the text. Answer null where it does not say.", *told])
        self._udp = Udp(self.id or self.kind, template, output, self.system, task=task, examples=examples)
        faults.extend(here.missing_inputs(self._udp, ("text",)))
        return faults + self.prepare_voters(site)

    def _output(self, here: UdpBuilder) -> Record:
        """An open attribute may be null unless it says otherwise; a closed set has its own word for "none"."""
        output = here.output(self.attributes, ("attributes",))
        return Record(
            tuple(
                part
                if isinstance(part.type, Labels) or _says_nullable(self.attributes.get(part.name))
                else replace(part, nullable=True)
                for part in output.fields
            )
        )

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The attributes."""
        return answer_fields(self.compiled.output, self.into)

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Ask, and append the attributes."""
        return put_fields(batch, ask(self.compiled, batch).record, self.into)


def _says_nullable(declared: object) -> bool:
    return isinstance(declared, dict) and "nullable" in declared

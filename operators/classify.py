"""`op: classify`."""

import pyarrow as pa
from pydantic import Field

from gdo.ask import Ask
from gdo.ensemble import Ensembled
from gdo.errors import Finding
from gdo.op import Site, put_column
from gdo.prompt import Udp
from gdo.schema import Field as AnswerField
from gdo.schema import Labels, ListOf, Record, parse_type
from gdo.udp import ExampleSpec, LabelSet, UdpBuilder


class Classify(Ensembled, kind="classify"):
    """Give each row one label of a closed set (or several, with `multi`).

    Rows: the same. A model that gives log-probabilities scores the labels, calibrated; another one is held to them by
    its schema. One call a distinct text (and voter), and the calibration once.
    """

    text: str = Field(description="A Jinja2 template: what is classified")
    labels: LabelSet = Field(description="The labels, or label: description")
    into: str = Field(default="label", min_length=1, description="The column that gets the label")
    examples: list[ExampleSpec] = Field(default=[], description="[{in: {column: value}, out: label}]")
    system: str = Field(default="", description="What the model is told before any row")
    multi: bool = Field(default=False, description="Any number of labels, as a list")
    confidence: bool = Field(
        default=False, description="Add <into>_confidence; of an ensemble <into>_margin and <into>_agreement"
    )

    def prepare(self, site: Site) -> list[Finding]:
        """Build the prompt from the text, the labels and the examples."""
        faults: list[Finding] = []
        here = UdpBuilder(site.document, site.loc, faults)
        labels = parse_type({"labels": list(self.labels)}, lambda _, what, hint: here.fault(("labels",), what, hint))
        output = Record((AnswerField(self.into, ListOf(labels) if self.multi else labels),))
        template = here.template(self.text, ("text",))
        examples = tuple(here.examples(self.examples, output, ("examples",)))
        udp = Udp(self.id or self.kind, template, output, self.system, task=self._task(labels), examples=examples)
        faults.extend(here.missing_inputs(udp, ("text",)))
        self._udp = udp
        if self.multi and (self.models or self.voters):
            here.fault(("multi",), "an ensemble gives one label", "leave `multi` out, or ask one model")
        return faults + self.prepare_voters(site)

    def _task(self, labels: object) -> str:
        assert isinstance(labels, Labels)  # noqa: S101
        shown = [
            f"{label} ({self.labels[label]})" if isinstance(self.labels, dict) and self.labels.get(label) else label
            for label in labels.labels
        ]
        many = "Give every label that fits the text" if self.multi else "Give the one label that fits the text best"
        return f"{many}. Labels: {'; '.join(shown)}."

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The label, and its confidence where it is wanted."""
        label = pa.field(self.into, self.compiled.output.fields[0].type.arrow())
        return [label, pa.field(f"{self.into}_confidence", pa.float64())] if self.confidence else [label]

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Ask, and append the label."""
        answers = ask(self.compiled, batch)
        batch = put_column(batch, self.into, answers.column(self.into))
        return put_column(batch, f"{self.into}_confidence", answers.confidence) if self.confidence else batch

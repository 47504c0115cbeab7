"""A plan as transforms of Beam: by the scope of each operator alone, naming none of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import apache_beam as beam
import pyarrow as pa
from apache_beam.pvalue import PCollection

from gdo.op import Scope
from gdo.plan import Node, Plan
from gdo.runners.base import keeps_numbers
from gdo.runners.beam_arrow import BatchCoder
from gdo.runners.beam_desk import DeskSpec
from gdo.runners.beam_parcel import Parcel, pack
from gdo.runners.beam_shuffle import Count, Deal, Fit, Number
from gdo.runners.beam_worker import Groups, InFlight, Steps, Summarise

beam.coders.registry.register_coder(pa.RecordBatch, BatchCoder)
Thing = TypeVar("Thing")


@dataclass
class Graph:
    """The transforms of a plan; `given` are the numbered rows of its sources."""

    plan: Plan
    desk: DeskSpec
    given: Mapping[str, PCollection]
    errors: list[PCollection] = field(default_factory=list)
    calls: list[PCollection] = field(default_factory=list)
    learned: dict[str, PCollection] = field(default_factory=dict)
    """The state of each step that learns."""
    _made: dict[str, PCollection] = field(default_factory=dict)
    _apart: dict[str, bool] = field(default_factory=dict)
    """Whether the batches of a name hold numbers between which no other batch's are."""

    def rows(self, name: str) -> PCollection:
        """The numbered rows of a node or source."""
        if name in self.given:
            return self.given[name]
        if name not in self._made:
            node = self._node(name)
            build = {Scope.BATCH: self._chain, Scope.GROUP: self._grouped, Scope.FIT: self._fitted}[node.op.scope]
            self._made[name] = build(node)
        return self._made[name]

    def _node(self, name: str) -> Node:
        return next(node for node in self.plan.nodes if node.id == name)

    def _chain(self, node: Node) -> PCollection:
        """A run of row-by-row steps in one DoFn, as far as nobody else reads what is between them."""
        nodes = [node]
        while True:
            above = next((n for n in self.plan.nodes if n.id == nodes[0].input), None)
            joins = above is not None and above.op.scope is Scope.BATCH and keeps_numbers(above.op)
            if above is None or not joins or len(self.plan.readers(above.id)) > 1:
                break
            nodes.insert(0, above)
        first = nodes[0].input
        out = self._outputs(node.id, self.rows(first), Steps(self.desk, self._packed(tuple(nodes))))
        return self._numbered(node, out, apart=self._apart.get(first, True))

    def _fitted(self, node: Node) -> PCollection:
        """Learn from all rows, then work on each slice with what was learned."""
        rows = self.rows(node.input)
        summaries = self._outputs(
            f"{node.id}/summarise", rows, Summarise(self.desk, self._packed((node,))), tuple[int, pa.RecordBatch]
        )
        fit = Fit(self._packed(node.op), launched=self.desk.launched)
        state = summaries | f"{node.id}/fit" >> beam.CombineGlobally(fit)
        self.learned[node.id] = state
        out = self._outputs(
            node.id, rows, Steps(self.desk, self._packed((node,))), state=beam.pvalue.AsSingleton(state)
        )
        return self._numbered(node, out, apart=self._apart.get(node.input, True))

    def _grouped(self, node: Node) -> PCollection:
        """Rows of a group meet in one worker."""
        dealt = (
            self.rows(node.input)
            | f"{node.id}/deal" >> beam.ParDo(Deal(node.op)).with_output_types(tuple[int, pa.RecordBatch])
            | f"{node.id}/meet" >> beam.GroupByKey()
        )
        out = self._outputs(node.id, dealt, Groups(self.desk, self._packed((node,))))
        return self._numbered(node, out, apart=False, always=True)

    def _outputs(
        self, label: str, rows: PCollection, work: InFlight, kind: object = pa.RecordBatch, **side: object
    ) -> PCollection:
        """What a step gives; its errors and calls are gathered beside."""
        done = rows | label >> beam.ParDo(work, **side).with_outputs("errors", "calls", main="rows")
        done.rows.element_type = kind
        for tag, gathered in (("errors", self.errors), ("calls", self.calls)):
            done[tag].element_type = pa.RecordBatch
            gathered.append(done[tag])
        return done.rows

    def _packed(self, thing: Thing) -> Parcel[Thing]:
        return pack(thing, self.plan.folder)

    def _numbered(self, node: Node, rows: PCollection, *, apart: bool, always: bool = False) -> PCollection:
        """New numbers for rows that a step made."""
        self._apart[node.id] = apart
        if keeps_numbers(node.op) and not always:
            return rows
        counted = rows | f"{node.id}/count" >> beam.ParDo(Count(apart=apart)).with_output_types(pa.RecordBatch)
        number = beam.ParDo(Number(apart=apart), counted=beam.pvalue.AsList(counted))
        return rows | f"{node.id}/number" >> number.with_output_types(pa.RecordBatch)

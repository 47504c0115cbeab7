"""A frozen graph of operators, and the flow of columns through it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import duckdb
import pyarrow as pa

from gdo.ask import ROW
from gdo.backend import DEFAULT_MODEL, Backend, resolve
from gdo.database import condition_columns, quote
from gdo.document import Loc
from gdo.errors import Faults, Finding
from gdo.op import Operator, absent
from gdo.sink import Sink
from gdo.spec import Pipeline, Step, in_order
from gdo.tables import ArrowStream, Source, placed, source_query, source_schema


@dataclass(frozen=True, slots=True)
class SourceNode:
    """Where rows come from; `columns` are those that are read of it."""

    id: str
    source: Source | ArrowStream = field(compare=False)
    schema: pa.Schema
    columns: tuple[str, ...]
    width: int
    """How many columns there are."""
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """An operator, what it reads, and the schema that it gives."""

    id: str
    op: Operator
    input: str
    schema: pa.Schema


@dataclass(frozen=True, slots=True)
class SinkNode:
    """A sink and the id of what it writes."""

    input: str
    sink: Sink


@dataclass(frozen=True, slots=True)
class Plan:
    """What a runner runs: sources, operators in an order in which inputs come first, sinks."""

    name: str
    folder: Path
    sources: tuple[SourceNode, ...]
    nodes: tuple[Node, ...]
    sinks: tuple[SinkNode, ...]
    models: Mapping[str, Backend]

    def schema(self, name: str) -> pa.Schema:
        """The schema of a node or source."""
        schemas = {source.id: source.schema for source in self.sources} | {node.id: node.schema for node in self.nodes}
        return schemas[name]

    def readers(self, name: str) -> list[str]:
        """Who reads a node or source; a sink is called by what it writes to."""
        nodes = [node.id for node in self.nodes if node.input == name]
        return nodes + [sink.sink.text() for sink in self.sinks if sink.input == name]

    def text(self) -> str:
        """The plan, one line a node."""
        lines = []
        for source in self.sources:
            shown = source.source.text() if isinstance(source.source, Source) else "an Arrow stream"
            few = "" if len(source.columns) == source.width else f" [{', '.join(source.columns)}]"
            lines.append(f"{source.id} = {shown}{few}")
        lines += [f"{node.id} = {node.op.summary()} <- {node.input}" for node in self.nodes]
        lines += [f"{sink.sink.text()} <- {sink.input}" for sink in self.sinks]
        return "\n".join(lines)


def make_plan(pipeline: Pipeline) -> Plan:
    """The plan of a pipeline as it is written, before any rewrite.

    Raises:
        Faults: a source that cannot be read, a column that is not there, a model that is not known; all at once.
    """
    faults: list[Finding] = []
    schemas: dict[str, pa.Schema | None] = {}
    sources = []
    for name, source in pipeline.sources.items():
        schemas[name] = found = _source_schema(pipeline, name, source, faults)
        if found is not None:
            sources.append(SourceNode(name, source, found, tuple(found.names), len(found)))
    nodes = []
    for step in pipeline.steps:
        schema = schemas.get(step.input)
        faults += _model_faults(pipeline, step)
        before = step.input
        for stage in _stages(step):
            schema = _flow(pipeline, stage, schema, faults) if schema is not None else None
            if schema is not None and not pipeline.faults:
                nodes.append(Node(stage.id, stage.op, before, schema))
            before = stage.id
        schemas[step.id] = schema
    if faults or pipeline.faults:
        hide = pipeline.document.hide
        told = (Finding(f.where, hide(f.what), hide(f.hint)) for f in (*pipeline.faults, *faults))
        raise Faults(in_order(told))
    sinks = tuple(SinkNode(name, sink) for name, sink in pipeline.sinks)
    return Plan(pipeline.name, pipeline.folder, tuple(sources), tuple(nodes), sinks, pipeline.models)


def _stages(step: Step) -> Iterator[Step]:
    """A step as the operators that do its work; the last one bears its name."""
    stages = step.op.stages()
    for i, op in enumerate(stages, 1):
        yield replace(step, op=op, id=step.id if i == len(stages) else f"{step.id}.{op.kind}")


def _source_schema(
    pipeline: Pipeline, name: str, source: Source | ArrowStream, faults: list[Finding]
) -> pa.Schema | None:
    loc: Loc = ("sources", name) if ("sources", name) in pipeline.document.marks else ("source",)
    try:
        schema = source_schema(source, pipeline.folder) if isinstance(source, Source) else stream_schema(source)
    except Faults as error:
        key = next((key for key in ("path", "database") if getattr(source, key, None)), "sql")
        faults += placed(error, pipeline.document.where((*loc, key)))
        return None
    where = pipeline.document.where(loc)
    if ROW in schema.names:
        faults.append(Finding(where, f"the column '{ROW}' is gdo's own", "rename it"))
    twins = [Finding(where, finding.what, finding.hint) for finding in same_names(schema)]
    faults += twins
    return None if twins else schema


def source_rows(plan: Plan, source: SourceNode, connection: duckdb.DuckDBPyConnection) -> str | None:
    """A query over all rows of a source, for a look before the run; None for a stream, which is the run's to read."""
    if isinstance(source.source, Source):
        return source_query(source.source, plan.folder, connection)
    if isinstance(source.source, pa.Table):
        connection.register(f"given_{source.id}", source.source)
        return f"SELECT * FROM {quote(f'given_{source.id}')}"
    return None


def same_names(schema: pa.Schema) -> Iterator[Finding]:
    """Findings (without a place) for columns that SQL cannot tell apart."""
    seen: dict[str, str] = {}
    for name in schema.names:
        if name.lower() in seen:
            yield Finding(
                "", f"the columns '{seen[name.lower()]}' and '{name}' have one name in SQL", "rename one of them"
            )
        seen[name.lower()] = name


def stream_schema(stream: ArrowStream) -> pa.Schema:
    """The schema of an Arrow stream, unread where its owner can tell it."""
    schema = getattr(stream, "schema", None)
    if not isinstance(schema, pa.Schema):
        schema = pa.RecordBatchReader.from_stream(stream).schema
    return pa.schema([pa.field(field.name, _common(field.type)) for field in schema])


def _common(kind: pa.DataType) -> pa.DataType:
    """The type that a column is worked on in: what every kernel knows, for the newer and rarer ones."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    known = {
        pa.large_string(): pa.string(),
        pa.string_view(): pa.string(),
        pa.large_binary(): pa.binary(),
        pa.binary_view(): pa.binary(),
        pa.float16(): pa.float32(),
    }
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    return pa.duration("us") if pa.types.is_duration(kind) else known.get(kind, kind)


def _model_faults(pipeline: Pipeline, step: Step) -> Iterator[Finding]:
    for key, word in step.op.models_asked().items():
        if word in pipeline.broken_models:
            continue
        where = pipeline.document.where((*step.loc, *key))
        try:
            fault = resolve(word or DEFAULT_MODEL, dict(pipeline.models)).fault(pipeline.folder)
        except Faults as error:
            yield from placed(error, where)
        else:
            if fault:
                yield Finding(where, fault)


def _flow(pipeline: Pipeline, step: Step, schema: pa.Schema, faults: list[Finding]) -> pa.Schema | None:
    where = pipeline.where(step)
    document = pipeline.document
    missing = [
        Finding(
            document.where((*step.loc, *step.op.key_of(column))),
            f"no column '{column}' here",
            'a column is read by its name, or as row["name"]' if column == "row" else hint,
        )
        for column, hint in absent(step.op.reads(schema.names), schema)
    ]
    try:
        if step.op.where is not None:
            condition_columns(step.op.where, schema)
    except Faults as error:
        faults += placed(error, document.where((*step.loc, "where")))
    faults += missing
    try:
        out = step.op.writes(schema)
        twins = [Finding(where, finding.what, finding.hint) for finding in same_names(out)]
        faults += twins
        if twins:
            return None
        return merged(schema, out) if step.op.where is not None else out
    except Faults as error:
        if not missing:  # else it is the same fault again
            faults += placed(error, document.where((*step.loc, step.op.subject)))
        return None


def merged(before: pa.Schema, after: pa.Schema) -> pa.Schema:
    """The schema after a step with a `where:`; a column that it changed must hold the untouched values too.

    Raises:
        Faults: a column's type changed, so that rows that pass through do not fit.
    """
    changed = [
        Finding("", f"`where` leaves rows whose '{f.name}' is {before.field(f.name).type}, the step makes it {f.type}",
                "give the answer another name with `into`")
        for f in after
        if f.name in before.names and before.field(f.name).type != f.type
    ]  # fmt: skip
    if changed:
        raise Faults(changed)
    return after


def replanned(plan: Plan, nodes: Iterable[Node]) -> Plan:
    """A plan with other nodes, its schemas computed anew."""
    schemas = {source.id: source.schema for source in plan.sources}
    ordered = []
    for node in nodes:
        schemas[node.id] = node.op.writes(schemas[node.input])
        ordered.append(replace(node, schema=schemas[node.id]))
    return replace(plan, nodes=tuple(ordered))


def model_name(op: Operator) -> str:
    """The model that a step asks."""
    return op.model or DEFAULT_MODEL

"""Only the columns that are needed are read."""

from dataclasses import replace

import pyarrow as pa

from gdo.database import condition_columns
from gdo.plan import Node, Plan, replanned


def read_needed_columns(plan: Plan) -> Plan:
    """Read of each source only what some step reads or some sink writes.

    Sound because a column that no step reads and no sink writes cannot change anything that comes out. A step that
    makes new rows of what it reads (`sql`, `reduce`) needs nothing else of what comes before it.
    """
    needed: dict[str, set[str]] = {name: set() for name in (*(s.id for s in plan.sources), *(n.id for n in plan.nodes))}
    for sink in plan.sinks:
        needed[sink.input] |= set(plan.schema(sink.input).names)
    for node in reversed(plan.nodes):
        needed[node.input] |= _inputs(node, needed[node.id], plan.schema(node.input))
    sources = []
    for source in plan.sources:
        kept = [field for field in source.schema if field.name in needed[source.id]]
        # A table of no columns has no rows for Arrow: one column stays.
        kept = kept or [source.schema.field(0)]
        sources.append(replace(source, schema=pa.schema(kept), columns=tuple(field.name for field in kept)))
    return replanned(replace(plan, sources=tuple(sources)), plan.nodes)


def _inputs(node: Node, wanted: set[str], schema: pa.Schema) -> set[str]:
    op = node.op
    read = set(op.reads(schema.names))
    if op.where is not None:
        read |= condition_columns(op.where, schema)
    if op.cuts():
        return read if op.where is None else read | (wanted & set(schema.names))
    written = set() if op.where is not None else {field.name for field in op.adds(schema)}
    return read | ((wanted - written) & set(schema.names))

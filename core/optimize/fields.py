"""`{{ fields }}` renders the inputs that vary least first."""

from collections.abc import Mapping
from dataclasses import replace

from gdo.database import column_list, connect
from gdo.plan import Node, Plan, SourceNode, source_rows

SAMPLE = 2048


def least_varied_first(plan: Plan) -> Plan:
    """Order what `{{ fields }}` stands for by how many values each column has, so that prompts share a long prefix.

    Sound because a prompt that says `{{ fields }}` leaves the order of its inputs open. The counts are those of the
    first 2,048 rows of the source, in powers of two: rows that are added behind them change no prompt, so what was
    paid for stays in the cache. Columns that steps write come last; ties keep the declared order.
    """
    if not any(node.op.free_inputs for node in plan.nodes):
        return plan
    counts = {source.id: _counts(plan, source) for source in plan.sources}
    nodes = []
    for node in plan.nodes:
        known = counts[node.input]
        nodes.append(_ordered(node, known) if node.op.free_inputs else node)
        written = {field.name for field in node.op.adds(plan.schema(node.input))}
        kept = set() if node.op.cuts() else known.keys() - written
        counts[node.id] = {name: known[name] for name in kept}
    return replace(plan, nodes=tuple(nodes))


def _ordered(node: Node, known: Mapping[str, int]) -> Node:
    def rank(column: str) -> tuple[bool, int]:
        return column not in known, known.get(column, 0).bit_length()

    return replace(node, op=node.op.with_inputs(sorted(node.op.free_inputs, key=rank)))


def _counts(plan: Plan, source: SourceNode) -> Mapping[str, int]:
    """Distinct values by column in the first rows; none known for a stream that can be read only once."""
    free = {column for node in plan.nodes for column in node.op.free_inputs}
    wanted = sorted(free & set(source.schema.names))
    with connect() as connection:
        query = source_rows(plan, source, connection)
        if query is None or not wanted:
            return {}
        listed = ", ".join(f"count(DISTINCT {column_list([name])})" for name in wanted)
        row = connection.execute(f"SELECT {listed} FROM (SELECT * FROM ({query}\n) LIMIT {SAMPLE})").fetchone()
    return dict(zip(wanted, row or (), strict=True))

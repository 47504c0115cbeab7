"""What a run would take: calls and prompt tokens of each step, without a call."""

from collections.abc import Iterator
from dataclasses import dataclass

from gdo.plan import Plan
from gdo.tables import Source, source_query

CHARACTERS_A_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Estimate:
    """One call for each distinct input that is known before the run; retries and calibration come on top."""

    step: str
    calls: int
    prompt_tokens: int

    def __str__(self) -> str:
        return f"{self.step}: about {self.calls:,} calls, about {self.prompt_tokens:,} prompt tokens"


def estimate(plan: Plan) -> Iterator[Estimate]:
    """An estimate for each step that asks; columns that earlier steps write count as distinct in every row.

    Costs a pass over the source.
    """
    from gdo.database import column_list, connect

    sources = {source.id: source for source in plan.sources}
    for node in plan.nodes:
        udp = getattr(node.op, "compiled", None)
        source = sources.get(node.input) or next(iter(sources.values()))
        if udp is None or not isinstance(source.source, Source):
            continue
        known = sorted(udp.columns & set(source.schema.names))
        with connect() as connection:
            query = source_query(source.source, plan.folder, connection)
            counted = f"DISTINCT {column_list(known)}" if known and known == sorted(udp.columns) else "*"
            listed = ", ".join(f"coalesce(length(CAST({column_list([name])} AS VARCHAR)), 0)" for name in known)
            length = f"sum({listed.replace(', coalesce', ' + coalesce')})" if known else "0"
            rows = f"SELECT {counted} FROM ({query}\n)"
            found = connection.execute(f"SELECT count(*), {length} FROM ({rows})").fetchone()
        calls, characters = (int(found[0]), int(found[1] or 0)) if found else (0, 0)
        head = len(udp.head("plain").text) + len(udp.template.source)
        yield Estimate(node.id, calls, (characters + calls * head) // CHARACTERS_A_TOKEN)

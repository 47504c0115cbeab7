"""What a run would take: calls, prompt tokens and cost of each step, without a call."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import duckdb

from gdo.backend import DEFAULT_MODEL, Backend, Price, resolve
from gdo.database import column_list, condition_columns, connect
from gdo.model import Model
from gdo.op import Rows, Scope
from gdo.plan import Node, Plan, SourceNode, source_rows
from gdo.prompt import Udp
from gdo.score import calibration_prompts, split_fields

CHARACTERS_A_TOKEN = 4
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one step would take when nothing is cached and no reply has to be asked for again.

    `cost` is that of the prompts and of replies of `max_tokens` each, in the currency of the model's `price`; None
    without a price. `exact` says that the calls depend on nothing that a model has yet to say.
    """

    step: str
    calls: int
    prompt_tokens: int
    cost: float | None = None
    exact: bool = True

    def __str__(self) -> str:
        word = "" if self.exact else "at most about "
        cost = "" if self.cost is None else f", at most {self.cost:,.4f} by the model's price"
        return f"{self.step}: {word}{self.calls:,} calls, about {self.prompt_tokens:,} prompt tokens{cost}"


def estimate(plan: Plan) -> list[Estimate]:
    """An estimate for each step that asks, and a last one, `total`. Costs a pass over the source for each step.

    Rows are followed through conditions and queries as far as these read what is in the source; columns that a model
    writes count as distinct in every row, and no row is taken to be dropped by an answer.
    """
    with connect() as connection:
        steps = list(_Flow(plan, connection).estimates())
    return [*steps, _together("total", steps)]


def _together(name: str, parts: Sequence[Estimate]) -> Estimate:
    """What several steps, or the voters of one, take together; the cost of those that have a price."""
    costs = [part.cost for part in parts if part.cost is not None]
    return Estimate(
        name, sum(part.calls for part in parts), sum(part.prompt_tokens for part in parts),
        sum(costs) if costs else None, all(part.exact for part in parts),
    )  # fmt: skip


class _Flow:
    """The rows before each step, as far as they are known: a view a node, with the columns that it can have."""

    def __init__(self, plan: Plan, connection: duckdb.DuckDBPyConnection) -> None:
        self.plan = plan
        self.connection = connection
        self.known: dict[str, frozenset[str]] = {}
        self.exact: dict[str, bool] = {}
        self.views: dict[str, str] = {}

    def estimates(self) -> Iterator[Estimate]:
        for source in self.plan.sources:
            self._source(source)
        for node in self.plan.nodes:
            if node.input not in self.views:
                continue
            asked = [self._asked(node, udp, model) for udp, model in node.op.prompts()]
            if asked:
                yield _together(node.id, asked)
            self._after(node)

    def _view(self, name: str, query: str, known: frozenset[str], *, exact: bool) -> None:
        self.views[name] = f"rows_{len(self.views)}"
        self.connection.execute(f"CREATE TEMP VIEW {self.views[name]} AS {query}")
        self.known[name], self.exact[name] = known, exact

    def _source(self, source: SourceNode) -> None:
        query = source_rows(self.plan, source, self.connection)
        if query is None:
            return
        limit = "" if source.limit is None else f" LIMIT {source.limit}"
        self._view(source.id, f"SELECT * FROM ({query}\n){limit}", frozenset(source.schema.names), exact=True)

    def _asked(self, node: Node, udp: Udp, model: str | None) -> Estimate:
        known, rows = self.known[node.input], self.views[node.input]
        before, exact = self.plan.schema(node.input), self.exact[node.input]
        condition = "true"
        if node.op.where is not None:
            seen = condition_columns(node.op.where, before) <= known
            condition, exact = (f"({node.op.where}\n)", exact) if seen else ("true", False)
        grouped = bool(node.op.group_by)
        counted = set(node.op.group_by) if grouped else set(udp.columns)
        shown = sorted((node.op.reads(before.names) if grouped else udp.columns) & known)
        exact = exact and counted <= known
        distinct = f"DISTINCT {column_list(sorted(counted))}" if counted and counted <= known else "*"
        if counted and counted <= known and not grouped:  # a row whose inputs are all null is not asked
            texts = ", ".join(f"CAST({column_list([name])} AS VARCHAR)" for name in sorted(counted))
            condition += f" AND coalesce({texts}) IS NOT NULL"
        chosen = f"FROM {rows} WHERE {condition}"
        calls = self._number(f"SELECT count(*) FROM (SELECT {distinct} {chosen})")
        calls = calls if counted else min(calls, 1)
        lengths = " + ".join(f"coalesce(length(CAST({column_list([name])} AS VARCHAR)), 0)" for name in shown)
        characters = self._number(f"SELECT sum({lengths or 0}) FROM (SELECT {'*' if grouped else distinct} {chosen})")
        return self._told(node, udp, model, calls, characters, exact=exact)

    def _told(self, node: Node, udp: Udp, name: str | None, rows: int, characters: int, *, exact: bool) -> Estimate:
        backend = resolve(name or DEFAULT_MODEL, dict(self.plan.models))
        model: Model = backend.build(self.plan.folder)
        scored, written = split_fields(udp, model)
        parts = len(scored) + bool(written)
        calls = rows * parts
        if rows:
            calls += sum(len(calibration_prompts(udp.narrowed([name]))) for name in scored)
        head = udp.head(model.style)
        shared = len(head.text) + sum(len(turn.content) for turn in head.messages) + len(udp.template.source)
        tokens = (characters * parts + calls * shared) // CHARACTERS_A_TOKEN
        return Estimate(node.id, calls, tokens, _cost(backend, tokens, rows * node.op.max_tokens), exact)

    def _number(self, query: str) -> int:
        row = self.connection.execute(query).fetchone()
        return int(row[0] or 0) if row else 0

    def _after(self, node: Node) -> None:
        """The rows after a step: through its query where that is known, else all of them."""
        known, exact, view = self.known[node.input], self.exact[node.input], self.views[node.input]
        before = self.plan.schema(node.input)
        query = node.op.sql()
        if query is not None and node.op.where is None and node.op.reads(before.names) <= known:
            with suppress(duckdb.Error):
                self.connection.execute(f"CREATE OR REPLACE TEMP VIEW input AS SELECT * FROM {view}")
                # The view of `input` is bound when it is used, so the result is kept, not the query.
                self.connection.execute(f"CREATE TEMP TABLE kept_{len(self.views)} AS {query}")
                self._view(node.id, f"SELECT * FROM kept_{len(self.views)}", frozenset(node.schema.names), exact=exact)
                return
        written = {field.name for field in node.op.adds(before)}
        left = known & set(node.schema.names) - written
        if node.op.scope is Scope.GROUP and node.op.group_by and set(node.op.group_by) <= known:
            keys = column_list(node.op.group_by)
            self._view(node.id, f"SELECT DISTINCT {keys} FROM {view}", left & set(node.op.group_by), exact=exact)
            return
        same = node.op.rows is Rows.SAME and node.op.on_error != "reject"
        self._view(node.id, f"SELECT * FROM {view}", left, exact=exact and same)


def _cost(backend: Backend, prompt_tokens: int, completion_tokens: int) -> float | None:
    price: Price | None = backend.price
    if price is None:
        return None
    return (prompt_tokens * price.prompt + completion_tokens * price.completion) / _MILLION

"""SQL as DuckDB's own parser reads it and writes it again: trees of plain data, and what is asked of them."""

import json
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import duckdb

from gdo.database import aggregates, nodes, scratch
from gdo.errors import Faults

Tree = dict[str, Any]
"""A node of a syntax tree; its keys are DuckDB's."""

Refusal = Callable[[Tree], str]
"""Says why DuckDB does not accept a SELECT; nothing where it does."""

SITE = "site"
"""The key of a call's number among the calls of prompt functions: how a copy of it is told."""
TRUE: Tree = {"class": "CONSTANT", "type": "VALUE_CONSTANT", "literal": {"kind": "BOOLEAN", "text": "true"}}
FALSE: Tree = {**TRUE, "literal": {"kind": "BOOLEAN", "text": "false"}}
_COMPACT = "skip_null := true, skip_empty := true, skip_default := true"


def parse(query: str) -> Tree | None:
    """The statement of a query; None for one that DuckDB cannot give as a tree, such as a PIVOT.

    Raises:
        Faults: it is no SQL, no SELECT, or several statements; the place is `query:line:column`.
    """
    if not query.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in query):
        raise Faults.one("query", "is not UTF-8 text")
    with scratch() as connection:
        try:
            statements = connection.extract_statements(query)
        except duckdb.Error:
            statements = []  # told below, with its place
        if len(statements) > 1:
            raise Faults.one("query", f"{len(statements)} statements", "one SELECT at a time")
        row = connection.execute(f"SELECT json_serialize_sql(?, {_COMPACT})", [query]).fetchone()
    answer: Tree = json.loads(row[0]) if row else {}
    if not answer.get("error"):
        if not answer.get("statements"):
            raise Faults.one("query", "there is no statement in it", "for example SELECT 1")
        return answer
    if answer.get("error_type") == "parser":
        what = str(answer.get("error_message", "it cannot be parsed")).splitlines()[0]
        raise Faults.one(place(query, answer.get("position")), what, "it is read as DuckDB's SQL")
    kind = statements[0].type.name if statements else ""
    if kind in {"SELECT", "MULTI"}:
        return None
    hint = "--explain shows what gdo does" if kind == "EXPLAIN" else "a SELECT; run other statements on the connection"
    raise Faults.one("query", f"a statement of kind {kind} is no query", hint)


def place(query: str, position: object) -> str:
    """`query:line:column` of a character of it."""
    before = query[: int(str(position))] if str(position).isdigit() else ""
    return f"query:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def write(statement: Tree) -> str:
    """The SQL of a statement."""
    return _sql_of(json.dumps(statement))


@lru_cache(maxsize=64)  # a query is written when it is checked, when it runs and when it is explained
def _sql_of(told: str) -> str:
    with scratch() as connection:
        row = connection.execute("SELECT json_deserialize_sql(?)", [told]).fetchone()
    assert row is not None  # noqa: S101
    return str(row[0])


def write_expression(expression: Tree) -> str:
    """The SQL of an expression, as DuckDB names a column of it."""
    return write(statement_of(select([plain(expression)]))).removeprefix("SELECT ")


def statement_of(node: Tree) -> Tree:
    """A statement of one node."""
    return {"error": False, "statements": [{"node": node}]}


def select(chosen: list[Tree], table: Tree | None = None, **clauses: object) -> Tree:
    """A SELECT node; clauses that are None are left out."""
    node: Tree = {
        "type": "SELECT_NODE",
        "cte_map": {},
        "select_list": chosen,
        "from_table": table or {"type": "EMPTY"},
        "aggregate_handling": "STANDARD_HANDLING",
    }
    return node | {key: clause for key, clause in clauses.items() if clause}


def own_nodes(value: object) -> Iterator[Tree]:
    """Every node of an expression, but nothing within a subquery of it."""
    if isinstance(value, dict):
        yield value
        for key, item in value.items():
            if key != "subquery":
                yield from own_nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from own_nodes(item)


def copied(tree: Tree) -> Tree:
    """A copy in which nothing stands in two places, even where it did: what changes here must not change there."""
    copy: Tree = json.loads(json.dumps(tree))
    return copy


def unmarked(tree: Tree) -> Tree:
    """A copy without the numbers of calls, as DuckDB reads it."""
    copy = copied(tree)
    for node in nodes(copy):
        node.pop(SITE, None)
    return copy


def plain(expression: Tree) -> Tree:
    """A copy of an expression without its alias."""
    copy = copied(expression)
    copy.pop("alias", None)
    return copy


def put_in_place(node: Tree, other: Tree) -> None:
    """Make a node a copy of another one, under the alias that it has itself."""
    alias = {key: node[key] for key in ("alias",) if node.get(key)}
    made = plain(other)
    node.clear()
    node.update(made | alias)


def column(*names: str) -> Tree:
    """A reference to a column."""
    return {"class": "COLUMN_REF", "type": "COLUMN_REF", "column_names": list(names)}


def call(name: str, arguments: list[Tree]) -> Tree:
    """A call of a function."""
    return {
        "class": "FUNCTION", "type": "FUNCTION", "function_name": name, "qualified_name": {"path": [name]},
        "order_bys": {"type": "ORDER_MODIFIER"}, "arguments": [{"expression": plain(a)} for a in arguments],
    }  # fmt: skip


def operator(kind: str, *children: Tree) -> Tree:
    """An operator such as OPERATOR_NOT."""
    return {"class": "OPERATOR", "type": kind, "children": list(children)}


def when(condition: Tree, then: Tree, otherwise: Tree | None) -> Tree:
    """CASE WHEN condition THEN then ELSE otherwise END."""
    null: Tree = {"class": "CONSTANT", "type": "VALUE_CONSTANT", "literal": {"kind": "NULL_LITERAL"}}
    return {
        "class": "CASE", "type": "CASE_EXPR", "else_expr": otherwise or null,
        "case_checks": [{"when_expr": condition, "then_expr": then}],
    }  # fmt: skip


def conjuncts(expression: Tree | None) -> list[Tree]:
    """The conditions that AND joins, at the top of an expression."""
    if expression is None:
        return []
    if expression.get("type") == "CONJUNCTION_AND":
        return [part for child in expression["children"] for part in conjuncts(child)]
    return [expression]


def conjunction(parts: list[Tree]) -> Tree | None:
    """Conditions joined by AND; None for none."""
    if len(parts) < 2:  # noqa: PLR2004
        return parts[0] if parts else None
    return {"class": "CONJUNCTION", "type": "CONJUNCTION_AND", "children": parts}


def is_aggregate(node: Tree) -> bool:
    """Whether a node is a call of an aggregate function."""
    return node.get("class") == "FUNCTION" and str(node.get("function_name")).lower() in aggregates()


def same(expression: object) -> str:
    """A text that is equal for equal expressions, wherever they stand and whatever they are called."""
    return json.dumps(_without(expression), sort_keys=True)


def _without(value: object) -> object:
    if isinstance(value, dict):
        dropped = {"query_location", "query_location_length", "alias", SITE}
        return {key: _without(item) for key, item in value.items() if key not in dropped}
    return [_without(item) for item in value] if isinstance(value, list) else value

"""Conditions that stand around a SELECT: rows of it that they would drop are asked for nothing.

`SELECT * FROM (SELECT *, prompt(...) AS brand FROM products) WHERE price > 3` needs the prompt for rows whose price is more than
3. The condition is only put to the query of the inputs: the query itself stays as it is, so that it gives what it gave.
"""

from collections import Counter
from collections.abc import Iterator

from gdo.database import nodes
from gdo.runners.inputs import Scope, is_aggregated
from gdo.runners.stable import doubt_about
from gdo.runners.syntax import SITE, Refusal, Tree, conjuncts, copied, is_aggregate, own_nodes, put_in_place, select

_PAIRING = {"REGULAR", "NATURAL", "CROSS"}
_KEEPING_LEFT = {"LEFT", "SEMI", "ANTI"}
_STAR = {"class", "type", "relation_name", "query_location", "query_location_length"}
"""The keys of a star that leaves nothing out and renames nothing."""
_PLAIN = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "OPERATOR",
}  # fmt: skip


class Around:
    """The conditions around each SELECT of a statement's node."""

    def __init__(self, statement: Tree, refusal: Refusal) -> None:
        self._refusal = refusal
        self._above: dict[int, tuple[Tree, Tree]] = {}
        entries = [entry for node in nodes(statement) for entry in (node.get("cte_map") or {}).get("map", [])]
        called = Counter(_name(node) for node in nodes(statement) if node.get("type") == "BASE_TABLE")
        keys = Counter(str(entry["key"]).lower() for entry in entries)
        once = {
            name: entry["value"]["query_node"]
            for entry in entries
            if keys[name := str(entry["key"]).lower()] == called[name] == 1 and not entry["value"].get("aliases")
        }
        for node in nodes(statement):
            for table in _whole(node["from_table"]) if node.get("type") == "SELECT_NODE" else ():
                inner = table["subquery"]["node"] if table.get("type") == "SUBQUERY" else once.get(_name(table))
                if inner is not None and _goes_row_by_row(inner) and not table.get("column_name_alias"):
                    self._above[id(inner)] = node, table

    def of(self, node: Tree, scope: Scope) -> tuple[Tree, ...]:
        """The conditions around a SELECT, in terms of the tables that it reads itself."""
        return tuple(part for part in self._told(node) if self._can_be_read(part, node["from_table"], scope))

    def _told(self, node: Tree) -> Iterator[Tree]:
        outer, table = self._above.get(id(node), ({}, {}))
        for condition in [*conjuncts(outer.get("where_clause")), *(self._told(outer) if outer else ())]:
            within = _from_within(condition, outer["from_table"], table, node) if _is_cheap(condition) else None
            if within is not None:
                yield within

    def groups(self, node: Tree, scope: Scope) -> tuple[Tree, ...]:
        """The conditions of a SELECT on its groups, as what each row of a group meets: aggregates as windows."""
        keys = node.get("group_expressions", [])
        if len(node.get("group_sets", [])) > 1 or not all(map(_is_cheap, keys)):
            return ()
        found = (_over(part, keys) for part in conjuncts(node.get("having")))
        told = (part for part in found if part is not None)
        return tuple(part for part in told if self._can_be_read(part, node["from_table"], scope))

    def _can_be_read(self, condition: Tree, table: Tree, scope: Scope) -> bool:
        clauses: Tree = {"cte_map": {"map": list(scope.ctes)}} if scope.ctes else {}
        return not self._refusal(copied(select([condition], table, **clauses)))

    def beside(self, node: Tree, join: Tree, scope: Scope) -> tuple[Tree, ...]:
        """The conditions of a SELECT that a row of its join's left side meets, or is not wanted."""
        if join is not node["from_table"] or join.get("join_type") not in _KEEPING_LEFT:
            return ()
        conditions = filter(_is_cheap, conjuncts(node.get("where_clause")))
        return tuple(part for part in conditions if self._can_be_read(part, join["left"], scope))


def _name(table: Tree) -> str:
    """What a table is called, where that may be the name of a CTE."""
    is_plain = table.get("type") == "BASE_TABLE" and not table.get("schema_name") and not table.get("catalog_name")
    return str(table["table_name"]).lower() if is_plain else ""


def _whole(table: Tree) -> Iterator[Tree]:
    """The tables of a FROM whose rows stand in the result with their own values, or not at all."""
    if table.get("type") != "JOIN":
        yield table
    elif table.get("ref_type") in _PAIRING:
        kind = table.get("join_type")
        if kind in {"INNER", *_KEEPING_LEFT}:
            yield from _whole(table["left"])
        if kind == "INNER":
            yield from _whole(table["right"])


def _goes_row_by_row(node: Tree) -> bool:
    """Whether no row of a SELECT decides about another one."""
    if node.get("type") != "SELECT_NODE" or node.get("qualify") or node.get("sample") or is_aggregated(node):
        return False
    parts = [node["select_list"], node.get("modifiers")]
    if any(part.get("class") == "WINDOW" for part in own_nodes(parts)):
        return False
    return all(
        modifier.get("type") in {"ORDER_MODIFIER", "DISTINCT_MODIFIER"} and not modifier.get("distinct_on_targets")
        for modifier in node.get("modifiers", [])
    )


def _is_cheap(condition: Tree, *, windows: bool = False) -> bool:
    """Whether a condition asks nothing, and says the same whenever it is tried."""
    parts = [part for part in own_nodes(condition) if "class" in part]
    plain = _PLAIN | {"WINDOW"} if windows else _PLAIN
    return not any(part["class"] not in plain or SITE in part or doubt_about(part) for part in parts)


def _over(condition: Tree, keys: list[Tree]) -> Tree | None:
    """A condition on groups as one on their rows; None where it asks, or depends on more than the group."""
    moved = copied(condition)
    for part in [part for part in own_nodes(moved) if is_aggregate(part)]:
        if doubt_about(part) or (part.get("order_bys") or {}).get("orders"):
            return None
        count = part["function_name"] == "count_star"
        put_in_place(part, {
            "class": "WINDOW", "type": "WINDOW_AGGREGATE", "function_name": "count" if count else part["function_name"],
            "partitions": keys, "start": "UNBOUNDED_PRECEDING", "end": "UNBOUNDED_FOLLOWING",
            "filter_expr": part.get("filter"), "distinct": part.get("distinct", False), "arguments": part.get("arguments", []),
        })  # fmt: skip
    return moved if _is_cheap(moved, windows=True) else None


def _from_within(condition: Tree, tables: Tree, table: Tree, inner: Tree) -> Tree | None:
    """A condition on the columns of one of some tables as one on what they are made of; None where it is on others too."""
    moved = copied(condition)
    references = [part for part in own_nodes(moved) if part.get("class") == "COLUMN_REF"]
    # Where a join makes one column of two, its name alone is no column of either.
    is_merged = any(part.get("using_columns") or part.get("ref_type") == "NATURAL" for part in nodes(tables))
    for part in references:
        meant = None if is_merged and len(part["column_names"]) == 1 else _meant(part, table, inner)
        if meant is None or not _is_cheap(meant):
            return None
        put_in_place(part, meant)
    return moved if references else None


def _meant(reference: Tree, table: Tree, inner: Tree) -> Tree | None:
    """The expression behind a column of a table."""
    *before, name = (str(part).lower() for part in reference["column_names"])
    if before not in ([], [str(table.get("alias") or table.get("table_name")).lower()]):
        return None
    items = inner["select_list"]
    for place, item in enumerate(items):
        if item.get("class") == "STAR":
            # What a star stands for has the name that it has in the one table there is.
            is_known = item.keys() <= _STAR and inner["from_table"].get("type") != "JOIN"
            if not is_known or name in map(_title, items[place + 1 :]):
                return None
            return {**reference, "column_names": reference["column_names"][-1:]}
        if _title(item) == name:
            found: Tree = item
            return found
    return None


def _title(item: Tree) -> str:
    """The name of a column of a select list, where it says one."""
    if item.get("alias"):
        return str(item["alias"]).lower()
    return str(item["column_names"][-1]).lower() if item.get("class") == "COLUMN_REF" else ""

"""Whether a part of a query gives the same rows each time it is run: what was asked for it is then all that it needs."""

import duckdb

from gdo.database import nodes, scratch
from gdo.errors import Faults
from gdo.runners.syntax import SITE, Tree, is_aggregate, parse

_CLOCKS = {
    "now", "today", "age", "current_date", "current_localtime", "current_localtimestamp", "get_current_time",
    "get_current_timestamp", "transaction_timestamp", "txid_current",
}  # fmt: skip
_STABLE_AGGREGATES = {"count", "count_star", "count_if", "countif", "min", "max", "bool_and", "bool_or"}
_steady: set[str] = set()


def steady_functions() -> set[str]:
    """DuckDB's functions that give the same for the same arguments, whenever they are called."""
    if not _steady:
        with scratch() as connection:
            steady = "bool_and(stability IS DISTINCT FROM 'VOLATILE')"
            query = f"SELECT lower(function_name) FROM duckdb_functions() GROUP BY 1 HAVING {steady}"
            rows = connection.execute(query).fetchall()
        _steady.update({str(name) for (name,) in rows} - _CLOCKS)
    return _steady


class Doubts:
    """Looks for what may change between two runs of a query on a connection."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._views: dict[str, str] | None = None

    def about(self, tree: object, *, within: frozenset[str] = frozenset()) -> str:
        """Why a part of a query may give other rows when it is run again; nothing where it cannot."""
        for node in nodes(tree):
            doubt = doubt_about(node) or self._view(node, within)
            if doubt:
                return doubt
        return ""

    def _view(self, node: Tree, within: frozenset[str]) -> str:
        if node.get("type") != "BASE_TABLE":
            return ""
        name = str(node.get("table_name")).lower()
        if self._views is None:
            query = "SELECT lower(view_name), sql FROM duckdb_views() WHERE NOT internal"
            self._views = {str(view): str(sql) for view, sql in self._connection.sql(query).fetchall()}
        made = self._views.get(name)
        if made is None or name in within or "python_" in made:  # a table of Python's that was registered
            return ""
        try:
            body = parse(made.partition(" AS ")[2])  # DuckDB keeps a view as CREATE VIEW name AS query
        except Faults:
            body = None
        doubt = self.about(body, within=within | {name}) if body is not None else "it cannot be read"
        return doubt and f"the view {name}: {doubt}"


def is_volatile(node: Tree) -> bool:
    """Whether a node is a call that may give another value each time, for all that is known of it."""
    named = node.get("class") == "FUNCTION" and SITE not in node
    return named and str(node.get("function_name", "")).lower() not in steady_functions()


def doubt_about(node: Tree) -> str:
    """Why a node by itself may give another value when it is run again; nothing where it cannot."""
    name = str(node.get("function_name", "")).lower()
    if node.get("class") == "WINDOW" and (name not in _STABLE_AGGREGATES or node.get("orders")):
        return f"the window {name}() may depend on the order of rows"
    if is_aggregate(node) and name not in _STABLE_AGGREGATES:
        return f"{name}() may depend on the order of rows"
    if is_volatile(node):
        return f"{name}() may give another value each time"
    if node.get("type") in {"LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"}:
        return "a LIMIT may keep other rows each time"
    if node.get("sample") or node.get("distinct_on_targets"):
        return "a sample, or DISTINCT ON, may keep other rows each time"
    return ""

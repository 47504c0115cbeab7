"""A query in a plainer form that gives the same: what call sites can be read from.

Columns keep the names that they had; aliases and ordinals stand for themselves; conditions of inner joins are conditions
of the rows; a LIMIT comes before the prompts of its select list.
"""

from collections.abc import Iterator

from gdo.database import nodes
from gdo.runners.inputs import is_aggregated
from gdo.runners.sites import has_site
from gdo.runners.syntax import (
    FALSE,
    SITE,
    Refusal,
    Tree,
    column,
    conjunction,
    conjuncts,
    copied,
    own_nodes,
    plain,
    put_in_place,
    select,
    when,
    write_expression,
)


def selects(statement: Tree) -> Iterator[Tree]:
    """The SELECT nodes of a statement that call prompt functions, the outer ones first."""
    for node in list(nodes(statement)):
        if node.get("type") == "SELECT_NODE" and any(SITE in part for part in _own(node)):
            yield node


def _own(node: Tree) -> Iterator[Tree]:
    for key, clause in node.items():
        if key == "from_table":
            yield from _conditions(clause)
        elif key != "cte_map":
            yield from own_nodes(clause)


def _conditions(table: Tree) -> Iterator[Tree]:
    if table.get("type") == "JOIN":
        yield from _conditions(table["left"])
        yield from _conditions(table["right"])
        yield from own_nodes(table.get("condition"))


def name_columns(statement: Tree) -> None:
    """A column that calls a prompt function keeps its name, whatever the call will be."""
    for node in list(nodes(statement)):
        for item in node.get("select_list", []) if node.get("type") == "SELECT_NODE" else ():
            starred = any(part.get("class") == "STAR" for part in own_nodes(item))
            if has_site(item) and not item.get("alias") and not starred:
                item["alias"] = write_expression(item)


def normalise(statement: Tree, refusal: Refusal) -> None:
    """Bring each SELECT that calls prompt functions into the plainer form, in place."""
    for node in list(selects(statement)):
        _spell_out_groups(node)
        _inline_aliases(node, statement, refusal)
        _move_join_conditions(node)
        _windows_first(node)
        _limit_first(node)


def _spell_out_groups(node: Tree) -> None:
    """GROUP BY 1 and GROUP BY ALL by the expressions that they mean."""
    items = node["select_list"]
    starred = any(item.get("class") == "STAR" for item in items)
    if node.get("aggregate_handling") == "FORCE_AGGREGATES" and not starred:
        keys = [plain(item) for item in items if not is_aggregated(select([item])) and not _has_window(item)]
        node["aggregate_handling"] = "STANDARD_HANDLING"
        node["group_expressions"] = keys
        if keys:
            node["group_sets"] = [list(range(len(keys)))]
    for place, key in enumerate(node.get("group_expressions", [])):
        number = _ordinal(key)
        if number is not None and not starred and 0 < number <= len(items):
            node["group_expressions"][place] = plain(items[number - 1])


def _has_window(item: Tree) -> bool:
    return any(part.get("class") == "WINDOW" for part in own_nodes(item))


def _ordinal(key: Tree) -> int | None:
    literal = key.get("literal") or {}
    return int(literal["text"]) if key.get("class") == "CONSTANT" and literal.get("kind") == "INTEGER" else None


def _inline_aliases(node: Tree, statement: Tree, refusal: Refusal) -> None:
    """Names of the select list, where conditions, groups and other columns use them, by what they stand for."""
    named = {str(item["alias"]).lower(): item for item in node["select_list"] if item.get("alias")}
    for alias, item in named.items():
        users = [clause for key in ("where_clause", "having", "qualify") if (clause := node.get(key))]
        users += node.get("group_expressions", [])
        users += [other for other in node["select_list"] if other is not item]
        uses = [part for user in users for part in own_nodes(user) if _names(part) == [alias]]
        if uses and refusal(_probe(node, statement, alias)):
            for part in uses:
                put_in_place(part, item)


def _names(part: Tree) -> list[str] | None:
    if part.get("class") != "COLUMN_REF":
        return None
    return [str(name).lower() for name in part["column_names"]]


def _probe(node: Tree, statement: Tree, name: str) -> Tree:
    """Whether the tables of a node have a column of a name; read with every CTE that there is."""
    entries = [entry for part in nodes(statement) for entry in (part.get("cte_map") or {}).get("map", [])]
    probe = select([column(name)], node["from_table"])
    unique = {str(entry["key"]).lower(): entry for entry in entries}
    return copied({**probe, "cte_map": {"map": list(unique.values())}} if unique else probe)


def _move_join_conditions(node: Tree) -> None:
    """A condition of an inner join that asks is a condition of the rows, so that cheap ones come first."""
    moved: list[Tree] = []
    waiting = [node["from_table"]]
    while waiting:
        join = waiting.pop(0)
        inner = join.get("join_type") == "INNER" and join.get("ref_type") in {"REGULAR", "CROSS"}
        if join.get("type") != "JOIN" or not inner:
            continue
        waiting += [join["left"], join["right"]]
        parts = conjuncts(join.get("condition"))
        asking = [part for part in parts if has_site(part)]
        if asking:
            moved += asking
            join.pop("condition")
            left = conjunction([part for part in parts if not has_site(part)])
            join |= {"condition": left} if left else {"ref_type": "CROSS"}
    condition = conjunction([*conjuncts(node.get("where_clause")), *moved])
    if moved and condition:
        node["where_clause"] = condition


def _windows_first(node: Tree) -> None:
    """Beside a window in QUALIFY a prompt is only asked where the window's condition is met: AND would try both."""
    parts = conjuncts(node.get("qualify"))
    cheap = conjunction([part for part in parts if not has_site(part)])
    asking = conjunction([part for part in parts if has_site(part)])
    if cheap and asking:
        node["qualify"] = when(cheap, asking, FALSE)


def _limit_first(node: Tree) -> None:
    """Prompts of the select list, asked only for the rows that a LIMIT leaves.

    `SELECT f(x) FROM t ORDER BY y LIMIT 3` is `SELECT f(x) FROM (SELECT * FROM t ORDER BY y LIMIT 3) AS t ORDER BY y`;
    of several tables, what the select list reads is handed on column by column.
    """
    modifiers = node.get("modifiers", [])
    kinds = [modifier.get("type") for modifier in modifiers]
    orders = [order for modifier in modifiers for order in modifier.get("orders", [])]
    rest = (node.get("qualify"), node.get("sample"), "DISTINCT_MODIFIER" in kinds, has_site(modifiers))
    if "LIMIT_MODIFIER" not in kinds or not has_site(node["select_list"]) or any(rest) or is_aggregated(node):
        return
    if any(part.get("class") in {"WINDOW", "LAMBDA", "SUBQUERY"} for part in own_nodes(node["select_list"])):
        return
    if not _order_by_values(node, orders):
        return
    table = node["from_table"]
    starred = any(part.get("class") == "STAR" for part in own_nodes(node["select_list"]))
    inner = copied({key: part for key, part in node.items() if key in {"where_clause", "modifiers"}})
    if table.get("type") in {"BASE_TABLE", "SUBQUERY", "TABLE_FUNCTION"}:
        called = (table.get("function") or {}).get("function_name", "unnamed_subquery")  # as DuckDB calls them
        alias = table.get("alias") or table.get("table_name") or called
        chosen: list[Tree] = [{"class": "STAR", "type": "STAR"}]
    elif starred:
        return
    else:
        alias, chosen = "rows", list(_handed_on(node, orders))
    if not alias:
        return
    within = select(chosen, table, **inner)
    node["from_table"] = {"type": "SUBQUERY", "alias": alias, "subquery": {"node": within}}
    node.pop("where_clause", None)
    node["modifiers"] = [{"type": "ORDER_MODIFIER", "orders": orders}] if orders else []


def _order_by_values(node: Tree, orders: list[Tree]) -> bool:
    """Put what aliases and ordinals of an ORDER BY stand for in their place; false where that asks a prompt."""
    named = {str(item["alias"]).lower(): item for item in node["select_list"] if item.get("alias")}
    for order in orders:
        expression = order["expression"]
        number, name = _ordinal(expression), _names(expression)
        items = node["select_list"]
        item = named.get(name[0]) if name and len(name) == 1 else None
        if number is not None:
            item = items[number - 1] if 0 < number <= len(items) else {"class": "STAR"}
        if item is None and expression.get("class") != "STAR":
            continue
        if item is None or item.get("class") == "STAR" or has_site(item):
            return False
        order["expression"] = plain(item)
    return True


def _handed_on(node: Tree, orders: list[Tree]) -> Iterator[Tree]:
    """The columns that a select list and an ORDER BY read, under names of their own; both read these from now on."""
    for item in node["select_list"]:
        if not item.get("alias"):
            item["alias"] = item["column_names"][-1] if item.get("class") == "COLUMN_REF" else write_expression(item)
    known: dict[str, str] = {}
    for part in own_nodes([*node["select_list"], *(order["expression"] for order in orders)]):
        if part.get("class") == "COLUMN_REF":
            reference = ".".join(map(repr, part["column_names"])).lower()
            if reference not in known:
                known[reference] = f"gdo_{len(known)}"
                yield {**plain(part), "alias": known[reference]}
            part["column_names"] = [known[reference]]

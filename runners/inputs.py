"""For a place in a query, the query of what a call there is given: what the rest of its SELECT leaves."""

from dataclasses import dataclass, replace
from typing import Literal

from gdo.runners.syntax import (
    FALSE,
    TRUE,
    Tree,
    column,
    conjunction,
    conjuncts,
    copied,
    is_aggregate,
    own_nodes,
    plain,
    select,
    when,
)

Clause = Literal["from", "values", "where", "group", "having", "window", "qualify", "select"]


@dataclass(frozen=True)
class Scope:
    """What stands around a SELECT: the CTEs that it may read, and why nothing in it can be rewritten, if so."""

    ctes: tuple[Tree, ...] = ()
    reason: str = ""

    def with_cte(self, entry: Tree) -> "Scope":
        """The scope behind a CTE."""
        twin = any(str(known["key"]).lower() == str(entry["key"]).lower() for known in self.ctes)
        return replace(self, ctes=(*self.ctes, entry), reason="two CTEs have one name" if twin else self.reason)


@dataclass(frozen=True)
class Place:
    """A clause of a SELECT; `others` are the conditions that hold where an expression of it is wanted."""

    node: Tree
    scope: Scope
    clause: Clause
    reason: str = ""
    others: tuple[Tree, ...] = ()
    table: Tree | None = None
    """For a condition of a join: that join."""
    keys: frozenset[str] = frozenset()
    """What rows are grouped by: expressions whose value is there already."""
    around: tuple[Tree, ...] = ()
    """Conditions from elsewhere that a row meets, or is not wanted."""
    groups: tuple[Tree, ...] = ()
    """For what is aggregated: the conditions that its group meets, or is not wanted."""


def is_aggregated(node: Tree) -> bool:
    """Whether a SELECT gives groups of rows."""
    if any(node.get(key) for key in ("group_expressions", "group_sets", "having")):
        return True
    if node.get("aggregate_handling") == "FORCE_AGGREGATES":
        return True
    parts = (node["select_list"], node.get("qualify"), node.get("modifiers"))
    return any(is_aggregate(part) for part in own_nodes(list(parts)))


def inputs_of(place: Place, guards: tuple[Tree, ...], parts: list[Tree]) -> Tree:
    """The SELECT of the distinct parts of a call that stands in a place, where all guards are met."""
    node = place.node
    grouped = place.clause in {"having", "window", "qualify", "select"} and is_aggregated(node)
    where = place.others if place.clause == "where" else conjuncts(node.get("where_clause"))
    clauses: Tree = {"where_clause": conjunction([*place.around, *where]), "sample": node.get("sample")}
    table = node["from_table"]
    if place.clause == "from":
        table, clauses = _pairs(place), {"where_clause": conjunction(list(place.around))}
    elif place.clause == "values":
        table, clauses = {"type": "EMPTY"}, {}
    if grouped:
        having = conjunction(list(place.others)) if place.clause == "having" else node.get("having")
        # Without a GROUP BY there is one group, also of no rows: HAVING says so where the arguments do not.
        clauses |= {"group_expressions": node.get("group_expressions"), "group_sets": node.get("group_sets"),
                    "having": having or TRUE}  # fmt: skip
    if place.clause in {"qualify", "select"}:
        clauses["qualify"] = conjunction(list(place.others)) if place.clause == "qualify" else node.get("qualify")
    elif place.groups:
        clauses["qualify"] = conjunction(list(place.groups))
    chosen = _distinct(parts, guards, table, clauses)
    chosen["cte_map"] = {"map": list(place.scope.ctes)} if place.scope.ctes else {}
    return copied(chosen)


def _distinct(arguments: list[Tree], guards: tuple[Tree, ...], table: Tree, clauses: Tree) -> Tree:
    """Arguments, only where all guards are met: they are not even computed elsewhere."""
    modifiers = [{"type": "DISTINCT_MODIFIER"}]
    names = [f"a{place}" for place in range(len(arguments))]
    if not guards:
        chosen = [{**argument, "alias": name} for name, argument in zip(names, arguments, strict=True)]
        return select(chosen, table, **clauses, modifiers=modifiers)
    met = _all_met(guards)
    cells = [{**when(met, argument, None), "alias": name} for name, argument in zip(names, arguments, strict=True)]
    inner = select([*cells, {**plain(met), "alias": "met"}], table, **clauses)
    chosen = [column(name) for name in names]
    within: Tree = {"type": "SUBQUERY", "alias": "reached", "subquery": {"node": inner}}
    return select(chosen, within, where_clause=column("met"), modifiers=modifiers)


def _all_met(guards: tuple[Tree, ...]) -> Tree:
    """One condition for several, each tried only where those before it are met: AND would try them all."""
    if len(guards) == 1:
        return guards[0]
    return when(guards[0], _all_met(guards[1:]), FALSE)


def _pairs(place: Place) -> Tree:
    """A join by the conditions that do not ask: what is left to ask of it, whatever kind of join it is."""
    assert place.table is not None  # noqa: S101
    condition = conjunction(list(place.others))
    kept = {key: part for key, part in place.table.items() if key not in {"condition", "join_type", "ref_type"}}
    how = {"ref_type": "REGULAR", "condition": condition} if condition else {"ref_type": "CROSS"}
    return {**kept, "join_type": "INNER", **how}

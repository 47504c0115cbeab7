"""Where a query calls prompt functions, and for each such place the query that gives its inputs.

The inputs of a call are what the rest of its SELECT leaves: the rows after FROM and WHERE for most, after GROUP BY and
HAVING for one in the select list, and only those that reach it in a CASE, an AND, an OR or a COALESCE.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from gdo.database import nodes
from gdo.runners.around import Around
from gdo.runners.inputs import Place, Scope, inputs_of
from gdo.runners.syntax import (
    FALSE,
    SITE,
    TRUE,
    Refusal,
    Tree,
    conjuncts,
    is_aggregate,
    operator,
    own_nodes,
    plain,
    same,
    when,
)  # fmt: skip


@dataclass
class Site:
    """One call of a prompt function; `guards` are the conditions under which it is reached within its expression."""

    call: Tree
    place: Place
    guards: tuple[Tree, ...]
    reason: str = ""
    """Why it cannot be rewritten."""
    inputs: Tree | None = None
    """The SELECT of its distinct arguments."""

    @property
    def number(self) -> int:
        """Its number in the query."""
        return int(self.call[SITE])


def mark(tree: Tree, names: Iterable[str]) -> int:
    """Number the calls of functions of these names (in lower case); how many there are."""
    known = frozenset(names)
    count = 0
    for node in list(nodes(tree)):
        ours = node.get("class") == "FUNCTION" and str(node.get("function_name")).lower() in known
        if ours and not node.get("schema") and not node.get("is_operator"):
            node[SITE] = count
            node.setdefault("arguments", [])  # DuckDB leaves out what is empty
            count += 1
    return count


def has_site(tree: object) -> bool:
    """Whether a call that was marked stands somewhere in a tree."""
    return any(SITE in node for node in nodes(tree))


def find_sites(node: Tree, parts: Callable[[Tree], Iterable[Tree]], refusal: Refusal) -> list[Site]:
    """The marked calls of a statement's node, each with the query of its inputs or why there is none.

    `parts` gives the arguments of a call that differ from row to row.
    """
    finder = _Finder(Around(node, refusal))
    finder.query(node, Scope())
    found = {site.number for site in finder.sites} | finder.grouped
    nowhere = Place(node, Scope(), "select", "its place in the query is not one that is rewritten")
    for call in nodes(node):
        if SITE in call and call[SITE] not in found:
            finder.sites.append(Site(call, nowhere, ()))
    for site in finder.sites:
        site.reason = site.place.reason or site.place.scope.reason
        if any(argument.get("name") for argument in site.call["arguments"]):
            site.reason = site.reason or "it has named arguments"
        if any(part.get("class") == "STAR" for part in own_nodes(site.call)):
            site.reason = site.reason or "a * stands for several of its arguments"
        site.inputs = (
            None if site.reason else inputs_of(site.place, site.guards, [plain(part) for part in parts(site.call)])
        )
    return finder.sites


class _Finder:
    """Walks a query from clause to clause."""

    def __init__(self, around: Around) -> None:
        self.around = around
        self.sites: list[Site] = []
        self.grouped: set[int] = set()
        """The calls that stand where rows are grouped by the same."""

    def query(self, node: Tree, scope: Scope) -> None:
        """A SELECT, or what stands in its place."""
        for entry in (node.get("cte_map") or {}).get("map", []):
            self.query(entry["value"]["query_node"], scope)
            scope = scope.with_cte(entry)
        match node.get("type"):
            case "SELECT_NODE":
                self.select(node, scope)
            case "SET_OPERATION_NODE":
                for child in node["children"]:
                    self.query(child, scope)
            case "RECURSIVE_CTE_NODE":
                self.query(node["left"], scope)
                self.query(node["right"], replace(scope, reason="a recursive query asks in each of its rounds"))

    def select(self, node: Tree, scope: Scope) -> None:
        """The clauses of a SELECT, in the order in which they are worked on."""
        self.table(node["from_table"], node, scope)
        around = self.around.of(node, scope) if has_site(node) else ()
        self.conditions(node.get("where_clause"), Place(node, scope, "where", around=around))
        for key in node.get("group_expressions", []):
            self.expression(key, Place(node, scope, "group"), ())
        keys = frozenset(same(key) for key in node.get("group_expressions", []))
        reason = "GROUP BY ALL over a *" if node.get("aggregate_handling") == "FORCE_AGGREGATES" else ""
        grouped = Place(node, scope, "select", reason, keys=keys, around=around)
        self.conditions(node.get("having"), replace(grouped, clause="having"))
        self.conditions(node.get("qualify"), replace(grouped, clause="qualify"))
        self.expression(node["select_list"], grouped, ())
        for modifier in node.get("modifiers", []):
            if modifier.get("type") in {"LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER"}:
                grouped = replace(grouped, reason="it stands in a LIMIT")
            self.expression(modifier, grouped, ())

    def table(self, table: Tree, node: Tree, scope: Scope) -> None:
        """What stands in a FROM."""
        match table.get("type"):
            case "JOIN":
                self.table(table["left"], node, scope)
                self.table(table["right"], node, scope)
                around = self.around.beside(node, table, scope) if has_site(table.get("condition")) else ()
                self.conditions(table.get("condition"), Place(node, scope, "from", table=table, around=around))
            case "SUBQUERY":
                self.query(table["subquery"]["node"], scope)
            case "EXPRESSION_LIST":
                self.expression(table.get("values", []), Place(node, scope, "values"), ())
            case "TABLE_FUNCTION":
                reason = "it is an argument of a table function"
                self.expression(table.get("function"), Place(node, scope, "values", reason), ())

    def conditions(self, expression: Tree | None, place: Place) -> None:
        """Conditions joined by AND: the cheap ones first, then the prompts in their order."""
        parts = conjuncts(expression)
        cheap = [part for part in parts if not has_site(part)]
        for part in parts:
            if has_site(part):
                self.expression(part, replace(place, others=tuple(cheap)), ())
                cheap.append(part)

    def expression(self, value: object, place: Place, guards: tuple[Tree, ...]) -> None:
        """An expression, or several."""
        if isinstance(value, list):
            for item in value:
                self.expression(item, place, guards)
        if not isinstance(value, dict):
            return
        if place.keys and same(value) in place.keys:
            self.grouped |= {node[SITE] for node in nodes(value) if SITE in node}
            return
        if SITE in value:
            self.sites.append(Site(value, place, guards))
        if is_aggregate(value) or value.get("class") == "WINDOW":
            self.summed(value, place)
        elif value.get("class") == "SUBQUERY":
            self.expression(value.get("child"), place, guards)
            self.query(value["subquery"]["node"], place.scope)
        elif value.get("class") == "LAMBDA":
            self.expression(value.get("expr"), replace(place, reason=place.reason or "it stands in a lambda"), guards)
        else:
            for part, met in _reached(value):
                self.expression(part, place, (*guards, *met))

    def summed(self, value: Tree, place: Place) -> None:
        """An aggregate sees rows before they are grouped, a window before QUALIFY; both see them after their FILTER."""
        if value.get("class") != "WINDOW":
            groups = self.around.groups(place.node, place.scope) if has_site(value) else ()
            place = replace(place, clause="group", others=(), keys=frozenset(), groups=groups)
        elif place.clause in {"select", "qualify"}:
            place = replace(place, clause="window", others=())
        met = value.get("filter")
        self.expression(met, place, ())
        for key, item in value.items():
            if key != "filter":
                self.expression(item, place, (met,) if met else ())


def _reached(value: Tree) -> Iterator[tuple[object, tuple[Tree, ...]]]:
    """The parts of an expression, each with the conditions under which its value matters."""
    kind = value.get("type")
    before: tuple[Tree, ...] = ()
    if kind == "CASE_EXPR":
        for check in value["case_checks"]:
            yield check["when_expr"], before
            yield check["then_expr"], (*before, check["when_expr"])
            before = (*before, _unless(check["when_expr"]))
        yield value.get("else_expr"), before
    elif kind in {"CONJUNCTION_AND", "CONJUNCTION_OR"}:
        parts = value["children"]
        ends = [_unless(operator("OPERATOR_NOT", part) if kind == "CONJUNCTION_AND" else part) for part in parts]
        cheap = tuple(end for part, end in zip(parts, ends, strict=True) if not has_site(part))
        for part, end in zip(parts, ends, strict=True):
            yield part, (*cheap, *before) if has_site(part) else ()
            before = (*before, end) if has_site(part) else before
    elif kind == "OPERATOR_COALESCE":
        for part in value["children"]:
            yield part, before
            before = (*before, operator("OPERATOR_IS_NULL", part))
    elif value.get("class") == "FUNCTION" and str(value.get("function_name")).lower() in {"if", "ifelse"}:
        condition, then, *other = (argument["expression"] for argument in value["arguments"])
        yield condition, ()
        yield then, (condition,)
        yield other, (_unless(condition),)
    else:
        for item in value.values():
            yield item, ()


def _unless(condition: Tree) -> Tree:
    """True where a condition is false or null."""
    return when(condition, FALSE, TRUE)

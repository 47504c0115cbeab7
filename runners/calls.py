"""Calls of prompt functions in a query: which function each means, and what is wrong with it before anything is asked."""

from collections.abc import Iterable

import duckdb

from gdo.database import nodes
from gdo.errors import Faults, Finding, nearest
from gdo.runners.function import Function
from gdo.runners.group import arguments, constant
from gdo.runners.normal import name_columns
from gdo.runners.parameters import Values, put_values
from gdo.runners.registry import Registry
from gdo.runners.session import Session
from gdo.runners.syntax import SITE, Tree, call, column, parse, place, put_in_place

_TYPED = 3
"""The arguments of a `prompt` with a schema."""


class Calls:
    """The calls of the functions of a registry."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def read(self, connection: duckdb.DuckDBPyConnection, query: str, values: Values | None) -> Tree | None:
        """The statement of a query, with the values of its parameters, and `f(x, y)` for `x.f(y)`.

        Raises:
            Faults: as `parse` and `put_values` do.
        """
        tree = parse(query)
        put_values(tree, values, query)
        found = (node for node in nodes(tree or {}) if node.get("class") == "FUNCTION" and node.get("schema"))
        methods = [node for node in found if str(node["function_name"]).lower() in self.registry.functions]
        if tree is not None and methods:
            rows = connection.sql("SELECT lower(schema_name) FROM duckdb_schemas()").fetchall()
            methods = [node for node in methods if (str(node["schema"]).lower(),) not in rows]
            for node in methods:
                node[SITE] = 0
            name_columns(tree)  # they keep the names that they have by this form
            for node in methods:
                arguments = [argument["expression"] for argument in node.get("arguments", [])]
                put_in_place(
                    node, call(node["function_name"], [column(*node["qualified_name"]["path"][:-1]), *arguments])
                )
        return tree

    def check(self, tree: Tree, query: str) -> None:
        """The number of arguments, and templates, labels and schemas that stand in the query.

        Raises:
            Faults: what is wrong with any of them, each with its place.
        """
        faults: list[Finding] = []
        for called in [node for node in nodes(tree) if SITE in node]:
            if any(argument.get("name") for argument in called["arguments"]):
                continue  # by name: for DuckDB to put in order
            where = place(query, called.get("query_location"))
            try:
                self._check_call(called)
            except Faults as error:
                faults += [Finding(where, f"{called['function_name']}: {f.what}", f.hint) for f in error.findings]
        if faults:
            raise Faults(dict.fromkeys(faults))

    def _check_call(self, called: Tree) -> None:
        function = self.function(called)[0]
        given = len(called["arguments"])
        if given != function.count:
            words = "argument" if function.count == 1 else "arguments"
            raise Faults.one("", f"takes {function.count} {words} ({function.signature}), not {given}")
        settled = tuple(constant(called["arguments"][at]["expression"]) for at in function.settles)
        if settled and None not in settled:
            op = function.step(settled)
            names = [name.partition(".")[2] for name in arguments(called, function)[0]]
            lacking = sorted(op.compiled.columns - set(names))
            if function.struct is not None and all(names) and lacking:
                raise Faults.one(
                    "", f"the template reads '{lacking[0]}', which its struct does not have", nearest(lacking[0], names)
                )

    def take_only_fields(self, tree: Tree) -> None:
        """`f(x).brand` is `f(x)` where a brand is all that f gives: its result is then no struct."""
        for node in list(nodes(tree)):
            if node.get("type") == "STRUCT_EXTRACT" and SITE in node["children"][0]:
                called, name = node["children"]
                if self.function(called)[0].only == constant(name):
                    alias = node.get("alias") or constant(name)
                    node.clear()
                    node |= {**called, "alias": alias}

    def parts(self, called: Tree) -> Iterable[Tree]:
        """The arguments of a call that differ from row to row."""
        return arguments(called, self.function(called)[0])[0].values()

    def function(self, called: Tree) -> tuple[Function, Session]:
        """The function that is called, and the session that answers it; `prompt` with a schema has the type that it says."""
        name = str(called["function_name"]).lower()
        if name == "prompt" and len(called["arguments"]) == _TYPED:
            function, session = self.registry.functions["prompt json"]
            schema = constant(called["arguments"][2]["expression"])
            return (function.typed(schema) if isinstance(schema, str) else function), session
        return self.registry.functions[name]

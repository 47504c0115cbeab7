"""Values in place of the parameters of a query: `?`, `$1` and `$name`, as in DuckDB."""

from collections.abc import Mapping, Sequence

import duckdb

from gdo.database import literal, nodes, quote, scratch
from gdo.errors import Faults, Finding, nearest
from gdo.runners.syntax import Tree, parse, place, put_in_place

Values = Sequence[object] | Mapping[str, object]


def put_values(tree: Tree | None, values: Values | None, query: str) -> None:
    """Put a value in place of each parameter of a statement; one that DuckDB gives no tree of can have none.

    Raises:
        Faults: a value is lacking, is left over, or is nothing that DuckDB knows.
    """
    parameters = [node for node in nodes(tree or {}) if node.get("class") == "PARAMETER"]
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | Mapping | None):
        raise Faults.one("params", f"a {type(values).__name__} is no list of values", "for example [3, 'red']")
    given = values if isinstance(values, Mapping) else {str(n): v for n, v in enumerate(values or (), 1)}
    faults: list[Finding] = []
    for node in parameters:
        name = str(node["identifier"])
        if name not in given:
            hint = nearest(name, given) or "params=[...] for ? and $1, params={'name': ...} for $name"
            faults.append(
                Finding(place(query, node.get("query_location")), f"no value for the parameter ${name}", hint)
            )
    wanted = {str(node["identifier"]) for node in parameters}
    where = "that can be filled" if tree is None else "of that name"
    faults += [
        Finding("params", f"the query has no parameter ${name} {where}", "") for name in given if name not in wanted
    ]
    if faults:
        raise Faults(dict.fromkeys(faults))
    for node in parameters:
        made = parse(f"SELECT {_written(given[str(node['identifier'])])}")
        assert made is not None  # noqa: S101 (a SELECT of one value is a tree)
        put_in_place(node, made["statements"][0]["node"]["select_list"][0])


def _written(value: object) -> str:
    """A value of Python's as SQL: what it is called in DuckDB, and its text in quotes."""
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return literal(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, dict):
        cells = (f"{quote(str(name))}: {_written(part)}" for name, part in value.items())
        return f"{{{', '.join(cells)}}}"
    with scratch() as connection:
        try:
            row = connection.execute("SELECT typeof($1), CAST($1 AS VARCHAR)", [value]).fetchone()
        except (duckdb.Error, ValueError) as error:
            raise Faults.one("params", f"a {type(value).__name__} is no value of a query: {error}", "") from None
    assert row is not None  # noqa: S101
    return f"CAST({literal(row[1])} AS {row[0]})"

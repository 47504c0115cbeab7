"""What a query gave: a DuckDB relation that is there already, and how it was come by."""

import html
import re
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from gdo.database import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN = 40
"""Rows in a notebook."""
LONGEST = 200
"""Characters of a cell in a notebook."""


class Result:
    """The rows of a query; all that a DuckDB relation can do (`fetchall`, `df`, `pl`, `filter`, ...) it can do.

    `table` is the rows in Arrow (bits, and times with a zone, as text); `explain` how the query was run; `report` the calls of
    each function so far.
    """

    def __init__(
        self, relation: duckdb.DuckDBPyRelation, table: pa.Table, explain: str, report: dict[str, dict[str, object]]
    ) -> None:
        self.relation = relation
        self.table = table
        self.explain = explain
        self.report = report

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") or name == "relation":
            raise AttributeError(name)
        return getattr(self.relation, name)

    def __len__(self) -> int:
        return len(self.relation)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows as an Arrow stream: a source for `gdo.run`, Polars or pandas, and a table by its name in a query."""
        return self.table.__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return repr(self.relation)

    def _repr_html_(self) -> str:
        """The first rows, for a notebook."""
        names = "".join(f"<th>{html.escape(name)}</th>" for name in self.relation.columns)
        rows = self.relation.limit(SHOWN).fetchall()
        body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
        count = len(self)
        more = f"the first {SHOWN} of {count:,} rows" if count > len(rows) else f"{count:,} rows"
        asked = sum(int(str(facts["calls"])) for facts in self.report.values())
        return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table><p>{more}, {asked:,} calls</p>"


def _cell(value: object) -> str:
    if value is None:
        return "<td><i>NULL</i></td>"
    text = str(value)
    return f"<td>{html.escape(text if len(text) <= LONGEST else text[: LONGEST - 3] + '...')}</td>"


def rows_of(connection: duckdb.DuckDBPyConnection, query: str, columns: "Sequence[tuple[str, str]]") -> pa.Table:
    """The rows of a query in Arrow; values that Arrow would spoil are handed on as text."""
    relation = connection.sql(query)
    if any(_AS_TEXT.search(kind) for _, kind in columns):
        names = [f"c{place}" for place in range(len(columns))]
        cells = [
            f"{name}{'::VARCHAR' if _AS_TEXT.search(kind) else ''}"
            for name, (_, kind) in zip(names, columns, strict=True)
        ]
        relation = connection.sql(f"SELECT {', '.join(cells)} FROM ({query}\n) AS t({', '.join(names)})")
    return relation.to_arrow_table()


_AS_TEXT = re.compile(r"\b(BIT|TIME WITH TIME ZONE|UHUGEINT)\b")
"""Types, also within others, that Arrow does not know."""


def relation_of(
    connection: duckdb.DuckDBPyConnection, table: pa.Table, columns: "Sequence[tuple[str, str]]"
) -> duckdb.DuckDBPyRelation:
    """Arrow rows as a relation with the names and types that they had in DuckDB, which Arrow does not all know."""
    numbered = table.rename_columns([f"c{place}" for place in range(table.num_columns)])
    relation = connection.from_arrow(numbered)
    parts = [
        f"{quote(f'c{place}')}{'' if str(found) == kind else f'::{kind}'} AS {quote(name)}"
        for place, ((name, kind), found) in enumerate(zip(columns, relation.types, strict=True))
    ]
    return relation.project(", ".join(parts))

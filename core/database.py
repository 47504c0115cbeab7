"""DuckDB as gdo uses it: quoting, conditions over a batch, queries over `input`, and what a query needs."""

import itertools
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from gdo.errors import Faults, nearest


def quote(name: str) -> str:
    """A name as a SQL identifier, whatever it holds.

    >>> print(quote('a "b"'))
    "a ""b""\"
    """
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as a SQL string.

    >>> print(literal("it's"))
    'it''s'
    """
    return "'" + text.replace("'", "''") + "'"


def connect(path: str = ":memory:", *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection that prints nothing and installs nothing by itself."""
    connection = duckdb.connect(path, read_only=read_only)
    connection.execute("SET enable_progress_bar = false")
    connection.execute("SET autoinstall_known_extensions = false")
    connection.execute("SET python_enable_replacements = false")  # a table is never a Python variable of ours
    return connection


@lru_cache(maxsize=1)
def _memory() -> duckdb.DuckDBPyConnection:
    # Opening a database takes 15 ms, a cursor on one that is open none; what a cursor registers is its own.
    connection = connect()
    connection.execute("SET threads = 1")
    return connection


def scratch() -> duckdb.DuckDBPyConnection:
    """A connection to an empty database in memory, for one question; close it."""
    return _memory().cursor()


def message(error: Exception) -> str:
    """What an error of DuckDB's, or of a stream that it feeds, says, in one line and without its class."""
    lines = str(error).strip().splitlines()
    first = lines[0].partition("Error: ")[2] or lines[0]
    if "CSV Error on Line" not in first:
        return first
    why = itertools.takewhile(bool, lines[1:])  # then comes advice for callers of its reader
    return f"{first}: {' '.join(line for line in why if not line.startswith('Original Line'))}"


def is_aborted(connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether an error has ended the transaction of the user's, so that nothing more can be run in it."""
    try:
        connection.sql("SELECT 1").fetchall()
    except duckdb.Error:
        return True
    return False


def look_in(folder: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Files that a query names are relative to the pipeline file, like every path in it."""
    connection.execute(f"SET file_search_path = {literal(str(folder.resolve()))}")


def query_batch(query: str, batch: pa.RecordBatch, folder: Path | None = None) -> pa.Table:
    """The rows of a query over a batch called `input`; files that it names are in `folder`."""
    with scratch() as connection:
        if folder is not None:
            look_in(folder, connection)
        connection.register("input", pa.Table.from_batches([batch]))
        return connection.sql(query).to_arrow_table()


def condition_mask(condition: str, batch: pa.RecordBatch) -> pa.BooleanArray:
    """Which rows of a batch meet a SQL condition; null counts as not."""
    table = query_batch(f"SELECT coalesce(CAST(({condition}\n) AS BOOLEAN), false) AS met FROM input", batch)
    return table.column("met").combine_chunks()


def describe(query: str, schema: pa.Schema, folder: Path | None = None) -> pa.Schema:
    """The schema of a query over a table `input` of some schema; files that it names are in `folder`.

    Raises:
        Faults: it does not fit such a table (no place in the finding; DuckDB's own words).
    """
    with scratch() as connection:
        if folder is not None:
            look_in(folder, connection)
        connection.register("input", schema.empty_table())
        try:
            names = [str(row[0]) for row in connection.execute(f"DESCRIBE ({query}\n)").fetchall()]
            twice = next((name for i, name in enumerate(names) if name.lower() in map(str.lower, names[:i])), None)
            if twice is not None:
                hint = f"give one another name with AS, or leave one out: * EXCLUDE ({quote(twice)})"
                raise Faults.one("", f"the query gives two columns called '{twice}'", hint)
            return connection.sql(f"SELECT * FROM ({query}\n) LIMIT 0").to_arrow_table().schema
        except duckdb.Error as error:
            column = re.search(r'Referenced column "(.+?)" not found', str(error))
            if column:
                raise Faults.one("", f"no column '{column[1]}' here", nearest(column[1], schema.names)) from None
            raise Faults.one("", message(error)) from None


def condition_columns(condition: str, schema: pa.Schema) -> frozenset[str]:
    """The columns of a schema that a SQL condition reads.

    Raises:
        Faults: it is not a condition over such a table.
    """
    query = f"SELECT * FROM input WHERE ({condition}\n)"
    with scratch() as connection:  # for a message about the words that the user typed, without our brackets
        connection.register("input", schema.empty_table())
        try:
            connection.execute(f"EXPLAIN SELECT * FROM input WHERE {condition}")
        except duckdb.ParserException as error:
            raise Faults.one("", message(error)) from None
        except duckdb.Error:
            pass  # told below
    describe(query, schema)
    if describe(f"SELECT ({condition}\n) AS met FROM input", schema).field("met").type != pa.bool_():
        raise Faults.one("", f"'{condition}' is neither true nor false", "write a condition, such as price > 3")
    read = Query(query)
    if not read.is_row_wise:
        raise Faults.one("", f"'{condition}' is not about one row alone", "put such a query into an sql step")
    folded = {name.lower() for name in read.names}
    return frozenset(name for name in schema.names if name.lower() in folded)


@dataclass(frozen=True)
class Query:
    """A query as DuckDB's own parser reads it.

    Raises:
        Faults: it is not one SELECT (from `tree`).
    """

    text: str

    @cached_property
    def tree(self) -> dict[str, object]:
        """The syntax tree of the statement."""
        with scratch() as connection:
            row = connection.execute("SELECT json_serialize_sql(?)", [self.text]).fetchone()
        answer = json.loads(row[0]) if row else {}
        if answer.get("error"):
            said = (str(answer.get("error_message", "")).splitlines() or ["it cannot be parsed"])[0]
            said = "it is another statement" if "serialized to json" in said else said
            raise Faults.one("", f"not a query: {said}", "one SELECT over `input`")
        if len(answer["statements"]) != 1:
            raise Faults.one("", f"{len(answer['statements'])} statements", "one SELECT over `input`")
        found: dict[str, object] = answer["statements"][0]["node"]
        return found

    @cached_property
    def names(self) -> frozenset[str]:
        """Every part of every column name in it: `input.a.b` may be the column a with its field b."""
        parts = (node.get("column_names") for node in nodes(self.tree) if node.get("class") == "COLUMN_REF")
        return frozenset(str(name) for names in parts if isinstance(names, list) for name in names)

    @cached_property
    def has_star(self) -> bool:
        """Whether a `*` stands in it (count(*) apart), or a table is read whole in another way."""
        return any(
            node.get("class") == "STAR"
            or node.get("type") == "JOIN"
            or node.get("class") == "POSITIONAL_REFERENCE"
            or (node.get("class") == "COLUMN_REF" and node.get("column_names") in self._tables)
            for node in nodes(self.tree)
        )

    @cached_property
    def is_row_wise(self) -> bool:
        """Whether each row out depends on one row of `input` alone, in its order."""
        tree = self.tree
        table = tree.get("from_table")
        plain = (
            tree.get("type") == "SELECT_NODE"
            and isinstance(table, dict)
            and table.get("type") == "BASE_TABLE"
            and str(table.get("table_name")).lower() == "input"
            and not table.get("sample")
            and not any(tree.get(key) for key in ("modifiers", "group_expressions", "having", "sample", "qualify"))
            and not _entries(tree.get("cte_map"))
            and not self._sees_whole_rows
        )
        return plain and not any(self._needs_all(node) for node in nodes(tree))

    @cached_property
    def _tables(self) -> list[list[str]]:
        """The names that a whole row of `input` has in expressions."""
        aliases = {
            str(node["alias"]) for node in nodes(self.tree) if node.get("type") == "BASE_TABLE" and node.get("alias")
        }
        return [[name] for name in sorted({"input", *aliases})]

    @cached_property
    def _sees_whole_rows(self) -> bool:
        """Whether an expression takes in a row as a whole, and so would see the hidden row number."""
        chosen = self.tree.get("select_list")
        stars = [part for part in chosen if part.get("class") == "STAR"] if isinstance(chosen, list) else []
        inside = sum(node.get("class") == "STAR" for node in nodes(self.tree)) > len(stars)
        names = [node.get("column_names") for node in nodes(self.tree) if node.get("class") == "COLUMN_REF"]
        return inside or any(star.get("columns") for star in stars) or any(name in names for name in self._tables)

    @cached_property
    def is_row_filter(self) -> bool:
        """Whether it is `SELECT * FROM input WHERE ...` and nothing more."""
        chosen = self.tree.get("select_list")
        if not (
            self.is_row_wise and isinstance(chosen, list) and len(chosen) == 1 and chosen[0].get("class") == "STAR"
        ):
            return False
        star = chosen[0]
        return not any(star.get(key) for key in ("exclude_list", "replace_list", "rename_list", "columns", "expr"))

    @staticmethod
    def _needs_all(node: dict[str, object]) -> bool:
        if node.get("class") in {"WINDOW", "SUBQUERY"}:
            return True
        return node.get("class") == "FUNCTION" and str(node.get("function_name")).lower() in aggregates()

    def numbered(self, column: str) -> str:
        """The same row-wise query with one more column of `input` handed on."""
        chosen = self.tree.get("select_list")
        if isinstance(chosen, list) and any(part.get("class") == "STAR" and not part.get("columns") for part in chosen):
            return self.text  # a `*` takes it along
        with scratch() as connection:
            row = connection.execute("SELECT json_serialize_sql(?)", [self.text]).fetchone()
            extra = connection.execute(
                "SELECT json_serialize_sql(?)", [f"SELECT {quote(column)} FROM input"]
            ).fetchone()
            assert row and extra  # noqa: S101 PT018
            whole = json.loads(row[0])
            whole["statements"][0]["node"]["select_list"] += json.loads(extra[0])["statements"][0]["node"][
                "select_list"
            ]
            text = connection.execute("SELECT json_deserialize_sql(?)", [json.dumps(whole)]).fetchone()
        assert text is not None  # noqa: S101
        return str(text[0])


_AGGREGATES: set[str] = set()


def aggregates() -> set[str]:
    """The names of DuckDB's aggregate functions."""
    if not _AGGREGATES:
        with scratch() as connection:
            rows = connection.execute(
                "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type IN ('aggregate', 'window')"
            ).fetchall()
        _AGGREGATES.update(str(name).lower() for (name,) in rows)
    return _AGGREGATES


def nodes(value: object) -> Iterator[dict[str, Any]]:
    """Every node of a syntax tree, the outer ones first."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from nodes(item)
    elif isinstance(value, list):
        for item in value:
            yield from nodes(item)


def _entries(value: object) -> bool:
    return bool(value.get("map")) if isinstance(value, dict) else bool(value)


def column_list(names: Iterable[str]) -> str:
    """Names as a list in SQL."""
    return ", ".join(quote(name) for name in names)

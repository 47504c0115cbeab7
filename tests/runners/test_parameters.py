"""Parameters of a query."""

import datetime as dt
import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gdo
from gdo.errors import Faults
from gdo.runners.parameters import put_values
from gdo.runners.syntax import parse, write


@pytest.fixture
def con(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as made:
        made.execute("CREATE TABLE t AS SELECT i AS id, 'text ' || i AS a FROM range(6) r(i)").fetchall()
        with gdo.register(made, model="fake", folder=tmp_path, cache=False):
            yield made


def filled(query: str, values: Any) -> str:
    tree = parse(query)
    assert tree is not None
    put_values(tree, values, query)
    return write(tree)


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.binary(),
    st.dates(dt.date(1, 1, 1)),
    st.datetimes(dt.datetime(1, 1, 1)),  # noqa: DTZ001 (without a zone)
    st.decimals(-(10**9), 10**9, places=3),
    st.uuids(),
)


LISTS = st.lists(st.text("a',]\\{", max_size=5), min_size=1)
RECORDS = st.dictionaries(st.text("ab '\"", min_size=1), st.integers(0, 9), min_size=1)


@given(SCALARS | LISTS | RECORDS)
def test_a_value_is_that_value_in_the_query(value: Any) -> None:
    try:
        told = duckdb.execute("SELECT $1", [value]).fetchall()
    except duckdb.Error:  # names that differ in their case alone
        return
    assert duckdb.sql(filled("SELECT ?", [value])).fetchall() == told


def test_parameters_stand_wherever_an_expression_does(con: duckdb.DuckDBPyConnection) -> None:
    query = (
        "SELECT prompt($say, {t: a}) AS s, $n AS n FROM t WHERE id >= $n AND a <> $no AND ask_bool('{{ t }}', {t: $no})"
    )
    values = {"say": "say {{ t }}", "n": 4, "no": "'; DROP TABLE t; --"}
    result = gdo.sql(con, query, values)
    plain = query.replace("$say", "'say {{ t }}'").replace("$no", "'''; DROP TABLE t; --'").replace("$n", "4")
    assert result.fetchall() == con.sql(plain).fetchall()
    assert "answer_" in result.explain
    assert con.sql("SELECT count(*) FROM t").fetchall() == [(6,)]


def test_a_query_without_prompts_takes_values_too(con: duckdb.DuckDBPyConnection) -> None:
    assert gdo.sql(con, "SELECT id FROM t WHERE a = ? LIMIT ?", ("text 3", 5)).fetchall() == [(3,)]


@pytest.mark.parametrize(
    ("query", "values", "told"),
    [
        ("SELECT ?, ?", [1], "query:1:11: no value for the parameter $2"),
        ("SELECT $name", {"nmae": 1}, "query:1:8: no value for the parameter $name (did you mean 'nmae'?)"),
        ("SELECT 1", [1], "params: the query has no parameter $1"),
        ("SELECT ?", "x", "params: a str is no list of values"),
        ("SELECT ?", [object()], "params: a object is no value of a query"),
        ("PIVOT t ON id USING count(*) GROUP BY a", [1], "params: the query has no parameter $1 that can be filled"),
    ],
)
def test_values_that_do_not_fit_are_told(con: duckdb.DuckDBPyConnection, query: str, values: Any, told: str) -> None:
    with pytest.raises(Faults) as caught:
        gdo.sql(con, query, values)
    assert told in str(caught.value)


def test_what_stands_in_for_a_value_is_of_its_type() -> None:
    values = [Decimal("1.50"), uuid.UUID(int=7), dt.timedelta(days=1), [1, None], {"a b": dt.date(2024, 1, 2)}]
    types = duckdb.sql(filled("SELECT " + ", ".join("?" * len(values)), values)).types
    assert list(map(str, types)) == ["DECIMAL(3,2)", "UUID", "INTERVAL", "INTEGER[]", 'STRUCT("a b" DATE)']

"""Which queries stream row by row, which see the whole table, and which are only a condition."""

from pathlib import Path

import pytest

from gdo.document import parse_document
from gdo.op import Scope, Site
from gdo.operators.sql import Sql


def prepared(query: str) -> Sql:
    op = Sql(op="sql", query=query)
    assert op.prepare(Site(parse_document("{}"), (), Path())) == []
    return op


@pytest.mark.parametrize(
    "query",
    [
        "SELECT a, b + 1 AS c FROM input",
        "SELECT * FROM input WHERE a > 1;",
        "FROM input SELECT upper(a)",
        "SELECT unnest(l) AS x FROM input",
        "SELECT list_sum(l) AS s, list_transform(l, x -> x + 1) AS t FROM input i",
        "SELECT * REPLACE (a + 1 AS a) FROM input",
        "SELECT * FROM input -- a comment",
    ],
)
def test_a_query_about_each_row_alone_streams(query: str) -> None:
    assert prepared(query).scope is Scope.BATCH


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) AS n FROM input",
        "SELECT a, sum(b) AS s FROM input GROUP BY a",
        "SELECT max(a) AS m FROM input",
        "SELECT DISTINCT a FROM input",
        "SELECT * FROM input ORDER BY a",
        "SELECT * FROM input LIMIT 5",
        "SELECT *, row_number() OVER () AS n FROM input",
        "SELECT * FROM input QUALIFY row_number() OVER (PARTITION BY a) = 1",
        "SELECT * FROM input WHERE a > (SELECT avg(a) FROM input)",
        "SELECT * FROM input UNION ALL SELECT * FROM input",
        "SELECT l.* FROM input l JOIN input r USING (a)",
        "WITH x AS (SELECT * FROM input) SELECT * FROM x",
        "SELECT * FROM (SELECT max(a) AS a FROM input)",
        "SELECT * FROM input USING SAMPLE 3",
        "SELECT list(a) AS l FROM input",
        "SELECT a FROM input HAVING count(*) > 1",
    ],
)
def test_a_query_about_several_rows_sees_the_whole_table(query: str) -> None:
    assert prepared(query).scope is Scope.GROUP


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("SELECT * FROM input WHERE a > 1 AND b IS NULL", {"a", "b"}),
        ("FROM input WHERE \"a b\" = 'x'", {"a b"}),
        ("SELECT a FROM input WHERE a > 1", None),
        ("SELECT * EXCLUDE (b) FROM input WHERE a > 1", None),
        ("SELECT * FROM input WHERE a > 1 LIMIT 3", None),
        ("SELECT *, 1 AS one FROM input WHERE a > 1", None),
    ],
)
def test_only_a_plain_condition_may_move_ahead_of_prompts(query: str, columns: set[str] | None) -> None:
    found = prepared(query).decides_by()
    assert found == (None if columns is None else frozenset(columns))


@pytest.mark.parametrize(
    "query",
    [
        "SELEC 1",
        "DROP TABLE input",
        "SELECT 1; SELECT 2",
        "COPY input TO 'x.csv'",
        "ATTACH 'x.db'",
        "INSERT INTO input VALUES (1)",
    ],
)
def test_anything_but_one_select_is_a_fault(query: str) -> None:
    (finding,) = Sql(op="sql", query=query).prepare(Site(parse_document("{}", "p.yaml"), (), Path()))
    assert str(finding).startswith("p.yaml:")

"""Whatever the query: `gdo.sql` gives the table that the plain functions give."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gdo

TABLES = """
CREATE TABLE t AS SELECT * FROM (VALUES
    (1, 'red shoe', 'x', 5), (2, 'blue shoe', NULL, 3), (3, NULL, 'y', 5), (4, 'red shoe', 'x', NULL), (5, 'tea', 'z', 1),
    (6, '', 'y', 2), (7, 'tea', 'x', 3)) AS v(id, a, b, n);
CREATE TABLE u AS SELECT * FROM (VALUES (3, 'tea', 9), (5, 'hat', 8), (5, 'red shoe', 7), (NULL, 'tea', 6)) AS v(n, w, k);
"""

# Every expression is over rows of `t AS p`, and of `u AS q` where the two are joined.
CHEAP = ["p.n > 2", "p.a LIKE 'r%'", "p.b IS NULL", "p.id % 2 = 0", "p.n IN (1, 5)"]
TEXTS = ["p.a", "p.b", "upper(p.a)", "p.a || p.b", "'always'", "CAST(p.n AS VARCHAR)"]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Two small tables, and a model that knows nothing and always says the same."""
    folder = tmp_path_factory.mktemp("equality")
    (folder / "two.yaml").write_text(
        "udp: two\nprompt: '{{ left }} and {{ right }}'\noutput: {size: integer, good: boolean}\n", encoding="utf-8"
    )
    (folder / "one.yaml").write_text("udp: one\nprompt: 'of {{ x }}'\noutput: {word: string}\n", encoding="utf-8")
    with duckdb.connect() as made:
        made.execute(TABLES).fetchall()
        with gdo.register(made, [folder], model="fake", folder=folder, cache=False):
            yield made


@st.composite
def texts(draw: st.DrawFn, depth: int = 2) -> str:
    """An expression that is a text: a column, or a prompt over one, or a choice between some."""
    if depth == 0:
        return draw(st.sampled_from(TEXTS))
    one, other = draw(texts(depth - 1)), draw(texts(depth - 1))
    forms = [
        f"prompt('say {{{{ t }}}}', {{t: {one}}})",
        f"one({one})",
        f"classify({one}, ['good', 'bad', 'new'])",
        f"prompt('{{{{ t }}}}: {{{{ k }}}}', {{t: {one}, k: {other}}})",
        f"coalesce({one}, {other})",
        f"CASE WHEN {draw(conditions(depth - 1))} THEN {one} ELSE {other} END",
        one,
    ]
    return draw(st.sampled_from(forms))


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> str:
    """A condition: cheap, or a prompt, or some of both."""
    if depth == 0:
        return draw(st.sampled_from(CHEAP))
    text, one, other = draw(texts(depth - 1)), draw(conditions(depth - 1)), draw(conditions(depth - 1))
    forms = [
        f"ask_bool('is it {{{{ t }}}}?', {{t: {text}}})",
        f"two({text}, p.b).good",
        f"prompt('rate {{{{ t }}}}', {{t: {text}}}, 'integer') > 500",
        f"({one} AND {other})",
        f"({one} OR {other})",
        f"NOT ({one})",
    ]
    return draw(st.sampled_from(forms))


PROMPTS, CONDITIONS = texts(), conditions()
FROMS = [
    "t AS p",
    "t AS p JOIN u AS q ON p.n = q.n",
    "t AS p JOIN u AS q ON p.n = q.n AND ask_bool('{{ l }} is {{ r }}', {l: p.a, r: q.w})",
    "t AS p LEFT JOIN u AS q ON p.n = q.n AND ask_bool('{{ l }} is {{ r }}', {l: p.a, r: q.w})",
    "t AS p SEMI JOIN u AS q ON p.n = q.n AND ask_bool('{{ l }} is {{ r }}', {l: p.a, r: q.w})",
    "(SELECT *, one(a) AS said FROM t WHERE id > 1) AS p",
    "(SELECT * FROM t WHERE id IN (SELECT n FROM u WHERE ask_bool('{{ w }}', {w: w}))) AS p",
    "(SELECT DISTINCT id, a, one(b) AS b, n FROM t ORDER BY id LIMIT 5) AS p",
    "(SELECT id, a, b, n FROM t UNION ALL SELECT k, w, one(w), n FROM u) AS p",
]


AROUND = [
    ("o", "n > 2"),
    ("(inner) AS o", "o.n > 2 AND id <> 4"),
    ("(inner) AS o JOIN u USING (n)", "n > 3 AND o.id > 1"),
    ("o LEFT JOIN u ON o.n = u.n AND s <> w", "o.n > 2 AND (w IS NULL OR w > 'h')"),
    ("u LEFT JOIN o ON o.n = u.n AND s <> w", "o.n IS NULL OR o.n > 4"),
    ("(inner) AS o, u", "o.n = u.n AND o.id % 2 = 1 AND s IS NOT NULL"),
    ("(SELECT id + 1 AS i, * FROM o) AS o SEMI JOIN u ON o.n = u.n AND ask_bool('{{ w }}', {w: s})", "i BETWEEN 3 AND 6"),
    ("o", "id > (SELECT min(n) FROM u) AND coalesce(n, 9) > 2"),
    ("(SELECT *, row_number() OVER (ORDER BY s, id) AS r FROM o) AS o", "id > 3 AND r < 5"),
    ("(SELECT * FROM o ORDER BY s, id LIMIT 4) AS o", "id > 2"),
]


@st.composite
def queries(draw: st.DrawFn) -> str:  # noqa: PLR0911 (one form of query after the other)
    table = draw(st.sampled_from(FROMS))
    where = draw(st.one_of(st.just(""), st.builds(" WHERE {}".format, CONDITIONS)))
    kinds = ["rows", "rows", "groups", "groups by name", "windows", "first", "with", "correlated", "around"]
    kind = draw(st.sampled_from(kinds))
    text, other = draw(PROMPTS), draw(PROMPTS)
    if kind == "groups":
        having = draw(st.sampled_from(["", " HAVING count(*) > 1", " HAVING ask_bool('{{ m }}', {m: max(p.a)})"]))
        shown = f"{text} AS g, count(*), max({other}), count(*) FILTER (WHERE {draw(CONDITIONS)})"
        return f"SELECT {shown} FROM {table}{where} GROUP BY {draw(st.sampled_from(['g', '1', text]))}{having}"
    if kind == "groups by name":
        some = ["", " HAVING count(DISTINCT p.a) > 1 AND p.n > 1", " HAVING min(p.id) < 3 OR max(p.b) > 'x'"]
        having = draw(st.sampled_from(some))
        shown = f"p.n, max({text}), one(min({other})), prompt('{{{{ c }}}}', {{c: count(*)}})"
        return f"SELECT {shown} FROM {table}{where} GROUP BY ALL{having}"
    if kind == "windows":
        first = " QUALIFY row_number() OVER (PARTITION BY p.n ORDER BY p.id) = 1"
        qualify = draw(st.sampled_from(["", first, f"{first} AND {draw(CONDITIONS)}"]))
        shown = f"p.id, {text} AS s, rank() OVER (PARTITION BY {other} ORDER BY p.id)"
        return f"SELECT {shown} FROM {table}{where}{qualify}"
    if kind == "first":
        shown = draw(st.sampled_from([f"p.id, {text} AS s", f"p.*, {text}", f"{text}, p.id AS i"]))
        return f"SELECT {shown} FROM {table}{where} ORDER BY p.id, {draw(st.sampled_from(['1', 'p.n', 'p.a']))} LIMIT 3"
    if kind == "with":
        return f"WITH c AS (SELECT p.id, {text} AS s FROM {table}{where}) SELECT s, one(s) FROM c WHERE s IS NOT NULL"
    if kind == "around":
        cells = draw(st.sampled_from([f"p.id, p.n, {text} AS s", f"DISTINCT {text} AS s, p.n, p.id", f"p.*, {text} AS s"]))
        inner = f"SELECT {cells} FROM {table}{where}"
        told, outer = draw(st.sampled_from(AROUND))
        start = f"WITH o AS ({inner}) SELECT" if "(inner)" not in told else "SELECT"
        shown = f"o.id, s, {draw(st.sampled_from(['one(s)', 'o.n']))}"
        return f"{start} {shown} FROM {told.replace('(inner)', f'({inner})')} WHERE {outer}"
    if kind == "correlated":
        inner = "SELECT max(one(o.w)) FROM u AS o WHERE o.n = p.n"
        return f"SELECT p.id, ({inner}), {text} FROM {table}{where}"
    shown = draw(st.sampled_from([f"p.id, {text}", f"DISTINCT {text} AS s, length(s)", f"{text} AS s, {other}, s || '!'"]))
    condition = draw(st.sampled_from([where, where, " WHERE s IS NULL OR s > 'f'"])) if " AS s" in shown else where
    return f"SELECT {shown} FROM {table}{condition}"


def rows(table: Any) -> Counter[str]:
    return Counter(map(repr, table.to_pylist()))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(query=queries())
def test_a_query_gives_what_the_plain_functions_give(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    plain = connection.sql(query)
    told = (plain.columns, list(map(str, plain.types)))
    wanted = plain.to_arrow_table()
    result = gdo.sql(connection, query)
    assert (result.columns, list(map(str, result.types))) == told
    assert rows(result.table) == rows(wanted), result.explain


def test_the_tables_are_there(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    assert connection.sql("SELECT count(*) FROM t").fetchall() == [(7,)]

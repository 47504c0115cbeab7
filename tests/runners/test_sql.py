"""`gdo.sql`: what is asked, how often, and what comes out."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gdo
from gdo.model import Request

Con = duckdb.DuckDBPyConnection
Run = Callable[..., Any]
ASK = "ask_bool('{{{{ t }}}}', {{t: {}}})".format
SAY = "prompt('{{{{ t }}}}', {{t: {}}})".format


def echo(request: Request) -> str:
    """The prompt is the answer; a question is answered yes where it says so."""
    assert request.head.answer is not None
    word = getattr(request.head.answer.fields[0].type, "word", "")
    name = request.head.answer.names[0]
    value = request.body if word == "string" else "yes" in request.body
    return json.dumps({name: value})


def growing(request: Request) -> str:
    """Says what `echo` says, and adds two rows to the file that is read."""
    path = Path("growing.csv")
    rows = path.read_text().splitlines()
    if len(rows) < 8:
        path.write_text("\n".join([*rows, f"more {len(rows)}", f"more {len(rows) + 1}", ""]))
    return echo(request)


@pytest.fixture
def con(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Con]:
    """A thousand rows with ten texts; a small table beside it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as made:
        text = "'text ' || (i % 10) || CASE WHEN i % 2 = 0 THEN ' yes' ELSE '' END"
        made.execute(f"CREATE TABLE t AS SELECT i AS id, {text} AS a, i % 7 AS n FROM range(1000) r(i)").fetchall()
        made.execute("CREATE TABLE u AS SELECT i AS n, 'side ' || i AS b FROM range(3) r(i)").fetchall()
        yield made


@pytest.fixture
def run(con: Con, tmp_path: Path) -> Run:
    """Run a query with a new session and no cache: the result, and how many calls were made."""

    def ran(query: str, **options: Any) -> Any:
        fake = {"backend": "fake", "answer": f"{__name__.rpartition('.')[2]}:echo", **options.pop("fake", {})}
        with gdo.register(con, models={"m": fake}, cache=False, folder=tmp_path, **options) as functions:
            result = gdo.sql(con, query)
            return result, sum(facts["calls"] for facts in functions.report.values())

    return ran


# What is asked


@pytest.mark.parametrize(
    ("query", "calls"),
    [
        (f"SELECT {SAY('a')} FROM t", 10),
        (f"SELECT {SAY('a')} FROM t WHERE n = 3 AND id < 15", 2),  # 3 and 10
        (f"SELECT id FROM t WHERE {ASK('a')} AND id < 4", 4),
        (f"SELECT id FROM t WHERE id < 4 AND {ASK('a')}", 4),
        (f"SELECT id FROM t WHERE {ASK('a')} OR id >= 4", 4),
        (f"SELECT id FROM t WHERE id < 4 AND {ASK('a')} AND {ASK('a || id')}", 4 + 2),  # the second for those that pass
        (f"SELECT {SAY('a')} FROM t WHERE id < 4 AND {ASK('a')}", 4 + 2),
        (f"SELECT CASE WHEN id < 3 THEN {SAY('a')} WHEN id < 5 THEN {SAY('n')} ELSE 'no' END FROM t", 3 + 2),
        (f"SELECT if(id < 3, {SAY('a')}, 'no') FROM t", 3),
        (f"SELECT coalesce(nullif(b, 'side 1'), {SAY('b')}) FROM u", 1),
        (f"SELECT count(*) FILTER (WHERE {ASK('a')}) FROM t WHERE id < 5", 5),
        (f"SELECT max({SAY('a')}) FILTER (WHERE id < 5) FROM t", 5),
        (f"SELECT n, {SAY('count(*)')} FROM t WHERE id < 700 GROUP BY n", 1),
        (f"SELECT n, {SAY('max(id)')} FROM t GROUP BY n HAVING n < 2", 2),
        (f"SELECT n FROM t GROUP BY n HAVING n < 3 AND {ASK('max(id)')}", 3),
        (f"SELECT {SAY('a')} AS s, count(*) FROM t GROUP BY s", 10),
        (f"SELECT {SAY('a')}, count(*) FROM t GROUP BY ALL", 10),
        (f"SELECT id, {SAY('a')} FROM t QUALIFY row_number() OVER (PARTITION BY n ORDER BY id) = 1", 7),
        (f"SELECT rank() OVER (PARTITION BY {SAY('a')} ORDER BY id) FROM t", 10),
        (f"SELECT {SAY('id')} FROM t ORDER BY id DESC LIMIT 5", 5),
        (f"SELECT {SAY('id')} AS s, id + 1 AS k FROM t ORDER BY k DESC LIMIT 5 OFFSET 2", 5),
        (f"SELECT t.id, {SAY('b')} FROM t JOIN u ON t.n = u.n ORDER BY t.id LIMIT 2", 2),
        (f"SELECT {SAY('b')} FROM t JOIN u ON t.n = u.n AND t.id < 2", 2),
        (f"SELECT 1 FROM t JOIN u ON t.n = u.n AND {ASK('t.n')}", 3),
        (f"SELECT 1 FROM t LEFT JOIN u ON t.n = u.n AND {ASK('t.n')}", 3),
        (f"SELECT {SAY(SAY('a'))} FROM t WHERE id < 3", 3),  # the echo of an echo is the same prompt
        (f"WITH c AS (SELECT *, {SAY('a')} AS s FROM t) SELECT {SAY('n')} FROM c WHERE n < 2", 10 + 2),
        (f"SELECT s FROM (SELECT {SAY('a')} AS s, id FROM t WHERE id < 3)", 3),
        (f"SELECT id FROM t WHERE id IN (SELECT n FROM u WHERE {ASK('b')})", 3),
        (f"SELECT {SAY('a')} FROM t UNION ALL SELECT {SAY('b')} FROM u", 13),
        (f"SELECT {SAY('a')} FROM t ORDER BY {ASK('a')}", 10 + 10),
        (f"SELECT * REPLACE ({SAY('a')} AS a) FROM t", 10),
        (f"SELECT {SAY('x')} FROM (VALUES (1), (2), (2)) v(x)", 2),
        (f"SELECT 1 FROM (VALUES ({SAY(1)}), ({SAY(2)})) v(x)", 2),
        (f"SELECT {SAY('max(a)')} FROM t WHERE id > 5000", 0),  # null: there is no row
        (f"SELECT id, {SAY('id')} FROM t WHERE n < 3 USING SAMPLE reservoir(5 ROWS) REPEATABLE (7)", 2),  # five, before WHERE
        (f"SELECT id FROM t WHERE {ASK('id')} USING SAMPLE reservoir(5 ROWS) REPEATABLE (7)", 5),
        (f"SELECT id FROM t QUALIFY row_number() OVER (PARTITION BY n ORDER BY id) = 1 AND {ASK('id')}", 7),
        (f"SELECT * FROM (SELECT *, {SAY('a')} AS s FROM t) WHERE id < 4 AND s > ''", 4),
        (f"WITH c AS (SELECT id + 1 AS i, n, {SAY('a')} AS s FROM t) SELECT s FROM c JOIN u USING (n) WHERE c.i < 4", 3),
        (f"WITH c AS (SELECT id AS i, {SAY('a')} AS s FROM t), d AS (SELECT i AS j, s FROM c) SELECT s FROM d WHERE j < 4", 4),
        (f"SELECT n FROM (SELECT n, id FROM t WHERE {ASK('id')}) AS c WHERE c.id < 4 GROUP BY n", 4),
        (f"SELECT * FROM (SELECT DISTINCT id, {SAY('a')} AS s FROM t) LEFT JOIN u ON id = n WHERE id < 4", 4),
        (f"SELECT id FROM t SEMI JOIN u ON t.n = u.n AND {ASK('id')} WHERE id < 9", 3 + 2),  # 0 to 2, 7 and 8
        (f"SELECT id, b FROM t LEFT JOIN u ON t.n = u.n AND {ASK('id')} WHERE id < 9 AND (b IS NULL OR b > '')", 3 + 2),
        (f"SELECT n, max({SAY('id')}) FROM t WHERE id < 9 GROUP BY n HAVING count(*) > 1", 2 + 2),
        (f"SELECT n + 1 AS m, max({SAY('a')}) AS s FROM t WHERE id < 9 GROUP BY m HAVING max(id) > 7 AND m > 1 AND s > ''", 2),
        (f"SELECT n, rank() OVER (ORDER BY max({SAY('id')})) FROM t WHERE id < 9 GROUP BY n HAVING count(*) > 1", 4),
        (f"SELECT * FROM (SELECT id, {SAY('id')} AS s FROM t) LIMIT 5", 5),
        (f"WITH c AS (SELECT id, {SAY('id')} AS s FROM t) SELECT s FROM c SEMI JOIN u ON c.id = u.n", 3),
        (f"WITH c AS (SELECT id, {SAY('id')} AS s FROM t) SELECT a.s FROM c a JOIN c b USING (id) WHERE a.id < 7", 7),
        (f"SELECT count(*) FROM (SELECT id, {SAY('id')} AS s FROM t)", 0),
        (f"SELECT * FROM (SELECT id, {SAY('id')} AS s FROM t UNION ALL SELECT n, {SAY('b')} FROM u) WHERE id < 2", 2 + 2),
        (f"SELECT s FROM (SELECT *, {SAY('id')} AS s, rank() OVER (PARTITION BY n ORDER BY id) AS r FROM t) WHERE r = 1", 7),
        (f"WITH c(x, y) AS (SELECT id, {SAY('id')} FROM t) SELECT y, x FROM c WHERE x < 3", 3),
        (f"SELECT * FROM (SELECT id, {SAY('id')} AS s FROM t WHERE {ASK('a')} AND id < 9) WHERE s <> '' LIMIT 2", 9 + 5),
        (f"SELECT {SAY('i')} FROM (SELECT id AS i FROM t UNION ALL SELECT n FROM u) LIMIT 4", 4),
        ("SELECT t.a.prompt({x: 1}), [a.prompt({x: n})] AS l FROM t WHERE id < 3", 3),
        ("SELECT id, prompt('nothing', {}) FROM t WHERE id < 3", 0),  # a row of no values is nothing to ask
        ("SELECT 'plain'", 0),
    ],
)  # fmt: skip
def test_a_prompt_is_asked_only_for_the_inputs_that_the_rest_leaves(con: Con, run: Run, query: str, calls: int) -> None:
    result, made = run(query)
    assert "as it is: prompt" not in result.explain
    assert "as it is: ask_bool" not in result.explain
    assert made == calls, result.explain
    plain = con.sql(query)
    assert (result.columns, result.types) == (plain.columns, plain.types)
    assert sorted(map(repr, result.fetchall())) == sorted(map(repr, plain.fetchall()))


def test_many_rows_with_few_inputs_make_one_call_an_input(con: Con, run: Run) -> None:
    con.execute("CREATE TABLE big AS SELECT i AS id, 'brand ' || (i % 500) AS brand FROM range(100_000) r(i)").fetchall()
    result, calls = run("SELECT id, prompt('{{ b }}', {b: brand}) AS s FROM big")
    assert (len(result), calls) == (100_000, 500)
    assert result.filter("s IS DISTINCT FROM 'brand ' || (id % 500)").fetchall() == []
    with gdo.register(con, models={"m": {"backend": "fake"}}, cache=False) as functions:
        con.sql("SELECT prompt('{{ b }}', {b: brand}) FROM big").fetchall()
        assert functions.report["prompt"]["calls"] == 500


def test_all_inputs_go_to_the_model_in_one_stream(con: Con, run: Run) -> None:
    """The window is kept full: with 64 at a time 3,000 calls of 10 ms take half a second, and 30 seconds one by one."""
    result, calls = run(
        "SELECT prompt('{{ i }}', {i: i}) FROM range(3000) r(i)", fake={"latency_s": 0.01, "concurrency": 64}
    )
    assert (len(result), calls) == (3000, 3000)


# What is not rewritten


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (f"SELECT list_transform([1, 2], lambda x: {SAY('x')})", "it stands in a lambda"),
        (f"SELECT n, (SELECT max({SAY('t.a')}) FROM t WHERE t.n = u.n) FROM u", "its inputs cannot be read by themselves"),
        (
            f"WITH RECURSIVE r AS (SELECT 1 AS i, '' AS s UNION ALL SELECT i + 1, {SAY('i')} FROM r WHERE i < 4) FROM r",
            "a recursive query asks in each of its rounds",
        ),
        (f"SELECT * FROM range(length({SAY(1)}))", "it is an argument of a table function"),
        ("SELECT prompt(template := '{{ t }}', args := {t: 1})", "it has named arguments"),
        (f"SELECT {SAY('COLUMNS(*)')} FROM u", "a * stands for several of its arguments"),
        (f"PIVOT (SELECT n, {SAY('n')} AS s FROM u) ON n USING max(s)", "DuckDB gives no tree of it"),
    ],
)  # fmt: skip
def test_what_cannot_be_rewritten_runs_as_it_is_and_says_why(con: Con, run: Run, query: str, why: str) -> None:
    result, calls = run(query)
    assert why in result.explain
    assert calls > 0
    assert sorted(map(repr, result.fetchall())) == sorted(map(repr, con.sql(query).fetchall()))


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT {SAY('i')} FROM (SELECT (random() * 1000)::INTEGER AS i FROM range(50))",
        f"SELECT {SAY('id')} FROM (SELECT id FROM t USING SAMPLE 20)",
        f"SELECT {SAY('string_agg(a, chr(44))')} FROM t GROUP BY n",
        f"SELECT {SAY('id')} FROM v",
        f"SELECT {SAY('now()')}",
    ],
)
def test_inputs_that_may_differ_when_they_are_read_again_are_asked_when_they_come_up(con: Con, run: Run, query: str) -> None:
    con.execute("CREATE VIEW v AS SELECT id FROM t USING SAMPLE 20").fetchall()
    result, _ = run(query)
    assert "one that comes up later is asked then" in result.explain
    assert len(result) > 0
    assert all(value for (value,) in result.fetchall())


def test_a_call_that_is_not_rewritten_keeps_its_equals_from_it(con: Con, run: Run) -> None:
    pivot = f"PIVOT (SELECT id, n, {SAY('n')} AS s FROM t WHERE id < 9) ON n IN (0, 1) USING max(s) GROUP BY id"
    query = f"SELECT n, {SAY('n')} AS s, '' FROM u UNION ALL SELECT * FROM ({pivot})"
    result, _ = run(query)
    assert "its place in the query is not one that is rewritten" in result.explain
    assert sorted(map(repr, result.fetchall())) == sorted(map(repr, con.sql(query).fetchall()))
    query = f"SELECT {SAY('n')} AS s, (SELECT max({SAY('n')}) FROM t WHERE t.n > u.n) AS m FROM u"
    result, _ = run(query)
    assert sorted(map(repr, result.fetchall())) == sorted(map(repr, con.sql(query).fetchall()))


def test_rows_that_come_while_a_query_asks_are_asked_too(con: Con, run: Run) -> None:
    Path("growing.csv").write_text("a\nfirst\nsecond\n")
    query = f"SELECT a, {SAY('a')} AS s FROM 'growing.csv'"
    result, calls = run(query, fake={"answer": f"{__name__.rpartition('.')[2]}:growing"})
    assert len(result) > 2
    assert all(a == s for a, s in result.fetchall())
    assert calls == len(result)


# Security, and names of all kinds

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda name: name.strip() and not name.startswith("__")
)


@settings(max_examples=30, deadline=None)
@given(name=NAMES, table=NAMES, value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
def test_names_and_values_of_any_kind_stay_what_they_are(name: str, table: str, value: str) -> None:
    def quoted(word: str) -> str:
        return '"' + word.replace('"', '""') + '"'

    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE {quoted(table)} ({quoted(name)} VARCHAR)").fetchall()
        con.execute(f"INSERT INTO {quoted(table)} VALUES (?)", [value]).fetchall()
        with gdo.register(con, model="fake", cache=False):
            column, text = quoted(name), "row[" + repr(name) + "]"
            template = ("{{ " + text + " }}").replace("'", "''") if '"' not in repr(name)[0] else "{{ x }}"
            key = quoted(name) if template != "{{ x }}" else "x"
            asked = f"prompt('is {template}', {{{key}: {column}}})"
            query = f"SELECT {column}, {asked} FROM {quoted(table)} WHERE {column} IS NOT NULL"
            result = gdo.sql(con, query)
            assert result.fetchall() == con.sql(query).fetchall()
            assert result.fetchall()[0][0] == value
            assert "as it is" not in result.explain
            assert con.sql("SELECT count(*) FROM duckdb_tables()").fetchall() == [(1,)]


@pytest.mark.parametrize("text", ["'; DROP TABLE t; --", "a'b\"c", "\\", "{{ t }}", "$$", "x'); SELECT 1; --", "\n-- no", "/*"])
def test_a_template_or_a_value_never_becomes_sql(con: Con, run: Run, text: str, tmp_path: Path) -> None:
    con.execute("CREATE TABLE odd AS SELECT ? AS a", [text]).fetchall()
    literal, name = "'" + text.replace("'", "''") + "'", '"' + text.replace('"', '""') + '"'
    for query in (
        f"SELECT prompt({literal} || ' {{{{ t }}}}', {{t: 1}})",
        f"SELECT {SAY('a')} FROM odd",
        f"SELECT classify(a, [{literal}, 'other']) FROM odd",
        f"SELECT CASE WHEN a = {literal} THEN {SAY(literal)} END AS {name} FROM odd",
    ):
        result, _ = run(query, fake={"answer": None})
        assert result.fetchall() == con.sql(query).fetchall()
        assert result.columns == con.sql(query).columns
    assert con.sql("SELECT count(*) FROM t").fetchall() == [(1000,)]


def test_words_of_sql_serve_as_names_of_tables_columns_and_udps(con: Con, tmp_path: Path) -> None:
    (tmp_path / "select.yaml").write_text(
        "udp: select\nprompt: '{{ order }} {{ row[\"a \\\"b\\\"\"] }}'\noutput: {group: string, 'two words': integer}\n"
    )
    con.execute('CREATE TABLE "table" AS SELECT \'x\' AS "order", 2 AS "a ""b"""').fetchall()
    with gdo.register(con, [tmp_path / "select.yaml"], model="fake", cache=False):
        call = '"select"("order", "a ""b""")'
        query = f'SELECT {call} AS "from", ({call})."two words" + 1 AS "where" FROM "table" WHERE "order" = \'x\''
        result = gdo.sql(con, query)
        assert result.fetchall() == con.sql(query).fetchall()
        assert result.columns == con.sql(query).columns
        assert "as it is" not in result.explain


# What comes out


def test_the_result_is_a_relation_and_an_arrow_stream(run: Run, con: Con) -> None:
    result, _ = run(f"SELECT id, {SAY('a')} AS s FROM t WHERE id < 3 ORDER BY id")
    assert result.fetchall() == [(0, "text 0 yes"), (1, "text 1"), (2, "text 2 yes")]
    assert result.filter("id = 1").fetchall() == [(1, "text 1")]
    assert pa.table(result).equals(result.table)
    assert len(result) == 3
    assert "text 2 yes" in repr(result)


@pytest.mark.parametrize(
    "value",
    ["1::HUGEINT", "uuid '00000000-0000-0000-0000-000000000001'", "'101'::BIT", "TIMETZ '10:00:00+02'", "{x: 1::HUGEINT}",
     "['a'::ENUM('a', 'b')]", "INTERVAL 3 DAY", "MAP {'k': 1}", "NULL", "'{}'::JSON", "union_value(a := 1)", "'x'::BLOB",
     "TIMESTAMPTZ '2024-01-01 00:00:00+00'", "1.5::DECIMAL(9, 3)"],
)  # fmt: skip
def test_types_that_arrow_does_not_know_come_out_as_they_were(run: Run, con: Con, value: str) -> None:
    query = f"SELECT {value} AS v, {SAY(1)} AS s, 2 AS v"
    result, _ = run(query)
    plain = con.sql(query)
    assert (result.columns, result.types, result.fetchall()) == (plain.columns, plain.types, plain.fetchall())


def test_a_notebook_shows_a_table_whose_texts_are_no_markup(run: Run) -> None:
    result, _ = run(f"SELECT {SAY('$$<b>$$')} AS \"<i>\", NULL AS n FROM range(50)")
    shown = result._repr_html_()
    assert "<b>" not in shown
    assert "&lt;b&gt;" in shown
    assert "<th>&lt;i&gt;</th>" in shown
    assert "<i>NULL</i>" in shown
    assert "the first 40 of 50 rows, 1 calls" in shown


def test_a_variable_of_python_is_a_table_as_in_duckdb(con: Con, tmp_path: Path) -> None:
    query = message = pa.table({"a": ["x", "y"]})  # names that gdo's own code uses too
    with gdo.register(con, model="fake", cache=False, folder=tmp_path):
        for name in ("query", "message"):
            asked = f"SELECT {SAY('a')} FROM {name} JOIN (SELECT 'x' AS a) USING (a)"
            assert gdo.sql(con, asked).fetchall() == con.sql(asked).fetchall()
        with pytest.raises(gdo.Faults, match="Table with name con does not exist"):
            gdo.sql(con, "SELECT * FROM con")
        assert con.sql("SELECT count(*) FROM duckdb_views() WHERE NOT internal").fetchall() == [(0,)]
        assert con.sql("SELECT count(*) FROM query").fetchall() == [(2,)]
        con.execute("SET python_enable_replacements = false").fetchall()
        with pytest.raises(gdo.Faults, match="Table with name message does not exist"):
            gdo.sql(con, "SELECT * FROM message")
    assert query is message


def test_a_result_is_a_table_by_its_name(run: Run, con: Con) -> None:
    result, _ = run(f"SELECT id, {SAY('a')} AS said FROM t WHERE id < 3")
    assert con.sql("SELECT count(*), min(said) FROM result").fetchall() == [(3, "text 0 yes")]
    assert gdo.sql(con, "SELECT count(*) FROM result").fetchall() == [(3,)]
    assert len(result) == 3


@pytest.mark.parametrize("value", ["'infinity'::DATE", "'-infinity'::TIMESTAMP", "'0044-03-15 (BC)'::DATE", "'12000-01-01'::DATE",
                                   "TIMESTAMP_NS '2024-01-01 00:00:00.123456789'"])  # fmt: skip
def test_a_moment_that_python_has_no_word_for_is_asked_as_any_other(run: Run, con: Con, value: str) -> None:
    query = f"SELECT {SAY('d')} FROM (VALUES ({value}), (NULL)) v(d)"
    result, calls = run(query)
    assert calls == 1
    assert result.fetchall() == con.sql(query).fetchall()


def test_what_is_no_text_is_no_query(con: Con) -> None:
    with pytest.raises(gdo.Faults, match="query: a NoneType is no query"):
        gdo.sql(con, None)  # type: ignore[arg-type]


def test_a_result_is_a_snapshot(run: Run, con: Con) -> None:
    result, _ = run(f"SELECT {SAY('a')} FROM t WHERE id < 3")
    con.execute("DELETE FROM t").fetchall()
    assert len(result.fetchall()) == 3


def test_nothing_of_a_query_is_left_in_the_database(run: Run, con: Con) -> None:
    run(f"SELECT {SAY('a')} FROM t WHERE id < 3")
    left = con.sql("SELECT function_name FROM duckdb_functions() WHERE function_name LIKE '\\_\\_gdo\\_%\\_%' ESCAPE '\\'")
    assert {name for (name,) in left.fetchall() if name[6:7].isdigit()} == set()


def test_a_query_within_a_transaction_sees_it_and_leaves_it_open(run: Run, con: Con) -> None:
    con.execute("BEGIN").fetchall()
    con.execute("UPDATE t SET a = 'changed' WHERE id = 0").fetchall()
    result, _ = run(f"SELECT {SAY('a')} FROM t WHERE id = 0")
    assert result.fetchall() == [("changed",)]
    con.execute("ROLLBACK").fetchall()
    assert con.sql("SELECT a FROM t WHERE id = 0").fetchall() == [("text 0 yes",)]


def test_queries_on_several_cursors_at_once_do_not_meddle(con: Con, tmp_path: Path) -> None:
    fake = {"backend": "fake", "answer": f"{__name__.rpartition('.')[2]}:echo", "latency_s": 0.002}
    found: dict[int, Any] = {}

    def work(number: int) -> None:
        with con.cursor() as cursor:
            found[number] = gdo.sql(cursor, f"SELECT id, {SAY(f'a || {number}')} FROM t ORDER BY id").fetchall()

    with gdo.register(con, models={"m": fake}, cache=False, folder=tmp_path):
        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for number, rows in found.items():
        assert [text for _, text in rows] == [f"{a}{number}" for (a,) in con.sql("SELECT a FROM t ORDER BY id").fetchall()]
    assert len(found) == 4


def test_without_a_registration_the_general_functions_are_there(con: Con) -> None:
    assert gdo.sql(con, "SELECT prompt('{{ t }}', {t: NULL}) AS nothing").fetchall() == [(None,)]


@pytest.mark.parametrize(
    "value",
    ["['101'::BIT]", "{a: ['10:00:00+05:30'::TIMETZ], b: 'it''s, \"x\"'}", "340282366920938463463374607431768211455::UHUGEINT"],
)
def test_values_that_arrow_does_not_know_stay_what_they_are(con: Con, run: Run, value: str) -> None:
    query = f"SELECT {SAY('a')} AS s, {value} AS v FROM t WHERE id < 2"
    result, plain = run(query)[0], con.sql(f"SELECT {value}")
    assert [row[1] for row in result.fetchall()] == [plain.fetchall()[0][0]] * 2
    assert str(result.types[1]) == str(plain.types[0])


def test_an_interval_is_an_input_as_any_other(run: Run) -> None:
    assert run(f"SELECT {SAY('i')} FROM (SELECT INTERVAL 3 DAY AS i)")[1] == 1


def test_inputs_that_were_not_answered_are_told_on_standard_error(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "SELECT prompt('{{ t }}', {t: a}, 'integer') FROM t"
    run(query, retries=0)
    assert "gdo.sql: 10 inputs were not answered and gave NULL: invalid: " in capsys.readouterr().err
    run(query.replace(", 'integer'", ""))
    assert capsys.readouterr().err == ""


def test_a_failed_input_is_null_and_told_once(con: Con, tmp_path: Path) -> None:
    fake = {"backend": "fake", "fail_every": 2}
    with gdo.register(con, models={"m": fake}, folder=tmp_path, cache=False, retries=0) as functions:
        result = gdo.sql(con, f"SELECT a, {SAY('a')} AS s FROM t")
        failed = {a for a, s in result.fetchall() if s is None}
        assert 0 < len(failed) < 10
        assert functions.errors().num_rows == len(failed)
        assert all(any(a in row["detail"] for a in failed) for row in functions.errors().to_pylist())


def test_a_server_that_is_away_is_told_and_the_next_query_tries_again(con: Con, tmp_path: Path) -> None:
    away = {"backend": "endpoint", "url": "http://127.0.0.1:9/v1", "model": "m", "patience_s": 0.2, "retries": 0}
    away = {key: value for key, value in away.items() if key in gdo_endpoint_keys()}
    with gdo.register(con, models={"m": away}, folder=tmp_path):
        for _ in range(2):
            with pytest.raises((gdo.ModelUnready, gdo.RunFailed), match="model 'm'"):
                gdo.sql(con, f"SELECT {SAY(1)}")


def gdo_endpoint_keys() -> set[str]:
    from gdo.models.endpoint import Endpoint

    return set(Endpoint.model_fields)


# A pipeline as a relation


def test_a_pipeline_is_a_relation(con: Con, tmp_path: Path) -> None:
    tmp_path = tmp_path / "odd [1] *"
    tmp_path.mkdir()
    (tmp_path / "p.yaml").write_text(
        "source: {path: unused.csv}\nsteps:\n"
        "  - {op: map, model: fake, prompt: '{{ a }}', output: {said: string}}\n"
        "  - {op: sql, query: 'SELECT id, said FROM input WHERE id < 20'}\n"
    )
    relation = gdo.relation(con, tmp_path / "p.yaml", source=con.sql("SELECT id, a FROM t"))
    assert relation.columns == ["id", "said"]
    assert relation.filter("id < 5").order("id").fetchall()[0][0] == 0
    assert con.sql("SELECT count(*) FROM relation").fetchall() == [(20,)]


def test_a_pipeline_whose_sink_is_csv_is_a_relation_too(con: Con, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "source: {sql: SELECT 1 AS a}\nsteps: [{op: sql, query: SELECT a + 1 AS b FROM input}]\nsink: {path: out.csv}\n"
    )
    assert gdo.relation(con, tmp_path / "p.yaml").fetchall() == [(2,)]


def test_a_pipeline_with_a_fault_is_told(con: Con, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("source: {sql: SELECT 1 AS a}\nsteps: [{op: sqll}]\n")
    with pytest.raises(gdo.Faults, match="unknown operator 'sqll'"):
        gdo.relation(con, tmp_path / "p.yaml")

"""Every kind of source and sink, end to end."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest

import gdo

Write = Callable[..., Path]
ROWS = [
    {"id": 1, "name": 'Größe, "x"\nline', "price": 1.5},
    {"id": 2, "name": None, "price": None},
    {"id": 3, "name": "東京 🎈", "price": -2.0},
]
TABLE = pa.Table.from_pylist(ROWS)
CSV = 'id,name,price\n1,"Größe, ""x""\nline",1.5\n2,,\n3,東京 🎈,-2.0\n'
JSONL = (
    '{"id": 1, "name": "Größe, \\"x\\"\\nline", "price": 1.5}\n{"id": 2, "name": null, "price": null}\n'
    '{"id": 3, "name": "東京 🎈", "price": -2.0}\n'
)
KEEP = {"op": "sql", "query": "SELECT * FROM input"}
ASK = {"op": "map", "prompt": "{{ id }}", "output": {"a": "string"}, "model": "m"}


def database(path: Path, sql: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(sql)


def put(folder: Path, kind: str) -> dict[str, str]:  # noqa: C901, PLR0911 (one branch a kind)
    """A source of three rows of some kind."""
    if kind == "parquet":
        pyarrow.parquet.write_table(TABLE, folder / "in.parquet")
        return {"path": "in.parquet"}
    if kind in {"jsonl", "ndjson"}:
        (folder / f"in.{kind}").write_text(JSONL, encoding="utf-8")
        return {"path": f"in.{kind}"}
    if kind == "csv":
        (folder / "in.csv").write_text(CSV, encoding="utf-8")
        return {"path": "in.csv"}
    if kind == "csv.gz":
        (folder / "in.csv.gz").write_bytes(gzip.compress(CSV.encode()))
        return {"path": "in.csv.gz"}
    if kind == "tsv":
        (folder / "in.tsv").write_text(
            CSV.replace("Größe,", "Größe;").replace(",", "\t").replace("Größe;", "Größe,"), encoding="utf-8"
        )
        return {"path": "in.tsv"}
    if kind == "format":
        (folder / "in.txt").write_text(CSV, encoding="utf-8")
        return {"path": "in.txt", "format": "csv"}
    if kind == "glob":
        (folder / "parts" / "deep").mkdir(parents=True)
        pyarrow.parquet.write_table(TABLE.slice(0, 2), folder / "parts" / "1.parquet")
        pyarrow.parquet.write_table(TABLE.slice(2), folder / "parts" / "deep" / "2.parquet")
        return {"path": "parts/**/*.parquet"}
    if kind == "odd name":
        pyarrow.parquet.write_table(TABLE, folder / "it's [1] {x}.parquet")
        return {"path": "it's [1] {x}.parquet"}
    if kind == "sql":
        (folder / "in.csv").write_text(CSV, encoding="utf-8")
        return {"sql": "SELECT * FROM 'in.csv' -- all of it\n;"}
    pyarrow.parquet.write_table(TABLE, folder / "x.parquet")
    database(folder / "shop.duckdb", f"CREATE TABLE \"my products\" AS FROM '{folder / 'x.parquet'}'")
    if kind == "table":
        return {"database": "shop.duckdb", "table": "my products"}
    assert kind == "database sql"
    return {"database": "shop.duckdb", "sql": 'SELECT * FROM "my products"'}


KINDS = ["parquet", "jsonl", "ndjson", "csv", "csv.gz", "tsv", "format", "glob", "odd name", "sql", "table",
         "database sql"]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_source_gives_its_rows(write: Write, tmp_path: Path, kind: str) -> None:
    path = write([ASK], source=put(tmp_path, kind))
    table = gdo.run(path).table()
    assert table.column_names == ["id", "name", "price", "a"]
    assert table.drop_columns(["a"]).to_pylist() == ROWS
    assert table.column("a").null_count == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_limit_reads_only_the_first_rows_of_any_source(write: Write, tmp_path: Path, kind: str) -> None:
    run = gdo.run(write([ASK], source=put(tmp_path, kind)), limit=2)
    assert run.table().column("id").to_pylist() == [1, 2]
    assert run.report["map"]["calls"] == 2


SINKS = ["parquet", "csv", "tsv", "jsonl", "ndjson", "csv.gz", "jsonl.gz", "tsv.gz", "table"]


@pytest.mark.parametrize("kind", SINKS)
def test_every_kind_of_sink_holds_the_rows(write: Write, tmp_path: Path, kind: str) -> None:
    sink = {"database": "out/x.duckdb", "table": 'my "out"'} if kind == "table" else {"path": f"out/result.{kind}"}
    run = gdo.run(write([KEEP], source=put(tmp_path, "parquet"), sink=sink))
    found = run.table()
    assert found.to_pylist() == ROWS
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["x.duckdb" if kind == "table" else f"result.{kind}"]


@pytest.mark.parametrize("kind", SINKS)
def test_a_sink_of_no_rows_still_has_its_columns(write: Write, tmp_path: Path, kind: str) -> None:
    sink = {"database": "x.duckdb", "table": "t"} if kind == "table" else {"path": f"result.{kind}"}
    run = gdo.run(
        write([{**KEEP, "query": "SELECT * FROM input WHERE id > 9"}], source=put(tmp_path, "parquet"), sink=sink)
    )
    if not kind.startswith(("jsonl", "ndjson")):
        assert run.table().column_names == ["id", "name", "price"]
        assert run.table().num_rows == 0
    else:
        assert (tmp_path / f"result.{kind}").is_file()


EVERYTHING = """
SELECT 1::TINYINT AS i8, 2::UBIGINT AS u64, 3::HUGEINT AS huge, 4.5::DECIMAL(9,2) AS dec, 1.5::FLOAT AS f32, true AS b,
  DATE '2024-02-29' AS d, TIMESTAMP '2024-02-29 12:00:00.5' AS ts, TIMESTAMPTZ '2024-02-29 12:00:00+00' AS tz,
  TIME '12:34:56' AS t, INTERVAL 3 DAY AS iv, 'x'::ENUM('x', 'y') AS e, uuid() AS u, '\\xAA'::BLOB AS blob,
  [1, 2] AS l, {'a': 1, 'b': [{'c': DATE '2024-01-01'}]} AS s, MAP {'k': 1} AS m, NULL AS nothing, '{"j": 1}'::JSON AS j
FROM range(3)
"""


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "table"])
@pytest.mark.parametrize(
    "column",
    [
        "i8",
        "u64",
        "huge",
        "dec",
        "f32",
        "b",
        "d",
        "ts",
        "tz",
        "t",
        "iv",
        "e",
        "u",
        "blob",
        "l",
        "s",
        "m",
        "nothing",
        "j",
    ],
)
def test_a_column_of_any_type_reaches_any_sink_or_is_a_fault(
    write: Write, tmp_path: Path, kind: str, column: str
) -> None:
    sink = {"database": "x.duckdb", "table": "t"} if kind == "table" else {"path": f"result.{kind}"}
    source = {
        "sql": f"SELECT range AS id, {column} FROM (SELECT range, * FROM ({EVERYTHING.replace('SELECT 1::', 'SELECT range, 1::')}))"  # noqa: E501
    }
    try:
        run = gdo.run(write([ASK], source=source, sink=sink))
    except gdo.GdoError as error:
        assert column in str(error)  # it says which column a file of this kind cannot hold  # noqa: PT017
        assert column == "iv"
        return
    table = run.table()
    assert table.column_names == ["id", column, "a"]
    assert table.num_rows == 3
    if column != "nothing":
        assert table.column(column).null_count == 0


def test_whole_numbers_stay_numbers_in_jsonl(write: Write, tmp_path: Path) -> None:
    step = {"op": "sql", "query": "SELECT sum(id) AS total, avg(price) AS mean FROM input"}
    gdo.run(write([step], source=put(tmp_path, "parquet"), sink={"path": "out.jsonl"}))
    assert (tmp_path / "out.jsonl").read_text() == '{"total":6,"mean":-0.25}\n'


def test_lists_and_records_are_json_in_csv(write: Write, tmp_path: Path) -> None:
    source = {"sql": "SELECT [1, 2] AS l, {'a': 'ö'} AS s, NULL::INTEGER[] AS n"}
    gdo.run(write([KEEP], source=source, sink={"path": "out.csv"}))
    text = (tmp_path / "out.csv").read_text(encoding="utf-8")
    assert text == '"l","s","n"\n"[1,2]","{""a"":""ö""}",\n'


# Arrow from Python


class Capsule:
    """What a frame library hands over: nothing but an Arrow stream, as often as it is asked."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


def relation(connection: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyRelation:
    connection.register("arrow_rows", TABLE)
    return connection.sql("SELECT * FROM arrow_rows")


@pytest.mark.parametrize("kind", ["table", "batch", "reader", "relation", "capsule", "chunks"])
def test_an_arrow_stream_serves_as_a_source(write: Write, kind: str) -> None:
    with duckdb.connect() as connection:
        sources: dict[str, Callable[[], Any]] = {
            "table": lambda: TABLE,
            "batch": lambda: TABLE.to_batches()[0],
            "reader": lambda: TABLE.to_reader(),  # noqa: PLW0108
            "relation": lambda: relation(connection),
            "capsule": lambda: Capsule(TABLE),
            "chunks": lambda: pa.concat_tables([TABLE.slice(0, 1), TABLE.slice(0, 0), TABLE.slice(1)]),
        }
        path = write([ASK])
        run = gdo.run(path, source=sources[kind]())
        assert run.table().drop_columns(["a"]).to_pylist() == ROWS
        assert gdo.run(path, source=sources[kind](), limit=1).table().num_rows == 1


def test_an_arrow_stream_stands_in_for_the_source_of_the_file(write: Write) -> None:
    path = write([ASK], source={"path": "not_there.csv"})
    assert gdo.run(path, source=TABLE).table().num_rows == 3


def test_an_arrow_reader_is_read_once_and_feeds_a_graph(write: Write, tmp_path: Path) -> None:
    steps = [{**ASK, "id": "a"}, {"op": "sql", "from": "source", "id": "b", "query": "SELECT count(*) AS n FROM input"}]
    sinks = [{"path": "a.parquet", "from": "a"}, {"path": "b.parquet", "from": "b"}]
    run = gdo.run(write(steps, sinks=sinks), source=TABLE.to_reader())
    assert run.table(0).num_rows == 3
    assert run.table(1).to_pylist() == [{"n": 3}]


ARROW = {
    "dictionary": pa.array(["x", None, "y", "x"]).dictionary_encode(),
    "large string": pa.array(["x", None, "y", "x"], pa.large_string()),
    "string view": pa.array(["x", None, "y", "x"], pa.string_view()),
    "null": pa.nulls(4),
    "decimal": pa.array([1, None, 2, 1]).cast(pa.decimal128(25, 3)),
    "struct": pa.array([{"a": 1}, None, {"a": 2}, {"a": 1}]),
    "large list": pa.array([["x"], None, ["y"], ["x"]], pa.large_list(pa.string())),
    "uint64": pa.array([1, None, 2**64 - 1, 1], pa.uint64()),
    "nanoseconds": pa.array([1_000, None, 2_000, 1_000]).cast(pa.timestamp("ns")),  # held to the microsecond
    "zone": pa.array([1, None, 2, 1]).cast(pa.timestamp("us", "Europe/Berlin")),
    "duration": pa.array([1, None, 2, 1]).cast(pa.duration("s")),
    "binary": pa.array([b"x", None, b"y", b"x"]),
    "nan": pa.array([float("nan"), None, 1.0, float("nan")]),
    "boolean": pa.array([True, None, False, True]),
    "half": pa.array([1, None, 2, 1]).cast(pa.float32()).cast(pa.float16()),
}


@pytest.mark.parametrize("name", list(ARROW))
def test_a_column_of_any_arrow_type_can_be_read_by_a_prompt_and_grouped_by(write: Write, name: str) -> None:
    table = pa.table({"v": ARROW[name], "id": [1, 2, 3, 4]})
    step = {"op": "map", "prompt": "{{ v }}", "output": {"a": "string"}, "model": "m"}
    found = gdo.run(write([step, {**ASK, "into": "b", "where": "id > 1"}]), source=table).table()
    answers = found.column("a").to_pylist()
    assert answers[0] == answers[3]
    assert answers[1] is None
    by = {"op": "reduce", "by": ["v"], "prompt": "{{ rows }}", "output": {"a": "string"}, "model": "m"}
    grouped = gdo.run(write([by]), source=table).table()
    assert grouped.num_rows == (1 if name == "null" else 3)


def test_nanoseconds_that_would_be_lost_end_the_run_and_name_their_column(write: Write) -> None:
    table = pa.table({"v": pa.array([1, 2]).cast(pa.timestamp("ns")), "id": [1, 2]})
    with pytest.raises(gdo.RunFailed, match=r"the column 'v'.*without loss"):
        gdo.run(write([ASK]), source=table)


@pytest.mark.parametrize("steps", [[ASK], [{**ASK, "op": "reduce", "by": ["id"], "prompt": "{{ rows }}"}]])
def test_columns_of_one_name_are_a_fault_and_never_nulls(write: Write, steps: list[dict[str, Any]]) -> None:
    twice = pa.Table.from_arrays([pa.array([1, 2]), pa.array(["x", "y"]), pa.array([3, 4])], ["id", "b", "id"])
    with pytest.raises(gdo.Faults, match="id"):
        gdo.run(write(steps), source=twice)


def test_columns_that_differ_in_case_alone_are_a_fault_or_keep_their_values(write: Write) -> None:
    table = pa.table({"id": [1, 2], "a": ["x", "y"], "A": ["p", "q"]})
    steps = [{"op": "sql", "query": "SELECT * FROM input ORDER BY id"}, {**ASK, "into": "n"}]
    try:
        run = gdo.run(write(steps), source=table)
    except gdo.Faults:
        return
    values = [value for column in run.table().columns for value in column.to_pylist()]
    assert {"x", "y", "p", "q"} <= set(values)


# Sinks are replaced when whole

FAILS = [{**ASK, "model": "mute", "on_error": "fail", "where": "id = 3"}]
MUTE = {"mute": {"backend": "fake", "fail_every": 1}}


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "csv.gz"])
def test_a_run_that_fails_half_way_leaves_the_old_file(write: Write, tmp_path: Path, kind: str) -> None:
    (tmp_path / f"result.{kind}").write_bytes(b"old")
    path = write(FAILS, models=MUTE, source=put(tmp_path, "parquet"), sink={"path": f"result.{kind}"})
    with pytest.raises(gdo.RunFailed):
        gdo.run(path, batch_rows=1)
    assert (tmp_path / f"result.{kind}").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        [".gdo", "in.parquet", "pipeline.yaml", f"result.{kind}"]
    )


def test_a_run_that_fails_half_way_leaves_the_old_table(write: Write, tmp_path: Path) -> None:
    database(tmp_path / "x.duckdb", "CREATE TABLE t AS SELECT 'old' AS v; CREATE TABLE other AS SELECT 1 AS v")
    path = write(FAILS, models=MUTE, source=put(tmp_path, "parquet"), sink={"database": "x.duckdb", "table": "t"})
    with pytest.raises(gdo.RunFailed):
        gdo.run(path, batch_rows=1)
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        assert connection.sql("FROM t").fetchall() == [("old",)]
        assert connection.sql("SELECT count(*) FROM duckdb_tables()").fetchall() == [(2,)]


def test_a_run_that_fails_leaves_no_database_that_was_not_there(write: Write, tmp_path: Path) -> None:
    path = write(FAILS, models=MUTE, source=put(tmp_path, "parquet"), sink={"database": "new.duckdb", "table": "t"})
    with pytest.raises(gdo.RunFailed):
        gdo.run(path)
    assert not (tmp_path / "new.duckdb").exists()


def test_a_table_is_replaced_and_the_others_of_its_database_stay(write: Write, tmp_path: Path) -> None:
    database(tmp_path / "x.duckdb", "CREATE TABLE t AS SELECT 'old' AS v; CREATE TABLE other AS SELECT 1 AS v")
    sink = {"database": "x.duckdb", "table": "t"}
    for _ in range(2):
        assert gdo.run(write([KEEP], source=put(tmp_path, "parquet"), sink=sink)).table().to_pylist() == ROWS
    with duckdb.connect(str(tmp_path / "x.duckdb")) as connection:
        assert connection.sql("FROM other").fetchall() == [(1,)]
        assert connection.sql("SELECT count(*) FROM duckdb_tables()").fetchall() == [(2,)]


def test_a_pipeline_reads_and_writes_tables_of_one_database(write: Write, tmp_path: Path) -> None:
    source = put(tmp_path, "table")
    run = gdo.run(write([ASK], source=source, sink={"database": "shop.duckdb", "table": "labelled"}))
    assert run.table().num_rows == 3


def test_two_sinks_are_tables_of_one_database(write: Write, tmp_path: Path) -> None:
    sinks = [
        {"database": "x.duckdb", "table": "a", "from": "map"},
        {"database": "x.duckdb", "table": "b", "from": "source"},
    ]
    run = gdo.run(write([ASK], source=put(tmp_path, "parquet"), sinks=sinks))
    assert run.table(0).num_columns == 4
    assert run.table(1).num_columns == 3


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_a_file_may_be_read_and_replaced_by_one_run(write: Write, tmp_path: Path, kind: str) -> None:
    source = put(tmp_path, kind)
    path = write([ASK], source=source, sink={"path": f"in.{kind}"})
    assert gdo.run(path).table().column_names == ["id", "name", "price", "a"]


def test_a_sink_that_is_a_folder_or_lies_under_a_file_fails_with_its_name(write: Write, tmp_path: Path) -> None:
    (tmp_path / "result.parquet").mkdir()
    (tmp_path / "file").write_text("x")
    source = put(tmp_path, "csv")
    for sink in ("result.parquet", "file/result.parquet"):
        with pytest.raises(gdo.Faults, match=r"pipeline\.yaml:\d+:\d+: .*(result\.parquet|file)' is a"):
            gdo.run(write([KEEP], source=source, sink={"path": sink}))


def test_out_replaces_the_sink_of_the_file(write: Write, tmp_path: Path) -> None:
    path = write([KEEP], source=put(tmp_path, "csv"), sink={"path": "result.parquet"})
    run = gdo.run(path, out=tmp_path / "other.csv")
    assert run.table().num_rows == 3
    assert not (tmp_path / "result.parquet").exists()
    for name in ("other.xyz", "other.parquet.gz"):
        with pytest.raises(gdo.Faults):
            gdo.run(path, out=tmp_path / name)


# Only what is needed is read


@pytest.mark.parametrize(
    ("steps", "columns"),
    [
        ([KEEP], ("id", "name", "price")),
        ([{"op": "sql", "query": "SELECT name FROM input"}], ("name",)),
        ([{"op": "sql", "query": "SELECT count(*) AS n FROM input"}], ("id",)),
        ([{**ASK, "where": "PRICE > 1"}, {"op": "sql", "query": "SELECT a FROM input"}], ("id", "price")),
        ([{**ASK, "op": "reduce", "by": ["name"], "prompt": "{% for row in rows %}{{ row.id }}{% endfor %}"}], ("id", "name")),
        ([{**ASK, "op": "reduce", "by": ["name"], "prompt": "{{ rows }}"}], ("id", "name", "price")),
        ([{"op": "clean", "column": "name", "prompt": "{{ id }}", "model": "m"}, {"op": "sql", "query": "SELECT name FROM input"}], ("id", "name")),  # noqa: E501
    ],
)  # fmt: skip
def test_only_the_columns_that_are_needed_are_read(
    write: Write, tmp_path: Path, steps: list[dict[str, Any]], columns: tuple[str, ...]
) -> None:
    path = write(steps, source=put(tmp_path, "parquet"), sink={"path": "out.parquet"})
    run = gdo.run(path)
    assert run.plan.sources[0].columns == columns
    assert run.table().num_rows


def test_a_condition_at_the_head_runs_while_the_file_is_read(write: Write, tmp_path: Path) -> None:
    steps = [ASK, {"op": "sql", "query": "SELECT * FROM input WHERE price > 0"}]
    run = gdo.run(write(steps, source=put(tmp_path, "csv")))
    assert run.table().column("id").to_pylist() == [1]
    assert run.report["map"]["rows_in"] == run.report["map"]["calls"] == 1


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ({"path": "no.csv"}, "no such file 'no.csv'"),
        ({"path": "in.csvv"}, "unknown kind|no such file"),
        ({"path": "*.nothing"}, "no file matches"),
        ({"path": "."}, "is a folder"),
        ({"path": "broken.parquet"}, "cannot be read"),
        ({"path": "binary.jsonl"}, "cannot be read"),
        ({"sql": "SELEC 1"}, "cannot be read"),
        ({"sql": "SELECT * FROM 'nope.csv'"}, "cannot be read"),
        ({"database": "no.db", "table": "t"}, "no database file"),
        ({"database": "broken.parquet", "table": "t"}, "not a DuckDB database"),
    ],
)
def test_a_source_that_cannot_be_read_is_a_fault(
    write: Write, tmp_path: Path, source: dict[str, str], what: str
) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 this is no parquet")
    (tmp_path / "binary.jsonl").write_bytes(b"\x00\xff{{{")
    with pytest.raises(gdo.Faults, match=what):
        gdo.run(write([ASK], source=source))


def test_a_file_that_breaks_beyond_its_head_stops_the_run_without_a_sink(write: Write, tmp_path: Path) -> None:
    lines = "".join(f'{{"id": {i}, "v": {i}}}\n' for i in range(300_000))
    (tmp_path / "in.jsonl").write_text(lines + '{"id": 1, "v": {"broken"\n')
    path = write([KEEP], source={"path": "in.jsonl"}, sink={"path": "out.parquet"})
    with pytest.raises(gdo.GdoError, match=r"reading|cannot be read"):
        gdo.run(path)
    assert not (tmp_path / "out.parquet").exists()


def test_a_table_from_python_stands_for_the_only_source_whatever_its_name(write: Write, tmp_path: Path) -> None:
    put(tmp_path, "csv")
    rows = pa.table({"x": ["only me"]})
    path = write([{**KEEP, "from": "one"}], sources={"one": {"path": "nowhere.csv"}})
    assert gdo.run(path, source=rows).table().column("x").to_pylist() == ["only me"]


def test_tables_from_python_stand_for_several_sources_by_name(write: Write) -> None:
    sources = {"one": {"path": "nowhere.csv"}, "two": {"path": "nowhere.csv"}}
    sinks = [{"path": "a.csv", "from": "sql"}, {"path": "b.csv", "from": "other"}]
    steps = [{**KEEP, "from": "one"}, {**KEEP, "id": "other", "from": "two"}]
    path = write(steps, sources=sources, sinks=sinks)
    one, two = pa.table({"x": [1]}), pa.table({"x": [2]})
    run = gdo.run(path, source={"one": one, "two": two})
    assert (run.table("a.csv"), run.table("other")) == (one, two)
    with pytest.raises(gdo.Faults, match="no sink 'c'"):
        run.table("c")
    with pytest.raises(gdo.Faults, match="the file has the sources one, two"):
        gdo.run(path, source=one)
    with pytest.raises(gdo.Faults, match="did you mean 'one'"):
        gdo.run(path, source={"on": one, "two": two})


def test_a_file_that_a_query_names_lies_beside_the_pipeline(write: Write, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "more.csv").write_text("x,y\n1,one\n2,two\n")
    source = put(tmp_path, "csv")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for query in ("SELECT y FROM 'more.csv'", "SELECT (SELECT max(y) FROM 'more.csv') AS y FROM input"):
        run = gdo.run(write([{"op": "sql", "query": query}], source=source))
        assert "two" in run.table().column("y").to_pylist()


def test_options_from_python_are_checked(write: Write, tmp_path: Path) -> None:
    path = write([KEEP], source=put(tmp_path, "csv"))
    with pytest.raises(gdo.Faults, match=r"unknown option 'limt'.*did you mean 'limit'"):
        gdo.run(path, limt=3)
    with pytest.raises(gdo.Faults, match="limit: 0"):
        gdo.run(path, limit=0)


def test_no_line_of_a_text_table_is_taken_for_a_comment(write: Write, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("id,body\n1,a\n#2,b\n3,c\n")
    table = gdo.run(write([KEEP], source={"path": "in.csv"})).table()
    assert table.column("id").to_pylist() == ["1", "#2", "3"]

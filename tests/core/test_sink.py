# ruff: noqa: PT017 (either outcome is right)
import datetime as dt
import decimal
import gzip
import json

import duckdb
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from gdo.database import connect
from gdo.errors import RunFailed
from gdo.sink import FileWriter, Sink, open_writer, suffix
from gdo.tables import Source, source_query

SCHEMA = pa.schema([("n", pa.int64()), ("text", pa.string()), ("tags", pa.list_(pa.string()))])
ROWS = [
    {"n": 1, "text": 'a, "b"\nc', "tags": ["x", "é"]},
    {"n": None, "text": None, "tags": None},
    {"n": 3, "text": "", "tags": []},
]
BATCH = pa.RecordBatch.from_pylist(ROWS, SCHEMA)


def written(folder, batch=BATCH, **sink):
    writer = open_writer(Sink(**sink), folder, batch.schema, "run")
    writer.write(batch)
    writer.commit()
    return folder / (sink.get("path") or sink["database"])


def read(folder, **source):
    with connect() as connection:
        query = source_query(Source(**source), folder, connection)
        return connection.sql(f"SELECT * FROM ({query}\n)").to_arrow_table()


def test_parquet_keeps_every_type(tmp_path):
    assert pyarrow.parquet.read_table(written(tmp_path, path="out/a.parquet")).to_pylist() == ROWS


def test_jsonl_is_a_row_a_line(tmp_path):
    lines = written(tmp_path, path="a.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == ROWS


@pytest.mark.parametrize(("name", "mark"), [("a.csv", ","), ("a.tsv", "\t")])
def test_csv_and_tsv_hold_lists_as_json(tmp_path, name, mark):
    options = pyarrow.csv.ParseOptions(delimiter=mark, newlines_in_values=True)
    table = pyarrow.csv.read_csv(written(tmp_path, path=name), parse_options=options)
    assert table.column("tags").to_pylist() == ['["x","é"]', "", "[]"]
    assert table.column("text").to_pylist()[0] == 'a, "b"\nc'
    assert table.column("n").to_pylist() == [1, None, 3]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.tsv.gz", "a.jsonl.gz"])
def test_gz_is_gzip(tmp_path, name):
    assert b"n" in gzip.decompress(written(tmp_path, path=name).read_bytes())


@pytest.mark.parametrize(
    "name", ["a.csv", "a.tsv", "a.jsonl", "a.csv.gz", "a.jsonl.gz", "a.csv.zst", "a.jsonl.zst", "a.ndjson", "a.parquet"]
)
def test_what_was_written_can_be_read_again(tmp_path, name):
    written(tmp_path, path=name)
    assert read(tmp_path, path=name).column("n").to_pylist() == [1, None, 3]


@pytest.mark.parametrize("name", ["a.parquet.gz", "a.parquet.zst"])
def test_a_compressed_parquet_file_is_refused_since_nobody_could_read_it(name):
    with pytest.raises(ValidationError):
        Sink(path=name)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl.gz"])
def test_nothing_stands_at_the_final_name_before_commit(tmp_path, name):
    writer = open_writer(Sink(path=name), tmp_path, SCHEMA, "run")
    writer.write(BATCH)
    assert not (tmp_path / name).exists()
    writer.commit()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl.gz"])
def test_abort_leaves_what_was_there(tmp_path, name):
    (tmp_path / name).write_text("old")
    writer = open_writer(Sink(path=name), tmp_path, SCHEMA, "run")
    writer.write(BATCH)
    writer.abort()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "old")]


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.jsonl"])
def test_an_empty_result_is_a_file_with_columns(tmp_path, name):
    place = written(tmp_path, BATCH.slice(0, 0), path=name)
    assert place.exists()
    if name != "a.jsonl":
        assert b"text" in place.read_bytes()


def test_a_table_is_replaced_when_all_is_written(tmp_path):
    path = tmp_path / "a.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 'old' AS old; CREATE TABLE other AS SELECT 1 AS a")
    written(tmp_path, database="a.duckdb", table="t")
    with duckdb.connect(str(path)) as connection:
        assert connection.sql("SELECT * FROM t").to_arrow_table().to_pylist() == ROWS
        assert connection.sql("SHOW TABLES").fetchall() == [("other",), ("t",)]


def test_an_aborted_table_is_the_old_one(tmp_path):
    path = tmp_path / "a.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT 'old' AS old")
    writer = open_writer(Sink(database="a.duckdb", table="t"), tmp_path, SCHEMA, "run")
    writer.write(BATCH)
    writer.abort()
    with duckdb.connect(str(path)) as connection:
        assert connection.sql("FROM t").fetchall() == [("old",)]
        assert connection.sql("SHOW TABLES").fetchall() == [("t",)]


def test_an_aborted_table_of_a_new_database_leaves_no_file(tmp_path):
    writer = open_writer(Sink(database="a.duckdb", table="t"), tmp_path, SCHEMA, "run")
    writer.write(BATCH)
    writer.abort()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("table", ['my "table"', "select", "a b", "it's", "Größe", "x;y"])
def test_a_table_may_have_any_name(tmp_path, table):
    written(tmp_path, database="a.duckdb", table=table)
    with duckdb.connect(str(tmp_path / "a.duckdb")) as connection:
        assert connection.sql("SHOW TABLES").fetchall() == [(table,)]


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl", "a.duckdb"])
def test_columns_may_have_any_name(tmp_path, name):
    names = ['a "b"', "select", "it's", "x,y", "Größe", "a;b"]
    batch = pa.RecordBatch.from_arrays([pa.array([i]) for i in range(len(names))], names)
    sink = {"database": name, "table": "t"} if name.endswith("duckdb") else {"path": name}
    written(tmp_path, batch, **sink)
    assert read(tmp_path, **sink).to_pylist() == batch.to_pylist()


ODD = {
    "decimal": pa.array([decimal.Decimal("1.50")]),
    "binary": pa.array([b"\x00\xff"]),
    "time": pa.array([dt.time(10, 30)]),
    "zoned": pa.array([dt.datetime(2024, 1, 2, tzinfo=dt.UTC)]),
    "dictionary": pa.array(["x"]).dictionary_encode(),
    "struct": pa.array([{"a": decimal.Decimal(1)}]),
    "duration": pa.array([dt.timedelta(days=1)]),
    "interval": pa.array([pa.MonthDayNano([0, 1, 0])]),
    "null": pa.nulls(1),
    "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    "dates": pa.array([[dt.date(2024, 1, 2)]]),
    "big": pa.array([[2**70]], pa.list_(pa.decimal128(38, 0))),
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl", "a.duckdb"])
def test_a_column_of_an_odd_type_is_written_or_told(tmp_path, name, kind):
    sink = {"database": name, "table": "t"} if name.endswith("duckdb") else {"path": name}
    try:
        written(tmp_path, pa.RecordBatch.from_arrays([ODD[kind]], ["x"]), **sink)
    except RunFailed as error:
        assert name in str(error)
        assert list(tmp_path.iterdir()) == []


def test_a_number_is_a_number_in_jsonl(tmp_path):
    place = written(tmp_path, pa.RecordBatch.from_arrays([ODD["decimal"]], ["x"]), path="a.jsonl")
    assert json.loads(place.read_text()) == {"x": 1.5}


@pytest.mark.parametrize(
    "sink", [{"path": "sub.csv"}, {"path": "file/a.csv"}, {"database": "text.duckdb", "table": "t"}]
)
def test_a_place_that_cannot_be_written_is_told(tmp_path, sink):
    (tmp_path / "sub.csv").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "text.duckdb").write_text("no database")
    with pytest.raises(RunFailed, match=r"sub\.csv|file|text\.duckdb"):
        open_writer(Sink(**sink), tmp_path, SCHEMA, "run")


@pytest.mark.parametrize(
    ("path", "ending"),
    [
        ("a.csv", ".csv"),
        ("A.CSV.GZ", ".csv"),
        ("a.jsonl.zst", ".jsonl"),
        ("a.gz", ""),
        ("x/y.parquet", ".parquet"),
        ("a", ""),
    ],
)
def test_the_ending_tells_the_format(path, ending):
    assert suffix(path) == ending


@pytest.mark.parametrize(
    "sink",
    [{}, {"path": "a.csv", "database": "b"}, {"database": "b"}, {"table": "t"}, {"path": "a.txt"}, {"path": "a"}],
)
def test_a_sink_is_a_file_or_a_table(sink):
    with pytest.raises(ValidationError):
        Sink(**sink)


def test_the_part_is_hidden_beside_its_name(tmp_path):
    writer = FileWriter(tmp_path / "a.csv", SCHEMA, "run-1")
    assert [path.name for path in tmp_path.iterdir()] == [".a.csv.run-1.part"]
    writer.abort()

import gzip

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
from pydantic import ValidationError

from gdo.database import connect
from gdo.errors import Faults
from gdo.tables import Source, source_query, source_schema

TABLE = pa.table({"title": ["Shoe", "it's"], "price": [3, 5]})


def read(folder, **source):
    with connect() as connection:
        query = source_query(Source(**source), folder, connection)
        return connection.sql(f"SELECT * FROM ({query}\n)").to_arrow_table()


@pytest.fixture
def folder(tmp_path):
    text = "title,price\nShoe,3\nit's,5\n"
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "a.tsv").write_text(text.replace(",", "\t"))
    (tmp_path / "a.jsonl").write_text('{"title": "Shoe", "price": 3}\n{"title": "it\'s", "price": 5}\n')
    (tmp_path / "a.ndjson").write_text((tmp_path / "a.jsonl").read_text())
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    (tmp_path / "A.CSV").write_text(text)
    pyarrow.parquet.write_table(TABLE, tmp_path / "a.parquet")
    return tmp_path


@pytest.mark.parametrize(
    "name", ["a.csv", "a.tsv", "a.jsonl", "a.ndjson", "a.parquet", "a.csv.gz", "a.jsonl.gz", "A.CSV"]
)
def test_a_file_is_read_by_its_ending(folder, name):
    assert read(folder, path=name).to_pylist() == TABLE.to_pylist()
    assert source_schema(Source(path=name), folder).names == ["title", "price"]


def test_format_tells_where_the_name_does_not(folder):
    (folder / "export.txt").write_text((folder / "a.csv").read_text())
    assert read(folder, path="export.txt", format="csv").num_rows == 2


def test_a_glob_reads_its_files_in_order(tmp_path):
    for i in (2, 1, 3):
        (tmp_path / f"part{i}.csv").write_text(f"n\n{i}\n")
    assert read(tmp_path, path="part*.csv").column("n").to_pylist() == [1, 2, 3]


def test_a_glob_passes_over_folders(tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "b.csv").write_text("n\n1\n")
    assert read(tmp_path, path="data/*").num_rows == 1


@pytest.mark.parametrize("name", ["a[1].csv", "it's.csv", "a b.csv", "ü.csv", 'say "hi".csv', "a;b.csv", "50%.csv"])
def test_a_file_may_have_any_name(tmp_path, name):
    (tmp_path / name).write_text("n\n1\n")
    (tmp_path / "a1.csv").write_text("other\n1\n2\n")
    assert read(tmp_path, path=name).to_pylist() == [{"n": 1}]


@pytest.mark.parametrize("name", ["data [2024]", "it's", "a*b"])
def test_a_folder_may_have_any_name(tmp_path, name):
    (tmp_path / name).mkdir()
    (tmp_path / name / "a.csv").write_text("n\n1\n")
    assert read(tmp_path / name, path="a.csv").to_pylist() == [{"n": 1}]
    assert read(tmp_path / name, path="*.csv").to_pylist() == [{"n": 1}]
    assert read(tmp_path / name, sql="SELECT * FROM 'a.csv'").to_pylist() == [{"n": 1}]


@pytest.mark.parametrize("name", ['a "b"', "select", "it's", "Größe", "a;b", "order by"])
def test_a_column_may_have_any_name(tmp_path, name):
    pyarrow.parquet.write_table(pa.table({name: [1]}), tmp_path / "a.parquet")
    assert source_schema(Source(path="a.parquet"), tmp_path).names == [name]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT title FROM 'a.csv' WHERE price > 3",
        "SELECT title FROM 'a.csv' WHERE price > 3;",
        "FROM 'a.csv' SELECT title WHERE price > 3 -- the rest",
    ],
)
def test_a_query_finds_files_beside_the_pipeline(folder, sql):
    assert read(folder, sql=sql).to_pylist() == [{"title": "it's"}]


def database(path, table="t"):
    with duckdb.connect(str(path)) as connection:
        quoted = '"' + table.replace('"', '""') + '"'
        connection.execute(
            f"CREATE TABLE {quoted} AS SELECT 1 AS a; CREATE SCHEMA s; CREATE TABLE s.u AS SELECT 2 AS b"
        )


@pytest.mark.parametrize("table", ["t", 'my "table"', "select", "a b", "it's"])
def test_a_table_of_a_database_is_read_whatever_it_is_called(tmp_path, table):
    database(tmp_path / "shop.duckdb", table)
    assert read(tmp_path, database="shop.duckdb", table=table).to_pylist() == [{"a": 1}]


def test_a_table_of_a_schema_is_read(tmp_path):
    database(tmp_path / "shop.duckdb")
    assert read(tmp_path, database="shop.duckdb", table="s.u").to_pylist() == [{"b": 2}]


def test_a_query_over_a_database_sees_its_tables_and_the_files(tmp_path):
    database(tmp_path / "shop.duckdb")
    (tmp_path / "a.csv").write_text("a,c\n1,x\n")
    assert read(tmp_path, database="shop.duckdb", sql="SELECT c FROM t JOIN 'a.csv' USING (a)").to_pylist() == [
        {"c": "x"}
    ]


def test_a_table_that_has_the_dot_of_no_schema_in_its_name_is_read(tmp_path):
    database(tmp_path / "shop.duckdb", "v1.2")
    assert read(tmp_path, database="shop.duckdb", table="v1.2").to_pylist() == [{"a": 1}]


def test_a_database_is_not_written_to(tmp_path):
    database(tmp_path / "shop.duckdb")
    before = (tmp_path / "shop.duckdb").read_bytes()
    read(tmp_path, database="shop.duckdb", table="t")
    assert (tmp_path / "shop.duckdb").read_bytes() == before


@pytest.mark.parametrize(
    ("source", "phrase"),
    [
        ({"path": "b.csv"}, "no such file 'b.csv'"),
        ({"path": "none/b.csv"}, "no such file"),
        ({"path": "*.xml"}, "no file matches"),
        ({"path": "."}, "is a folder"),
        ({"path": "notes.txt"}, "unknown kind"),
        ({"sql": "SELECT * FROM 'none.csv'"}, "cannot be read"),
        ({"sql": "SELEC"}, "cannot be read"),
        ({"sql": ""}, "cannot be read"),
        ({"sql": "SELECT 1; SELECT 2"}, "cannot be read"),
        ({"database": "none.duckdb", "table": "t"}, "no database file"),
        ({"database": "notes.txt", "table": "t"}, "not a DuckDB database"),
        ({"path": "broken.parquet"}, "cannot be read"),
        ({"path": "broken.csv.gz"}, "cannot be read"),
        ({"path": "broken.jsonl"}, "cannot be read"),
        ({"path": "empty.parquet"}, "cannot be read"),
    ],
)
def test_a_source_that_cannot_be_read_is_told(folder, source, phrase):
    (folder / "notes.txt").write_text("x")
    for name in ("broken.parquet", "broken.csv.gz", "broken.jsonl"):
        (folder / name).write_text("{not what it says")
    (folder / "empty.parquet").write_text("")
    with pytest.raises(Faults, match=phrase):
        source_schema(Source(**source), folder)


def test_an_unknown_path_names_its_neighbour(folder):
    with pytest.raises(Faults, match=r"did you mean 'a\.parquet'\?"):
        source_schema(Source(path="a.parqet"), folder)


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"path": "a", "sql": "b"},
        {"path": "a", "table": "t"},
        {"table": "t"},
        {"database": "d"},
        {"sql": "s", "table": "t", "database": "d"},
        {"path": "a", "format": "xls"},
    ],
)
def test_a_source_is_one_thing(source):
    with pytest.raises(ValidationError):
        Source(**source)


VIEWS = [pa.string_view(), pa.large_string(), pa.string(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize("kind", VIEWS)
def test_an_arrow_stream_of_any_kind_of_text_is_a_source(project, kind):
    table = pa.table(
        {
            "title": pa.array(["a", None, "a"]).cast(kind)
            if not pa.types.is_dictionary(kind)
            else pa.array(["a", None, "a"]).dictionary_encode()
        }
    )
    text = 'steps: [{op: map, model: fake, prompt: "{{ title }}", output: {x: string}}]\nsink: {path: out.parquet}\n'
    found = project.load(text, source=table).run().table().to_pylist()
    assert [row["title"] for row in found] == ["a", None, "a"]
    assert found[0]["x"] == found[2]["x"] is not None
    assert found[1]["x"] is None

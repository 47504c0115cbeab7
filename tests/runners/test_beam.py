"""The Beam runner in one process: what it does its own way; that tables agree with DuckDB's is in tests/behaviour."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from apache_beam.io.localfilesystem import LocalFileSystem
from apache_beam.metrics.metric import MetricsFilter

import gdo
from gdo.ask import ROW
from gdo.op import Operator
from gdo.runfolder import remove
from gdo.runners.beam import BeamRunner
from gdo.runners.beam_arrow import BatchCoder
from gdo.runners.beam_parcel import Unpackable, pack

Write = Callable[..., Path]
ROWS = pa.table({"n": list(range(1000)), "k": [f"key {i % 7}" for i in range(1000)]})
MAP = {"op": "map", "model": "m", "prompt": "{{ n }}", "output": {"a": "string"}}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The results of the Beam jobs that a test runs."""
    seen: list[Any] = []
    take = BeamRunner._take_counts

    def took(self: BeamRunner, result: Any) -> None:
        seen.append(result)
        take(self, result)

    monkeypatch.setattr(BeamRunner, "_take_counts", took)
    return seen


def run(path: Path, *options: str, **more: Any) -> gdo.Run:
    return gdo.run(path, runner="beam", runner_options=options, **more)


# Elements


def test_no_row_travels_alone(write: Write, results: list[Any]) -> None:
    steps = [MAP, {"op": "reduce", "by": ["k"], "model": "m", "prompt": "{{ rows }}", "output": {"s": "string"}}]
    sinks = [{"path": "rows.parquet", "from": "map"}, {"path": "groups.parquet"}]
    run(write(steps, sinks=sinks), source=ROWS, batch_rows=100)
    counts = {
        info.labels["PCOLLECTION"]: beam.coders.VarIntCoder().decode(info.payload)
        for info in results[0].monitoring_infos()
        if info.urn == "beam:metric:element_count:v1"
    }
    assert len(counts) > 20
    assert max(counts.values()) < 200  # batches, parts and files: of 1,000 rows, none is an element


def test_a_batch_is_encoded_as_arrow_and_comes_back_as_it_was() -> None:
    whole = pa.record_batch(
        {
            "words": pa.array([["a"], None, [], ["b", "c"]]),
            "box": pa.array([{"w": 1}, None, {"w": None}, {"w": 3}]),
            "span": pa.array([1, None, 3, 4], pa.duration("us")),
            "kind": pa.array(["x", "y", None, "x"]).dictionary_encode(),
        }
    )
    coder = beam.coders.registry.get_coder(pa.RecordBatch)
    assert isinstance(coder, BatchCoder)
    for batch in (whole, whole.slice(1, 2), whole.slice(0, 0)):
        assert coder.decode(coder.encode(batch)).equals(batch)
    big = pa.record_batch({"n": pa.array(range(100_000))})
    assert len(coder.encode(big.slice(5, 10))) < 2_000  # of a slice, only its own rows travel


# Scopes

OPERATORS = '''
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field
from gdo.ask import ROW
from gdo.op import Learned, Operator, Rows, Scope, put_column


class Share(Operator, kind="beam_share"):
    """FIT: each value's share of the total."""

    asks = False
    column: str = Field()

    @property
    def scope(self):
        return Scope.FIT

    def reads(self, columns):
        return frozenset({self.column})

    def adds(self, schema):
        return [pa.field("share", pa.float64())]

    def summarise(self, batch, ask):
        firsts = batch.column(ROW).to_pylist()[:1]
        total = float(pc.sum(batch.column(self.column)).as_py() or 0)
        return pa.table({"total": [total], "first": pa.array([firsts[0] if firsts else None], pa.int64())})

    def fit(self, summary):
        firsts = summary["first"].drop_null().to_pylist()
        assert firsts == sorted(firsts)
        return pa.table({"total": [pc.sum(summary["total"]).as_py()]})

    def apply(self, batch, ask, state=None):
        return put_column(batch, "share", pc.divide(batch.column(self.column).cast(pa.float64()), state["total"][0]))


class Size(Operator, kind="beam_size"):
    """GROUP: one row a group, with its size; its rows have no number."""

    asks = False
    rows = Rows.ANY
    by: list[str] = Field(default=[])

    @property
    def scope(self):
        return Scope.GROUP

    @property
    def group_by(self):
        return tuple(self.by)

    def reads(self, columns):
        return frozenset(self.by)

    def cuts(self):
        return True

    def writes(self, schema):
        return pa.schema([*(schema.field(name) for name in self.by), pa.field("size", pa.int64())])

    def apply(self, batch, ask, state=None):
        sizes = {}
        for row in batch.to_pylist():
            key = tuple("nan" if row[name] != row[name] else row[name] for name in self.by)
            sizes[key] = sizes.get(key, 0) + 1
        sizes = {tuple(float(k) if k == "nan" else k for k in key): size for key, size in sizes.items()}
        columns = {name: pa.array([key[i] for key in sizes], batch.schema.field(name).type) for i, name in enumerate(self.by)}
        return pa.RecordBatch.from_pydict({**columns, "size": pa.array(list(sizes.values()), pa.int64())})


class Loses(Operator, kind="beam_loses"):
    """BATCH: claims to keep the rows, and does not."""

    asks = False

    def apply(self, batch, ask, state=None):
        return batch.slice(1)
'''


@pytest.fixture
def operators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Operators in a module beside the pipeline file, as a user writes them."""
    before = dict(Operator.kinds)
    (tmp_path / "beam_operators.py").write_text(OPERATORS, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    sys.modules.pop("beam_operators", None)
    __import__("beam_operators")
    yield
    Operator.kinds.clear()
    Operator.kinds.update(before)


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("size", [7, 2048])
def test_a_fit_operator_learns_from_all_rows_before_it_works_on_any(write: Write, size: int) -> None:
    steps = [
        {"op": "beam_share", "column": "n", "where": "n >= 500"},
        {"op": "beam_share", "id": "again", "column": "share"},
    ]
    done = run(write(steps), source=ROWS, batch_rows=size)
    total = sum(range(500, 1000))
    found = done.table().column("share").to_pylist()
    assert found[:500] == [None] * 500
    assert found[500:] == pytest.approx([n / total for n in range(500, 1000)])
    assert done.report["again"]["rows_in"] == done.report["again"]["rows_out"] == 1000


@pytest.mark.usefixtures("operators")
def test_a_fit_operator_works_on_no_rows(write: Write) -> None:
    done = run(write([{"op": "beam_share", "column": "n"}]), source=ROWS.slice(0, 0))
    assert done.table().column_names == ["n", "k", "share"]


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("size", [7, 2048])
def test_rows_of_a_group_meet_whatever_batch_they_came_in(write: Write, tmp_path: Path, size: int) -> None:
    table = pa.table({"k": ["b", None, "a", "b", "c", None] * 20, "j": [1.5, float("nan"), 0.0, -0.0] * 30})
    done = run(write([{"op": "beam_size", "by": ["k"]}]), source=table, batch_rows=size)
    assert {(r["k"], r["size"]) for r in done.table().to_pylist()} == {("b", 40), (None, 40), ("a", 20), ("c", 20)}
    numbers = run(write([{"op": "beam_size", "by": ["j"]}]), source=table, batch_rows=size, out=tmp_path / "other.parquet")
    assert sorted(numbers.table().column("size").to_pylist()) == [30, 30, 60]  # NaN is one group, and so are 0 and -0


@pytest.mark.usefixtures("operators")
def test_the_runner_notices_an_operator_that_loses_rows(write: Write, tmp_path: Path) -> None:
    with pytest.raises(gdo.RunFailed, match=r"\d+ rows in, \d+ out, 0 rejected: rows were lost"):
        run(write([{"op": "beam_loses"}], sink={"path": "out.parquet"}), source=ROWS)
    assert not list(tmp_path.glob("*out*"))


def test_a_shared_step_is_asked_once(write: Write) -> None:
    steps = [
        {**MAP, "id": "base"},
        {"op": "sql", "id": "one", "query": "SELECT n FROM input WHERE n > 10"},
        {"op": "sql", "id": "two", "from": "base", "query": "SELECT a FROM input"},
    ]
    sinks = [{"path": "1.parquet", "from": "one"}, {"path": "2.parquet", "from": "two"}, {"path": "3.parquet", "from": "source"}]
    done = run(write(steps, sinks=sinks), source=ROWS, cache=False)
    assert done.report["base"]["calls"] == 1000
    assert [done.table(i).num_rows for i in range(3)] == [989, 1000, 1000]


# Sources


def same_as_duckdb(path: Path, tmp_path: Path) -> None:
    one = gdo.run(path, out=tmp_path / "duckdb.parquet").table()
    other = run(path, out=tmp_path / "beam.parquet").table()
    assert one.schema.equals(other.schema)
    assert one.equals(other)
    assert one.num_rows
    for left in tmp_path.glob("beam-*.parquet"):
        left.unlink()


TEXTS = {
    "plain.csv": "id,day,price,name\n1,2024-01-02,3.5,\"a, b\"\n2,,,\"line\nbreak\"\n3,2024-02-03,4,''\n",
    "marks.csv": "id;day;when\n007;03.04.2024;2024-01-02 03:04:05\n008;;\n",
    "bare.csv": "1,x\n2,y\n",
    "tabs.tsv": "id\tname\n1\tone\n2\t\"two\"\n",
    "lines.jsonl": '{"id": 1, "tags": ["a"], "box": {"w": 1}}\n{"id": 2, "when": "2024-01-02T03:04:05"}\n',
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_has_the_columns_that_duckdb_finds(write: Write, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TEXTS[name], encoding="utf-8")
    same_as_duckdb(write([{"op": "sql", "query": "SELECT * FROM input"}], source={"path": name}), tmp_path)


def test_a_glob_is_read_in_the_order_of_its_names_and_its_types_fit_all(write: Write, tmp_path: Path) -> None:
    for i, rows in enumerate(("1,1", "2,2.5", "x,3")):
        (tmp_path / f"in-{i}.csv").write_text(f"id,price\n{rows}\n", encoding="utf-8")
    same_as_duckdb(write([{"op": "sql", "query": "SELECT * FROM input"}], source={"path": "in-*.csv"}), tmp_path)


def test_parquet_files_are_read_by_row_groups_and_by_the_names_of_their_folders(write: Write, tmp_path: Path) -> None:
    for year in (2023, 2024):
        (tmp_path / f"year={year}").mkdir()
        table = pa.table(
            {
                "n": pa.array([1, 2, None] * 100, pa.uint16()),
                "kind": pa.array(["a", "b", None] * 100).dictionary_encode(),
                "when": pa.array([0, 1, None] * 100, pa.timestamp("ns")),
                "tags": pa.array([["x"], None, []] * 100),
            }
        )
        pq.write_table(table, tmp_path / f"year={year}" / "part.parquet", row_group_size=70)
    same_as_duckdb(write([{"op": "sql", "query": "SELECT * FROM input"}], source={"path": "year=*/*.parquet"}), tmp_path)


def test_a_parquet_file_without_a_column_of_the_first_is_named(write: Write, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [1], "m": [2]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": [1]}), tmp_path / "b.parquet")
    path = write([{"op": "sql", "query": "SELECT * FROM input"}], source={"path": "?.parquet"})
    with pytest.raises(gdo.RunFailed, match=r"b\.parquet: no column 'm'"):
        run(path)


def test_a_text_that_breaks_its_type_far_down_is_named(write: Write, tmp_path: Path) -> None:
    lines = "\n".join(map(str, range(150_000)))
    (tmp_path / "in.csv").write_text(f"n\n{lines}\nmany\n", encoding="utf-8")
    path = write([{"op": "sql", "query": "SELECT * FROM input"}], source={"path": "in.csv"}, sink={"path": "out.parquet"})
    with pytest.raises((gdo.Faults, gdo.RunFailed), match=r"in\.csv: cannot be read: .*many"):
        run(path)
    assert not list(tmp_path.glob("*out*"))


def test_a_query_and_a_database_are_read_by_the_launcher(write: Write, tmp_path: Path) -> None:
    import duckdb

    with duckdb.connect(str(tmp_path / "shop.duckdb")) as connection:
        connection.execute("CREATE TABLE items AS SELECT i AS id, i * INTERVAL 1 DAY AS span FROM range(5000) t(i)")
    step = {"op": "sql", "query": "SELECT id FROM input WHERE id % 2 = 0"}
    for source in (
        {"database": "shop.duckdb", "table": "items"},
        {"sql": "SELECT i AS id FROM range(300000) t(i) ORDER BY i DESC"},
    ):
        same_as_duckdb(write([step], source=source), tmp_path)


@pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
def test_a_limit_takes_the_first_rows(write: Write, tmp_path: Path, name: str) -> None:
    table = pa.table({"n": list(range(1000))})
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        target = tmp_path / place / name
        pa.csv.write_csv(table, target) if name.endswith("csv") else pq.write_table(table, target, row_group_size=300)
    path = write([{"op": "sql", "query": "SELECT * FROM input"}], source={"path": f"*/{name}"})
    for limit in (1, 999, 1000, 1400):
        done = run(path, limit=limit, out=tmp_path / f"{limit}.parquet")
        assert done.table().column("n").to_pylist() == (list(range(1000)) * 2)[:limit]


class Box(LocalFileSystem):
    """A filesystem of another name, whose root is a folder: far away as far as gdo can see."""

    root = ""

    @classmethod
    def scheme(cls) -> str:
        return "box"

    def _here(self, path: str) -> str:
        return path.replace("box:/", self.root, 1)

    def join(self, basepath: str, *paths: str) -> str:
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        super().mkdirs(self._here(path))

    def _list(self, dir_or_prefix: str) -> Iterator[Any]:
        for found in super()._list(self._here(dir_or_prefix)):
            found.path = found.path.replace(self.root, "box:/", 1)
            yield found

    def create(self, path: str, *more: Any, **options: Any) -> Any:
        return super().create(self._here(path), *more, **options)

    def open(self, path: str, *more: Any, **options: Any) -> Any:
        return super().open(self._here(path), *more, **options)

    def rename(self, sources: list[str], targets: list[str]) -> None:
        super().rename([*map(self._here, sources)], [*map(self._here, targets)])

    def exists(self, path: str) -> bool:
        return super().exists(self._here(path))

    def size(self, path: str) -> int:
        return super().size(self._here(path))

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            remove(Path(self._here(path)))


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_files_of_any_filesystem_are_read_and_written(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(Box, "root", str(tmp_path / "far"))
    for folder in ("in", "out"):
        (tmp_path / "far" / folder).mkdir(parents=True)
    table = pa.table({"n": list(range(50)), "t": [f"text {i}" for i in range(50)]})
    for place in (tmp_path / "far" / "in" / f"1{name}", tmp_path / "far" / "in" / f"2{name}"):
        if name.endswith("csv"):
            pa.csv.write_csv(table, place)
        elif name.endswith("parquet"):
            pq.write_table(table, place)
        else:
            place.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()), encoding="utf-8")
    step = {"op": "map", "model": "m", "prompt": "{{ t }}", "output": {"a": "string"}}
    path = write([step], source={"path": f"box://in/*{name}"}, sink={"path": "box://out/x.parquet"})
    done = run(path)
    found = pq.read_table(tmp_path / "far" / "out" / "x-00000-of-00001.parquet") if name == "a.parquet" else None
    shards = sorted((tmp_path / "far" / "out").glob("x-*-of-*.parquet"))
    whole = pa.concat_tables([pq.read_table(shard) for shard in shards])
    assert found is None or found.equals(whole)
    assert whole.column("n").to_pylist() == list(range(50)) * 2
    assert whole.column("a").null_count == 0
    with pytest.raises(gdo.Faults, match="lies on another filesystem"):
        done.table()
    run(path, out="box://out/named.csv")
    named = [shard.read_text().splitlines()[1:] for shard in (tmp_path / "far" / "out").glob("named-*-of-*.csv")]
    assert sum(map(len, named)) == 100
    assert not [p for p in (tmp_path / "far" / "out").iterdir() if p.name.startswith(".")]


def test_a_filesystem_that_cannot_be_reached_is_a_fault_before_anything_is_paid_for(write: Write, tmp_path: Path) -> None:
    path = write([MAP], source={"path": "in.csv"}, sink={"path": "nowhere://out/x.csv"})
    (tmp_path / "in.csv").write_text("n\n1\n", encoding="utf-8")
    told = r"'nowhere://.*' cannot be reached: Unable to get filesystem from specified path \(Beam has a package"
    with pytest.raises(gdo.Faults, match=rf"pipeline\.yaml:\d+:1: {told}"):
        gdo.load(path).check("beam")
    with pytest.raises(gdo.Faults, match=f"--: {told}"):
        run(path, "--temp_location=nowhere://tmp", out=tmp_path / "x.csv")
    with pytest.raises(gdo.Faults, match=r"pipeline\.yaml:\d+:1: 'nowhere://out/x\.csv' lies on another .*--runner beam"):
        gdo.load(path).check()
    assert {p.name for p in tmp_path.iterdir()} == {"in.csv", "pipeline.yaml"}


# Sinks


def test_a_sink_is_files_in_the_order_of_the_rows(write: Write, tmp_path: Path) -> None:
    table = pa.table({"n": list(range(250_000))})
    done = run(write([{"op": "sql", "query": "SELECT * FROM input"}], sink={"path": "out/x.csv.gz"}), source=table)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"x-0000{i}-of-00003.csv.gz" for i in range(3)]
    assert done.table().equals(table)


@pytest.mark.parametrize("left", ["out-00000-of-00002.parquet", "out.parquet"])
def test_a_sink_that_exists_is_a_fault_with_its_line(write: Write, tmp_path: Path, left: str) -> None:
    (tmp_path / left).write_bytes(b"old")
    path = write([MAP], sink={"path": "out.parquet"})
    with pytest.raises(gdo.Faults, match=r"pipeline\.yaml:\d+:1: the sink 'out\.parquet' exists already \(1 file\) \(.*--out\)"):
        run(path, source=ROWS)
    assert (tmp_path / left).read_bytes() == b"old"
    assert not (tmp_path / ".gdo" / "cache.sqlite").exists()


@pytest.mark.parametrize("place", ["out/x.csv", "../shop/out/x.csv", "x.csv"])
def test_a_sink_is_the_same_by_a_relative_path(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("gdo.runners.beam_sink.SHARD_ROWS", 400)
    (tmp_path / "shop").mkdir()
    file = write([MAP], sink={"path": place}).rename(tmp_path / "shop" / "pipeline.yaml")
    monkeypatch.chdir(tmp_path / "shop")
    done = run(Path(file.name), source=ROWS)
    folder = (tmp_path / "shop" / place).parent
    whole = {f"x-0000{i}-of-00003.csv" for i in range(3)}
    assert {path.name for path in folder.iterdir()} - {"pipeline.yaml", ".gdo"} == whole
    assert done.table().num_rows == 1000
    told = r"pipeline\.yaml:\d+:1: the sink '.*' exists already \(3 files\)"
    with pytest.raises(gdo.Faults, match=told):
        run(Path(file.name), source=ROWS, limit=10)
    with pytest.raises(gdo.Faults, match=told):
        gdo.load(Path(file.name), source=ROWS).check("beam")


def test_a_sink_beside_others_of_a_similar_name_is_new(write: Write, tmp_path: Path) -> None:
    for other in ("out-more-00000-of-00001.parquet", "out-1-of-2.csv", "outer.parquet"):
        (tmp_path / other).write_bytes(b"other")
    done = run(write([MAP], sink={"path": "out.parquet"}), source=ROWS)
    assert done.table().num_rows == 1000


def test_when_one_sink_cannot_be_put_in_place_none_is(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from apache_beam.io.filesystems import FileSystems

    rename = FileSystems.rename

    def fails(sources: list[str], targets: list[str]) -> None:
        if "second" in targets[0]:
            raise OSError("the disk is full")
        rename(sources, targets)

    monkeypatch.setattr(FileSystems, "rename", staticmethod(fails))
    sinks = [{"path": "first.parquet"}, {"path": "second.parquet"}]
    with pytest.raises(gdo.RunFailed, match=r"second-00000-of-00001\.parquet: cannot be written: the disk is full"):
        run(write([MAP], sinks=sinks), source=ROWS)
    assert not [p.name for p in tmp_path.iterdir() if "first" in p.name or "second" in p.name]


def test_a_run_that_fails_leaves_no_file(write: Write, tmp_path: Path) -> None:
    models = {"m": {"backend": "fake", "fail_every": 5}}
    path = write([{**MAP, "on_error": "fail"}], models=models, sink={"path": "out/x.parquet"})
    with pytest.raises(gdo.RunFailed, match=r"^step 'map', row \d+: refused: told to fail$"):
        run(path, source=ROWS)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    (folder,) = (tmp_path / ".gdo" / "runs").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["calls.parquet", "errors.parquet", "run.json"]


def left_by(tmp_path: Path) -> tuple[pa.Table, pa.Table, dict[str, Any]]:
    """The errors, calls and totals that the only run has left."""
    (folder,) = (tmp_path / ".gdo" / "runs").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["calls.parquet", "errors.parquet", "run.json"]
    tables = [pq.read_table(folder / f"{name}.parquet") for name in ("errors", "calls")]
    return *tables, json.loads((folder / "run.json").read_text())["steps"]


TELLS = {"m": {"backend": "fake", "fail_every": 4}}


@pytest.mark.parametrize("words", [[], ["--direct_running_mode=multi_threading", "--direct_num_workers=3"]])
def test_a_run_whose_budget_is_spent_leaves_the_errors_and_calls_until_then(
    write: Write, tmp_path: Path, words: list[str]
) -> None:
    path = write([MAP], models=TELLS)
    with pytest.raises(gdo.BudgetSpent):
        run(path, *words, source=ROWS, max_calls=300, batch_rows=20)
    errors, calls, steps = left_by(tmp_path)
    assert calls.num_rows == steps["map"]["calls"] == 300
    assert set(calls.column("error").to_pylist()) == {"", "refused"}
    assert errors.num_rows == steps["map"]["errors"] > 20
    assert [f"[user]\n{row['row_key']}" for row in errors.to_pylist()] == errors.column("prompt").to_pylist()
    assert errors.column("row_key").to_pylist() == sorted(set(errors.column("row_key").to_pylist()))


def test_a_run_that_fails_leaves_what_it_noted_and_what_was_in_flight(write: Write, tmp_path: Path) -> None:
    models = {"m": {"backend": "fake", "fail_every": 50, "latency_s": 0.05}}
    path = write([{**MAP, "on_error": "fail"}], models=models)
    with pytest.raises(gdo.RunFailed, match="told to fail"):
        run(path, source=ROWS, batch_rows=10)
    errors, calls, steps = left_by(tmp_path)
    assert errors.num_rows == 0  # the row that ended the run is in its message
    assert calls.num_rows == steps["map"]["calls"] > 0
    assert "refused" in calls.column("error").to_pylist()
    assert steps["map"]["calls"] - calls.column("error").to_pylist().count("refused") == stored(tmp_path)


def stored(tmp_path: Path) -> int:
    """How many replies are kept."""
    import sqlite3

    with sqlite3.connect(tmp_path / ".gdo" / "cache.sqlite") as connection:
        return int(connection.execute("SELECT count(*) FROM replies").fetchone()[0])


# What is refused


def test_what_beam_cannot_do_is_told_at_once_each_with_its_line(write: Write) -> None:
    steps = [
        {"op": "sql", "query": "SELECT k, count(*) AS c FROM input GROUP BY k"},
        {"op": "sql", "query": "SELECT * FROM input ORDER BY k"},
    ]
    path = write(steps, sink={"database": "out.duckdb", "table": "t"})
    with pytest.raises(gdo.Faults) as told:
        gdo.load(path, source=ROWS).check("beam")
    lines = str(told.value).splitlines()
    assert [line.partition("pipeline.yaml")[2].split(" (")[0] for line in lines] == [
        ":4:1: many workers cannot write one DuckDB database",
        ":8:3: step 'sql' needs all rows at once",
        ":10:3: step 'sql2' needs all rows at once",
    ]
    gdo.load(path, source=ROWS).check()


def test_a_function_that_cannot_travel_is_a_fault_with_its_step(write: Write, tmp_path: Path) -> None:
    (tmp_path / "locked.py").write_text(
        "import sqlite3\nclass Prices:\n    def __init__(self): self.line = sqlite3.connect(':memory:')\n"
        "    def double(self, batch): return batch\nPRICES = Prices()\n",
        encoding="utf-8",
    )
    step = {"op": "python", "function": "locked:PRICES.double", "writes": {"n": "integer"}}
    told = r"pipeline\.yaml:\d+:3: step 'python' cannot be sent to a worker: .*Connection.*made inside"
    with pytest.raises(gdo.Faults, match=told):
        run(write([step]), source=ROWS)
    with pytest.raises(Unpackable):
        pack((n for n in range(3)), tmp_path)


def test_a_function_beside_the_file_travels_by_value(tmp_path: Path) -> None:
    (tmp_path / "by_value.py").write_text("FACTOR = 3\ndef times(n): return FACTOR * n\n", encoding="utf-8")
    sys.path.insert(0, str(tmp_path))
    try:
        import by_value

        parcel = pack(by_value.times, tmp_path)
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["by_value"]
    (tmp_path / "by_value.py").unlink()
    assert parcel.opened()(5) == 15


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("--direct_runing_mode=in_memory", "Beam has no such option: '--direct_runing_mode=in_memory'"),
        ("--direct_num_workers=many", "Beam does not understand: argument --direct_num_workers: invalid int value: 'many'"),
        ("--direct_num_workers=-3", r"--direct_num_workers is a number of workers \(0 for one a core\)"),
        ("--runner=FlinkRuner", r"Beam has no runner 'FlinkRuner' \(did you mean 'FlinkRunner'\?\)"),
        ("--runner=no_such_module.Runner", "the runner 'no_such_module.Runner' cannot be used here: No module"),
        ("--runner=DataflowRunner", "DataflowRunner: Missing required option: project"),
    ],
)
def test_an_option_that_beam_does_not_know_is_a_fault_in_one_line(
    write: Write, capfd: pytest.CaptureFixture[str], word: str, told: str
) -> None:
    with pytest.raises(gdo.Faults, match=f"--: {told}"):
        run(write([MAP]), word, source=ROWS)
    assert "usage" not in capfd.readouterr().err


def test_the_totals_of_steps_stand_in_the_order_of_the_plan(write: Write) -> None:
    steps = [MAP, {"op": "sql", "query": "SELECT *, 1 AS one FROM input"}, {**MAP, "id": "again"}]
    for _ in range(2):
        assert list(run(write(steps), source=ROWS).report) == ["source", "map", "sql", "again"]


def test_a_job_server_that_does_not_answer_is_a_fault(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gdo.runners.beam_options.REACH_S", 0.2)
    words = ("--runner=PortableRunner", "--job_endpoint=127.0.0.1:1", "--environment_type=LOOPBACK")
    with pytest.raises(gdo.Faults, match=r"--: no job server answers at '127\.0\.0\.1:1' \(is it running"):
        run(write([MAP]), *words, source=ROWS)


HANGS = """
import pathlib, time
from apache_beam.runners.runner import PipelineRunner
class Hangs(PipelineRunner):
    def run_pipeline(self, pipeline, options):
        pathlib.Path(__file__).with_name("hangs").touch()
        time.sleep(600)
"""


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_a_run_whose_engine_does_not_take_the_job_can_be_stopped(write: Write, tmp_path: Path, word: signal.Signals) -> None:
    (tmp_path / "hanging.py").write_text(HANGS, encoding="utf-8")
    (tmp_path / "in.csv").write_text("n\n1\n", encoding="utf-8")
    path = write([MAP], source={"path": "in.csv"})
    command = [sys.executable, "-m", "gdo", "run", str(path), "--runner", "beam", "--", "--runner=hanging.Hangs"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "hangs").exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(word)
        said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert said.splitlines()[-1] == "stopped; replies so far are kept, and the same command goes on from there"


def test_without_beam_one_sentence_says_how_to_get_it(write: Write, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("n\n1\n", encoding="utf-8")
    path = write([MAP], source={"path": "in.csv"})
    code = "import sys; sys.modules['apache_beam'] = None; from gdo.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", str(path), "--runner", "beam"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == '--runner beam: Apache Beam is not installed (pip install "gdo[beam]")\n'


# What is paid for

COUNTING = """
import json, pathlib
def answer(request):
    with open(pathlib.Path(__file__).with_name("calls.txt"), "a") as file:
        file.write(request.body + "\\n")
    return json.dumps({"a": request.body})
"""


@pytest.fixture
def counted(tmp_path: Path) -> Callable[[], list[str]]:
    """A model that writes down what it is asked: `backend: fake, answer: "counting:answer"`."""
    sys.modules.pop("counting", None)
    (tmp_path / "counting.py").write_text(COUNTING, encoding="utf-8")
    return lambda: (tmp_path / "calls.txt").read_text(encoding="utf-8").split()


ASKED = {"m": {"backend": "fake", "answer": "counting:answer"}}


def test_a_bundle_that_is_done_again_pays_nothing(write: Write, counted: Callable[[], list[str]]) -> None:
    done = run(write([MAP], models=ASKED), "--direct_runner_bundle_repeat=2", source=ROWS, batch_rows=50)
    assert sorted(counted()) == sorted(map(str, range(1000)))
    assert done.table().column("a").to_pylist() == [str(n) for n in range(1000)]


def test_a_failure_after_the_calls_pays_nothing_the_next_time(
    write: Write, tmp_path: Path, counted: Callable[[], list[str]]
) -> None:
    (tmp_path / "breaks.py").write_text(
        "import pathlib\ndef once(batch):\n    flag = pathlib.Path(__file__).with_name('flag')\n"
        "    if flag.exists(): return batch\n    flag.touch(); return None\n",
        encoding="utf-8",
    )
    steps = [MAP, {"op": "python", "function": "breaks:once", "writes": {"n": "integer"}}]
    path = write(steps, models=ASKED)
    with pytest.raises(gdo.RunFailed, match="it returned a NoneType"):
        run(path, source=ROWS, batch_rows=50)
    before = counted()
    assert before
    done = run(path, source=ROWS, batch_rows=50)
    assert sorted(counted()) == sorted(map(str, range(1000)))
    assert done.report["map"]["calls"] == 1000 - len(before)


def test_bundles_that_run_side_by_side_send_a_prompt_once(write: Write, counted: Callable[[], list[str]]) -> None:
    table = pa.table({"n": [i % 40 for i in range(2000)]})
    modes = ("--direct_running_mode=multi_threading", "--direct_num_workers=4")
    done = run(write([MAP], models=ASKED), *modes, source=table, batch_rows=25)
    assert sorted(counted()) == sorted(map(str, range(40)))
    assert done.table().num_rows == 2000
    assert done.report["map"]["calls"] == 40


def test_a_budget_holds_on_one_machine_to_the_call(write: Write, counted: Callable[[], list[str]]) -> None:
    path = write([MAP], models=ASKED)
    with pytest.raises(gdo.BudgetSpent, match="the budget of 70 calls is spent; replies so far are kept"):
        run(path, source=ROWS, max_calls=70, batch_rows=50)
    assert len(counted()) == 70
    assert run(path, source=ROWS, batch_rows=50).report["map"]["calls"] == 930


# What a run leaves


def test_counts_are_metrics_of_beam_and_the_totals_of_the_run(write: Write, results: list[Any]) -> None:
    models = {"m": {"backend": "fake", "fail_every": 4}}
    done = run(write([MAP], models=models), source=ROWS, batch_rows=100)
    told = results[0].metrics().query(MetricsFilter().with_namespace("gdo"))["counters"]
    found = {counter.key.metric.name: counter.committed for counter in told}
    report = done.report["map"]
    for key in ("calls", "cached", "prompt_tokens", "completion_tokens", "errors", "rows_in", "rows_out"):
        assert found.get(f"map.{key}", 0) == report[key], key
    assert report["calls"] == done.calls().num_rows == 1000
    assert report["errors"] == done.errors().num_rows > 100
    assert done.errors().column("row_key").to_pylist() == sorted(done.errors().column("row_key").to_pylist())
    assert sum(count for count, _ in done.ledger.reasons.values()) == report["errors"]
    assert 0 < float(str(report["seconds"])) < 600


JOB_SERVER = ("--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK")
"""An engine as far as gdo can see: errors and calls come with the rows."""


def test_an_engine_gathers_the_same_errors_and_calls(write: Write, tmp_path: Path) -> None:
    models = {"m": {"backend": "fake", "fail_every": 4}}
    steps = [MAP, {**MAP, "id": "again", "prompt": "{{ k }}"}]
    path = write(steps, models=models)
    here, there = (run(path, *words, source=ROWS, batch_rows=100, cache=False) for words in ((), JOB_SERVER))
    assert here.errors().num_rows > 100
    assert here.errors().equals(there.errors())
    assert here.table().equals(there.table())
    asked = [sorted(row["error"] for row in done.calls().to_pylist() if row["step"] == "map") for done in (here, there)]
    assert len(asked[0]) == 1000
    assert asked[0] == asked[1]
    assert [count for count, _ in here.ledger.reasons.values()] == [count for count, _ in there.ledger.reasons.values()]


def test_the_hidden_number_reaches_no_sink(write: Write) -> None:
    steps = [MAP, {"op": "sql", "query": "SELECT *, n + 1 AS more FROM input"}]
    assert ROW not in run(write(steps), source=ROWS).table().column_names

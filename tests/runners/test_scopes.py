"""The three scopes BATCH, GROUP and FIT, by small operators that ask nobody."""

import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

import gdo
from gdo.ask import ROW, Ask
from gdo.op import Operator, Rows, Scope, put_column
from gdo.runners.groups import GROUP, whole_groups

Write = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def operators() -> Iterator[dict[str, Any]]:  # noqa: C901 (four small operators)
    """The operators of this module, known while its tests run."""
    before = dict(Operator.kinds)
    seen: dict[str, list[Any]] = {"summaries": [], "states": [], "batches": [], "groups": [], "spill": []}

    class Share(Operator, kind="share_of_total"):
        """FIT: each value's share of the column's total."""

        asks = False
        column: str = Field()

        @property
        def scope(self) -> Scope:
            return Scope.FIT

        def reads(self, columns: Any) -> frozenset[str]:
            return frozenset({self.column})

        def adds(self, schema: pa.Schema) -> list[pa.Field]:
            return [pa.field("share", pa.float64())]

        def summarise(self, batch: pa.RecordBatch, ask: Ask) -> pa.Table:
            seen["summaries"].append(batch.num_rows)
            return pa.table({"total": [float(pc.sum(batch.column(self.column)).as_py() or 0)]})

        def fit(self, summary: pa.Table) -> pa.Table:
            return pa.table({"total": [pc.sum(summary["total"]).as_py()]})

        def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
            assert state is not None
            seen["states"].append(state["total"][0].as_py())
            values = pc.divide(batch.column(self.column).cast(pa.float64()), state["total"][0])
            return put_column(batch, "share", values)

    class Size(Operator, kind="size_of_group"):
        """GROUP: one row a group, with its size."""

        asks = False
        rows = Rows.ANY
        by: list[str] = Field(default=[])

        @property
        def scope(self) -> Scope:
            return Scope.GROUP

        @property
        def group_by(self) -> tuple[str, ...]:
            return tuple(self.by)

        def reads(self, columns: Any) -> frozenset[str]:
            return frozenset(self.by)

        def cuts(self) -> bool:
            return True

        def writes(self, schema: pa.Schema) -> pa.Schema:
            return pa.schema([*(schema.field(name) for name in self.by), pa.field("size", pa.int64())])

        def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
            keys = [tuple(row[name] for name in self.by) for row in batch.to_pylist()]
            numbers = batch.column(ROW).to_pylist()
            assert numbers == sorted(numbers) or len(set(keys)) > 1
            seen["groups"].append(set(keys))
            sizes: dict[tuple[Any, ...], int] = {}
            for key in keys:
                sizes[key] = sizes.get(key, 0) + 1
            out: dict[str, Any] = {
                name: pa.array([key[i] for key in sizes], batch.schema.field(name).type)
                for i, name in enumerate(self.by)
            }
            return pa.RecordBatch.from_pydict({**out, "size": pa.array(list(sizes.values()), pa.int64())})

    class Watch(Operator, kind="watch_batches"):
        """BATCH: writes down how many rows came at once, by which thread, and whether a spill file is there."""

        asks = False
        folder: str = ""

        def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
            seen["batches"].append((batch.num_rows, threading.current_thread().name))
            if self.folder:
                seen["spill"].append(
                    [(p.name, p.stat().st_size) for p in sorted(Path(self.folder).glob("*/spill.duckdb*"))]
                )
            return batch

    class Loses(Operator, kind="loses_a_row"):
        """BATCH: claims to keep the rows, and does not."""

        asks = False

        def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
            return batch.slice(1)

    del Share, Size, Watch, Loses
    yield seen
    Operator.kinds.clear()
    Operator.kinds.update(before)


@pytest.fixture
def seen(operators: dict[str, Any]) -> dict[str, list[Any]]:
    for found in operators.values():
        found.clear()
    return operators


TABLE = pa.table({"n": list(range(1, 101)), "k": [i % 3 for i in range(100)]})


def test_a_batch_operator_sees_slices_in_any_size(write: Write, seen: dict[str, list[Any]]) -> None:
    path = write([{"op": "watch_batches"}])
    for size, count in ((1, 100), (7, 15), (100, 1), (2048, 1)):
        seen["batches"].clear()
        run = gdo.run(path, source=TABLE, batch_rows=size)
        assert run.table().equals(TABLE)
        assert len(seen["batches"]) == count
        assert sum(rows for rows, _ in seen["batches"]) == 100


def test_several_batches_are_in_flight(write: Write, seen: dict[str, list[Any]]) -> None:
    step = {"op": "map", "prompt": "{{ n }}", "output": {"a": "string"}, "model": "slow"}
    models = {"slow": {"backend": "fake", "latency_s": 0.02}}
    run = gdo.run(write([step, {"op": "watch_batches"}], models=models), source=TABLE, batch_rows=5)
    assert run.table().column("n").equals(TABLE.column("n"))
    assert len({thread for _, thread in seen["batches"]}) > 1


@pytest.mark.parametrize("size", [1, 7, 100, 2048])
def test_a_fit_operator_learns_from_all_rows_before_it_works_on_any(
    write: Write, seen: dict[str, list[Any]], size: int
) -> None:
    run = gdo.run(write([{"op": "share_of_total", "column": "n"}]), source=TABLE, batch_rows=size)
    assert run.table().column("share").to_pylist() == [n / 5050 for n in range(1, 101)]
    assert set(seen["states"]) == {5050.0}
    assert sum(seen["summaries"]) == 100
    assert run.report["share_of_total"]["rows_in"] == run.report["share_of_total"]["rows_out"] == 100


def test_a_fit_operator_learns_only_from_the_rows_of_its_condition(write: Write, seen: dict[str, list[Any]]) -> None:
    path = write([{"op": "share_of_total", "column": "n", "where": "n > 50"}])
    run = gdo.run(path, source=TABLE, batch_rows=9)
    total = sum(range(51, 101))
    assert set(seen["states"]) == {float(total)}
    assert run.table().column("share").to_pylist() == [None] * 50 + [n / total for n in range(51, 101)]


def test_a_fit_operator_works_on_no_rows(write: Write) -> None:
    run = gdo.run(write([{"op": "share_of_total", "column": "n"}]), source=TABLE.slice(0, 0))
    assert run.table().column_names == ["n", "k", "share"]


def test_fit_follows_fit_and_group_follows_fit(write: Write) -> None:
    steps = [
        {"op": "share_of_total", "column": "n"},
        {"op": "share_of_total", "column": "share"},
        {"op": "size_of_group", "by": ["k"]},
        {"op": "share_of_total", "column": "size"},
    ]
    run = gdo.run(write(steps), source=TABLE, batch_rows=8)
    assert run.table().to_pylist() == [
        {"k": 0, "size": 34, "share": 0.34},
        {"k": 1, "size": 33, "share": 0.33},
        {"k": 2, "size": 33, "share": 0.33},
    ]


@pytest.mark.parametrize("size", [1, 7, 100, 2048])
def test_a_group_operator_sees_whole_groups_in_the_order_in_which_they_appear(
    write: Write, seen: dict[str, list[Any]], size: int
) -> None:
    table = pa.table({"k": ["b", None, "a", "b", "c", None] * 20, "j": [1.5, float("nan")] * 60})
    run = gdo.run(write([{"op": "size_of_group", "by": ["k"]}]), source=table, batch_rows=size)
    assert [(r["k"], r["size"]) for r in run.table().to_pylist()] == [("b", 40), (None, 40), ("a", 20), ("c", 20)]
    flat = [key for keys in seen["groups"] for key in keys]
    assert len(flat) == len(set(flat)) == 4


def test_a_group_operator_without_keys_sees_all_rows_at_once(write: Write, seen: dict[str, list[Any]]) -> None:
    run = gdo.run(write([{"op": "size_of_group"}]), source=TABLE, batch_rows=9)
    assert run.table().to_pylist() == [{"size": 100}]
    assert seen["groups"] == [{()}]


def test_groups_may_be_larger_than_a_batch(write: Write, seen: dict[str, list[Any]]) -> None:
    table = pa.table({"k": ["big"] * 9000 + ["small"] * 3 + ["big"] * 1000})
    run = gdo.run(write([{"op": "size_of_group", "by": ["k"]}]), source=table, batch_rows=512)
    assert run.table().to_pylist() == [{"k": "big", "size": 10_000}, {"k": "small", "size": 3}]
    assert run.report["size_of_group"]["rows_in"] == 10_003


def test_what_must_be_seen_whole_waits_in_a_file_that_is_gone_at_the_end(
    write: Write, seen: dict[str, list[Any]], tmp_path: Path
) -> None:
    steps = [
        {"op": "share_of_total", "column": "n"},
        {"op": "watch_batches", "folder": str(tmp_path / ".gdo" / "runs")},
    ]
    table = pa.table({"n": list(range(60_000)), "text": [f"row {i} " * 20 for i in range(60_000)]})
    run = gdo.run(write(steps), source=table)
    assert run.table().num_rows == 60_000
    assert seen["spill"]
    assert all(found[0][0] == "spill.duckdb" for found in seen["spill"])
    assert max(sum(size for _, size in found) for found in seen["spill"]) > 100_000
    assert sorted(p.name for p in run.folder.iterdir()) == [
        "calls.parquet", "errors.parquet", "result.parquet", "run.json",
    ]  # fmt: skip


def test_the_spill_file_is_gone_after_a_run_that_failed(write: Write, tmp_path: Path) -> None:
    steps = [
        {"op": "share_of_total", "column": "n"},
        {"op": "map", "prompt": "{{ n }}", "output": {"a": "string"}, "model": "mute", "on_error": "fail"},
    ]
    with pytest.raises(gdo.RunFailed):
        gdo.run(write(steps, models={"mute": {"backend": "fake", "fail_every": 1}}), source=TABLE)
    (folder,) = (tmp_path / ".gdo" / "runs").iterdir()
    assert not list(folder.glob("spill*"))
    assert '"outcome": "failed"' in (folder / "run.json").read_text()


def test_the_runner_notices_an_operator_that_loses_rows(write: Write) -> None:
    with pytest.raises(gdo.RunFailed, match=r"\d+ rows in, \d+ out, 0 rejected: rows were lost"):
        gdo.run(write([{"op": "loses_a_row"}]), source=TABLE)


def test_no_inner_column_reaches_a_sink(write: Write, tmp_path: Path) -> None:
    steps = [
        {"op": "watch_batches", "where": "n > 3"},
        {"op": "share_of_total", "column": "n", "where": "n > 5"},
        {"op": "size_of_group", "by": ["k"], "where": "k = 1"},
    ]
    table = gdo.run(write(steps), source=TABLE, batch_rows=10).table()
    assert table.column_names == ["k", "size"]
    assert table.to_pylist()[0] == {"k": 1, "size": 33}
    assert table.num_rows == 1 + 67


@given(
    st.lists(st.integers(1, 9), max_size=12), st.integers(0, 5), st.lists(st.integers(1, 12), min_size=1, max_size=5)
)
def test_groups_are_whole_and_in_order_however_batches_cut_them(sizes: list[int], others: int, cuts: list[int]) -> None:
    groups: list[int | None] = [i for i, size in enumerate(sizes) for _ in range(size)] + [None] * others
    table = pa.table({"row": pa.array(range(len(groups)), pa.int64()), GROUP: pa.array(groups, pa.int64())})
    batches, start = [], 0
    for size in itertools.cycle(cuts):
        if start >= table.num_rows:
            break
        batches += table.slice(start, size).to_batches()
        start += size
    out = [batch.column("row").to_pylist() for batch in whole_groups(iter(batches))]
    assert [row for rows in out for row in rows] == list(range(len(groups)))
    for rows in out:
        assert rows
        first, last = groups[rows[0]], groups[rows[-1]]
        assert rows[0] == 0 or first is None or groups[rows[0] - 1] != first
        assert rows[-1] == len(groups) - 1 or last is None or groups[rows[-1] + 1] != last

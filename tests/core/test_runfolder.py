import fcntl
import json
import os
import random
import socket

import pyarrow.parquet
import pytest

from gdo.claims import here
from gdo.ledger import Call, Failure
from gdo.runfolder import ERRORS, RunFolder, sweep


def test_the_tables_of_a_run_are_there_only_when_they_are_whole(tmp_path):
    folder = RunFolder(tmp_path)
    folder.calls([Call("s", "m", 1, 2, 0.5, cached=False, attempts=1)])
    folder.errors("s", [(7, Failure("invalid", "what", "asked", "said", 2))])
    assert not list(folder.path.glob("*.parquet"))
    folder.close({"outcome": "done"})
    assert pyarrow.parquet.read_table(folder.path / "calls.parquet").to_pylist() == [
        {"step": "s", "model": "m", "prompt_tokens": 1, "completion_tokens": 2, "latency_s": 0.5, "cached": False,
         "attempts": 1, "error": ""}
    ]  # fmt: skip
    (error,) = pyarrow.parquet.read_table(folder.path / "errors.parquet").to_pylist()
    assert (error["row_key"], error["reason"], error["raw_reply"], error["attempts"]) == (7, "invalid", "said", 2)
    assert json.loads((folder.path / "run.json").read_text())["outcome"] == "done"
    assert sorted(path.name for path in folder.path.iterdir()) == ["calls.parquet", "errors.parquet", "run.json"]


def test_many_calls_are_written_in_order_and_none_is_lost(tmp_path):
    folder = RunFolder(tmp_path)
    for start in range(0, 25_000, 5_000):
        folder.calls([Call("s", "m", i, 0, 0.0, cached=True, attempts=1) for i in range(start, start + 5_000)])
    folder.close({})
    table = pyarrow.parquet.read_table(folder.path / "calls.parquet")
    assert table.column("prompt_tokens").to_pylist() == list(range(25_000))


def test_what_is_hidden_stands_in_no_table(tmp_path):
    folder = RunFolder(tmp_path, lambda text: text.replace("hunter2", "***"))
    folder.errors("s", [(0, Failure("refused", "key hunter2", "ask hunter2", "say hunter2"))])
    folder.close({"outcome": "hunter2"})
    assert "hunter2" not in str(pyarrow.parquet.read_table(folder.path / "errors.parquet").to_pylist())
    assert "hunter2" not in (folder.path / "run.json").read_text()


@pytest.fixture
def dead(tmp_path):
    """What a run leaves that is killed: its marker, spilled rows, half tables, and a half sink beside its name."""
    folder = tmp_path / "runs" / "dead"
    (folder / "spill.tmp").mkdir(parents=True)
    for name in ("spill.duckdb", "spill.duckdb.wal", "spill.tmp/rows", "calls.parquet.part"):
        (folder / name).write_text("x")
    (folder / "errors.parquet").write_text("kept")
    names = (".out [1].csv.dead.part", ".db.t.dead.part", ".db.t.dead.part.wal", ".db.t.dead.part.tmp")
    parts = [tmp_path / name for name in names]
    for part in parts[:3]:
        part.write_text("half")
    parts[3].mkdir()
    (tmp_path / "precious.csv").write_text("kept")
    (folder / "running").write_text("\n".join([here(), *map(str, parts), str(tmp_path / "precious.csv")]))
    return folder


def left(dead):
    return sorted(path.name for path in [*dead.iterdir(), *dead.parents[1].glob(".*")])


def test_what_a_run_that_was_killed_has_left_is_swept_and_nothing_else(dead):
    sweep(dead.parent)
    assert left(dead) == ["errors.parquet"]
    assert (dead.parents[1] / "precious.csv").exists(), "only parts are removed"


def test_the_next_run_sweeps(dead):
    RunFolder(dead.parent).close({})
    assert left(dead) == ["errors.parquet"]


def test_what_belongs_to_a_run_that_lives_is_not_swept(dead):
    with (dead / "running").open("r+") as marker:
        fcntl.flock(marker, fcntl.LOCK_EX)
        sweep(dead.parent)
        assert len(left(dead)) == 10
    sweep(dead.parent)
    assert left(dead) == ["errors.parquet"]


def test_a_run_is_not_swept_by_another_one_before_it_ends(tmp_path):
    first = RunFolder(tmp_path)
    first.leaves([tmp_path / ".out.csv.first.part"])
    (tmp_path / ".out.csv.first.part").write_text("half")
    RunFolder(tmp_path).close({})
    assert (tmp_path / ".out.csv.first.part").exists()
    assert (first.path / "running").exists()
    first.close({})
    assert not (first.path / "running").exists()


@pytest.mark.parametrize(
    ("marker", "swept"),
    [("HOST 999999999", True), ("HOST OWN", False), ("elsewhere 999999999", False), ("HOST", False), ("", False)],
)
def test_where_files_cannot_be_locked_a_process_of_this_machine_that_is_gone_has_left_it(dead, monkeypatch, marker, swept):
    monkeypatch.setattr("gdo.runfolder._lock", lambda _: None)
    (dead / "running").write_text(marker.replace("HOST", socket.gethostname()).replace("OWN", str(os.getpid())))
    sweep(dead.parent)
    assert (dead / "running").exists() != swept
    assert (dead / "spill.tmp").exists() != swept


@pytest.mark.parametrize("count", [50, 25_000])
def test_errors_are_in_the_order_of_their_steps_and_rows(tmp_path, count):
    """Whatever the order in which they befell, and also where they are more than are kept in memory."""
    folder = RunFolder(tmp_path)
    wanted = [("a", row) for row in range(count // 2)] + [("b", row) for row in range(count // 2)]
    mixed = random.Random(1).sample(wanted, len(wanted))
    for start in range(0, count, 1000):
        for step, row in mixed[start : start + 1000]:
            folder.errors(step, [(row, Failure("invalid", "what", "asked", f"said {row}", 2))])
    folder.close({})
    table = pyarrow.parquet.read_table(folder.path / "errors.parquet")
    assert table.schema.equals(ERRORS)
    assert list(zip(table.column("step").to_pylist(), table.column("row_key").to_pylist(), strict=True)) == wanted
    assert table.column("raw_reply").to_pylist() == [f"said {row}" for _, row in wanted]
    assert sorted(path.name for path in folder.path.iterdir()) == ["calls.parquet", "errors.parquet", "run.json"]

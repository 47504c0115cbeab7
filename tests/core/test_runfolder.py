import json
import os
import socket

import pyarrow.parquet
import pytest

from gdo.ledger import Call, Failure
from gdo.runfolder import RunFolder, sweep


def test_the_tables_of_a_run_are_there_only_when_they_are_whole(tmp_path):
    folder = RunFolder(tmp_path)
    folder.calls([Call("s", "m", 1, 2, 0.5, cached=False, attempt=1)])
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
        folder.calls([Call("s", "m", i, 0, 0.0, cached=True, attempt=1) for i in range(start, start + 5_000)])
    folder.close({})
    table = pyarrow.parquet.read_table(folder.path / "calls.parquet")
    assert table.column("prompt_tokens").to_pylist() == list(range(25_000))


def test_what_is_hidden_stands_in_no_table(tmp_path):
    folder = RunFolder(tmp_path, lambda text: text.replace("hunter2", "***"))
    folder.errors("s", [(0, Failure("refused", "key hunter2", "ask hunter2", "say hunter2"))])
    folder.close({"outcome": "hunter2"})
    assert "hunter2" not in str(pyarrow.parquet.read_table(folder.path / "errors.parquet").to_pylist())
    assert "hunter2" not in (folder.path / "run.json").read_text()


@pytest.mark.parametrize(
    ("marker", "swept"),
    [("HOST 999999999", True), ("HOST OWN", False), ("elsewhere 999999999", False), ("HOST", False)],
)
def test_only_what_dead_runs_of_this_machine_left_is_swept(tmp_path, marker, swept):
    dead = tmp_path / "dead"
    dead.mkdir()
    for name in ("spill.duckdb", "spill.duckdb.wal", "calls.parquet.part"):
        (dead / name).write_text("x")
    (dead / "running").write_text(marker.replace("HOST", socket.gethostname()).replace("OWN", str(os.getpid())))
    (dead / "errors.parquet").write_text("kept")
    beside = tmp_path / ".out.csv.dead.part"
    beside.write_text("half")
    with (dead / "running").open("a") as file:
        file.write(f"\n{beside}\n{tmp_path / 'precious.csv'}")
    (tmp_path / "precious.csv").write_text("kept")
    sweep(tmp_path)
    assert beside.exists() != swept
    assert (tmp_path / "precious.csv").exists(), "only parts are removed"
    assert sorted(path.name for path in dead.iterdir()) == (
        ["errors.parquet"] if swept else ["calls.parquet.part", "errors.parquet", "running", "spill.duckdb", "spill.duckdb.wal"]
    )

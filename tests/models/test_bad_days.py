"""What goes wrong at 10^6 rows: killed runs, full disks, two runs at once, one bad row in many."""

import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

import gdo
from gdo.cache import Cache

Write = Callable[..., Path]
GDO = [sys.executable, "-m", "gdo.cli"]
STEP = {"op": "map", "prompt": "{{ t }}", "output": {"a": "string"}, "model": "m"}
WINDOW = 16


@pytest.fixture
def pipeline(write: Write, server: Any, tmp_path: Path) -> Callable[..., Path]:
    """A pipeline over some rows of a parquet file, asked of the loopback server."""

    def made(rows: int, step: dict[str, Any] | None = None, **model: Any) -> Path:
        table = pa.table({"t": [f"row {i}" for i in range(rows)], "n": range(rows)})
        pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
        options = {"backend": "endpoint", "url": server.url, "model": "tiny", "concurrency": WINDOW, **model}
        outer = {"models": {"m": options}, "source": {"path": "in.parquet"}, "sink": {"path": "out.parquet"}}
        return write([{**STEP, **(step or {})}], **outer)

    return made


def until(seen: Callable[[], bool]) -> None:
    """Wait for something to be so, half a minute at most."""
    for _ in range(600):
        if seen():
            return
        time.sleep(0.05)
    pytest.fail("it never came")


def asked(server: Any) -> Counter[str]:
    return Counter(body["messages"][-1]["content"] for body in server.bodies)


@pytest.mark.parametrize("on_error", ["keep", "reject"])
def test_one_row_in_two_hundred_that_is_refused_costs_no_other_row(
    pipeline: Callable[..., Path], server: Any, answer: Any, on_error: str
) -> None:
    good = server.answer
    server.answer = lambda n, body: (
        answer(status=400, raw=b'{"error": {"message": "content filter"}}')
        if body["messages"][-1]["content"] == "row 77"
        else good(n, body)
    )
    run = gdo.run(pipeline(200, {"on_error": on_error}))
    table = run.table()
    said = dict(zip(table.column("n").to_pylist(), table.column("a").to_pylist(), strict=True))
    expected: dict[int, str | None] = {i: f"said row {i}" for i in range(200)}
    expected[77] = None
    if on_error == "reject":
        del expected[77]
    assert said == expected
    (error,) = run.errors().to_pylist()
    assert (error["row_key"], error["reason"], error["detail"]) == (77, "refused", "HTTP 400: content filter")
    assert error["prompt"].endswith("row 77")
    assert run.report["map"]["rows_in"] == run.report["map"]["rows_out"] + run.report["map"]["rejected"]


def test_a_run_that_is_killed_at_any_moment_pays_again_for_no_more_than_the_window(
    pipeline: Callable[..., Path], server: Any, tmp_path: Path
) -> None:
    path = pipeline(600)
    server.delay_s = 0.01
    draw = random.Random(7)
    kills = 0
    for _ in range(12):
        before = sum(asked(server).values())
        process = subprocess.Popen([*GDO, "run", str(path), "--quiet"], cwd=tmp_path)
        while len(server.bodies) == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0.0, 0.06))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() != 0
    assert kills >= 6, "most of the runs were killed before their end"
    assert subprocess.run([*GDO, "run", str(path), "--quiet"], cwd=tmp_path, check=False).returncode == 0
    repeated = sum(count - 1 for count in asked(server).values())
    assert repeated <= kills * WINDOW
    table = pyarrow.parquet.read_table(tmp_path / "out.parquet")
    assert table.column("a").to_pylist() == [f"said row {i}" for i in range(600)]
    assert not list(tmp_path.glob(".out.parquet.*")), "and so are their half files"
    assert not list(tmp_path.glob(".gdo/runs/*/spill*")), "what dead runs spilled is swept by the next one"


def test_two_runs_at_once_share_a_cache_and_pay_once(pipeline: Callable[..., Path], server: Any, tmp_path: Path) -> None:
    path = pipeline(300)
    server.delay_s = 0.05
    outs = [tmp_path / "one.parquet", tmp_path / "two.parquet"]
    runs = [subprocess.Popen([*GDO, "run", str(path), "--quiet", "--out", str(out)], cwd=tmp_path) for out in outs]
    assert [run.wait(120) for run in runs] == [0, 0]
    for out in outs:
        table = pyarrow.parquet.read_table(out)
        assert table.column("a").to_pylist() == [f"said row {i}" for i in range(300)]
    assert len(asked(server)) == 300
    assert sum(asked(server).values()) <= 300 + WINDOW
    again = subprocess.run([*GDO, "run", str(path), "--max-calls", "0"], cwd=tmp_path, check=False)
    assert again.returncode == 0, "all of it is in the cache"


def test_a_run_that_waits_for_another_one_goes_on_when_that_is_killed(
    pipeline: Callable[..., Path], server: Any, tmp_path: Path
) -> None:
    path = pipeline(40)
    server.late = {"row 7": 4.0}
    first = subprocess.Popen([*GDO, "run", str(path), "--quiet", "--out", "first.parquet"], cwd=tmp_path)
    until(lambda: len(server.bodies) >= 40)
    server.late = {}
    threading.Timer(1.5, lambda: (first.kill(), first.wait())).start()
    run = gdo.run(path)
    assert run.table().column("a").to_pylist() == [f"said row {i}" for i in range(40)]
    assert run.report["map"]["calls"] == 1
    assert sum(asked(server).values()) == 41


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from gdo.cli import main
sys.exit(main(sys.argv[2:]))
"""


def limited(folder: Path, largest: int, *words: object) -> subprocess.CompletedProcess[str]:
    """`gdo` where no file may grow beyond some bytes: what a full disk looks like from inside."""
    command = [sys.executable, "-c", LIMITED, str(largest), *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_a_disk_that_is_full_for_the_cache_stops_the_run_and_loses_nothing_paid_for(
    pipeline: Callable[..., Path], server: Any, tmp_path: Path
) -> None:
    path = pipeline(2_000)
    done = limited(tmp_path, 150_000, "run", path)
    assert done.returncode == 1, done.stderr
    assert "a reply could not be stored" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out.parquet").exists()
    paid = sum(asked(server).values())
    assert 0 < paid < 2_000
    assert limited(tmp_path, 1 << 40, "run", path).returncode == 0
    assert sum(asked(server).values()) <= 2_000 + WINDOW
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column("a").null_count == 0


@pytest.mark.parametrize("largest", [1_000, 10_000, 30_000, 70_000])
def test_a_disk_that_is_full_from_the_beginning_is_told_in_a_line(
    pipeline: Callable[..., Path], tmp_path: Path, largest: int
) -> None:
    """Whatever it is that finds no room: the run's folder, what DuckDB spills, the cache."""
    path = pipeline(500)
    done = limited(tmp_path, largest, "run", path, "--quiet")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert limited(tmp_path, 1 << 40, "run", path).returncode == 0
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column("a").null_count == 0


def test_a_disk_that_is_full_for_the_sink_stops_the_run_and_keeps_the_old_one(
    pipeline: Callable[..., Path], server: Any, tmp_path: Path
) -> None:
    path = pipeline(2_000)
    assert limited(tmp_path, 1 << 40, "run", path).returncode == 0
    before = (tmp_path / "out.parquet").read_bytes()
    paid = sum(asked(server).values())
    wide = path.read_text().replace("path: out.parquet", "path: out.jsonl")
    path.write_text(wide)
    (tmp_path / "out.jsonl").write_text("old\n")
    done = limited(tmp_path, 50_000, "run", path)
    assert done.returncode == 1, done.stderr
    assert "out.jsonl: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out.jsonl").read_text() == "old\n"
    assert (tmp_path / "out.parquet").read_bytes() == before
    assert not list(tmp_path.glob(".out.*")), "no half file is left"
    assert sum(asked(server).values()) == paid


@pytest.mark.parametrize("spoil", ["cut", "not sqlite", "empty", "another database"])
def test_a_cache_that_is_spoilt_is_told_or_begun_anew_and_never_a_traceback(
    pipeline: Callable[..., Path], tmp_path: Path, spoil: str
) -> None:
    path = pipeline(300)
    assert subprocess.run([*GDO, "run", str(path), "--quiet"], cwd=tmp_path, check=False).returncode == 0
    cache = tmp_path / ".gdo" / "cache.sqlite"
    whole = cache.read_bytes()
    match spoil:
        case "cut":
            cache.write_bytes(whole[: len(whole) // 2])
        case "not sqlite":
            cache.write_bytes(b"something else" * 1000)
        case "empty":
            cache.write_bytes(b"")
        case "another database":
            cache.unlink()
            with sqlite3.connect(cache) as other:
                other.execute("CREATE TABLE replies (a, b)")
    done = subprocess.run([*GDO, "run", str(path)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    if spoil == "empty":
        assert done.returncode == 0
    else:
        assert done.returncode == 2, done.stderr
        assert "cache.sqlite: " in done.stderr
        assert "--no-cache" in done.stderr


@pytest.mark.parametrize("jump_s", [-3600, 3600, 86400 * 365])
def test_a_clock_that_jumps_changes_nothing(
    pipeline: Callable[..., Path], server: Any, answer: Any, monkeypatch: pytest.MonkeyPatch, jump_s: int
) -> None:
    """By an hour or a year, each time that somebody looks at it."""
    real, jumps = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + jump_s * (next(jumps) % 60))
    good = server.answer
    server.answer = lambda n, body: answer(status=429, headers={"Retry-After": "0.1"}) if n % 7 == 0 else good(n, body)
    run = gdo.run(pipeline(50))
    assert run.errors().num_rows == 0
    facts = json.loads((run.folder / "run.json").read_text())
    assert 0 <= facts["seconds"] < 60
    assert all(0 <= seconds < 60 for seconds in run.calls().column("latency_s").to_pylist())
    assert gdo.run(pipeline(50)).report["map"]["calls"] == 0


@pytest.mark.parametrize("slow", [0, 49, 777])
def test_a_row_that_is_slow_holds_up_no_other(pipeline: Callable[..., Path], server: Any, slow: int) -> None:
    """Nor do many batches that are whole and wait behind it."""
    server.held = {f"row {slow}": 1500}  # it is answered when all the others have been asked
    run = gdo.run(pipeline(1500), batch_rows=50)
    assert run.errors().num_rows == 0
    assert max(server.times) - min(server.times) < 50, "it was not given up"
    assert run.table().column("n").to_pylist() == list(range(1500)), "and all came out in their order"


def test_memory_does_not_grow_with_the_rows(pipeline: Callable[..., Path], tmp_path: Path) -> None:
    path = pipeline(10)
    text = path.read_text().replace("backend: endpoint", "backend: fake")
    spec = "\n".join(line for line in text.splitlines() if not line.strip().startswith(("url:", "model: tiny")))
    path.write_text(spec)
    code = (
        "import gdo, resource, sys; gdo.run('pipeline.yaml');"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    most = []
    for rows in (20_000, 100_000):
        table = pa.table({"t": [f"row {i} of {rows}" for i in range(rows)], "n": range(rows)})
        pyarrow.parquet.write_table(table, tmp_path / "in.parquet")
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        most.append(int(done.stdout))
    assert most[1] - most[0] < 120, most


def test_a_cache_of_a_run_that_was_killed_is_whole(pipeline: Callable[..., Path], server: Any, tmp_path: Path) -> None:
    path = pipeline(500)
    process = subprocess.Popen([*GDO, "run", str(path), "--quiet"], cwd=tmp_path)
    while sum(asked(server).values()) < 200 and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    cache = Cache(tmp_path / ".gdo" / "cache.sqlite")
    assert len(cache) >= sum(asked(server).values()) - WINDOW
    cache.close()


def test_ctrl_c_once_keeps_all_that_was_sent_and_twice_leaves_at_once(
    pipeline: Callable[..., Path], server: Any, tmp_path: Path
) -> None:
    path = pipeline(200)
    gdo.run(path)
    before = (tmp_path / "out.parquet").read_bytes()
    path.write_text(path.read_text().replace("model: tiny", "model: other"))
    server.bodies.clear()
    server.delay_s = 3.0

    def interrupted(times: int) -> tuple[int, str, float]:
        sent = len(server.bodies)
        process = subprocess.Popen([*GDO, "run", str(path)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        until(lambda: len(server.bodies) >= sent + WINDOW)
        assert process.stderr is not None
        process.send_signal(signal.SIGINT)
        said = ""
        if times > 1:
            while "press Ctrl-C again" not in said:
                said += process.stderr.readline()
            process.send_signal(signal.SIGINT)
        started = time.monotonic()
        said += process.communicate(timeout=30)[1]
        assert (tmp_path / "out.parquet").read_bytes() == before
        assert not list(tmp_path.glob(".out.*"))
        return process.returncode, said, time.monotonic() - started

    code, said, _ = interrupted(1)
    assert code == 1
    assert "goes on from there" in said
    once = len(server.bodies)
    assert WINDOW <= once <= 2 * WINDOW
    code, said, seconds = interrupted(2)
    assert code == 1
    assert "left at once" in said
    assert seconds < 2.5, "it waits for no call"
    server.delay_s = 0.0
    run = gdo.run(path)
    assert run.table().column("a").null_count == 0
    assert run.report["map"]["cached"] >= once, "what was in flight at the first Ctrl-C is kept"
    assert sum(asked(server).values()) <= 200 + WINDOW


@pytest.mark.parametrize(("option", "most"), [("--max-calls", 50), ("--max-tokens", 50 * 14)])
def test_a_budget_stops_a_run_with_its_replies_kept_and_the_same_command_goes_on(
    pipeline: Callable[..., Path], server: Any, tmp_path: Path, option: str, most: int
) -> None:
    path = pipeline(160)
    command = [*GDO, "run", str(path), option, str(most)]
    codes: list[int] = []
    while len(codes) < 5 and codes[-1:] != [0]:
        before = len(server.bodies)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        codes.append(done.returncode)
        assert len(server.bodies) - before <= 50 + (WINDOW if "tokens" in option else 0)
        assert "goes on from there" in done.stderr or done.returncode == 0
    assert codes[:2] == [1, 1]
    assert codes[-1] == 0
    assert max(asked(server).values()) == 1
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").column("a").null_count == 0


def test_a_wrong_key_is_one_message_and_not_one_for_each_row(
    pipeline: Callable[..., Path], server: Any, answer: Any, tmp_path: Path
) -> None:
    server.answer = lambda *_: answer(status=401, raw=b'{"error": {"message": "Incorrect API key"}}')
    done = subprocess.run(
        [*GDO, "run", str(pipeline(10_000)), "--quiet"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "refuses the key: Incorrect API key" in done.stderr
    assert len(server.bodies) <= WINDOW


def test_ctrl_c_ends_the_wait_for_a_server_that_is_away(pipeline: Callable[..., Path], tmp_path: Path) -> None:
    path = pipeline(200, url="http://127.0.0.1:9/v1")
    process = subprocess.Popen([*GDO, "run", str(path)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until(lambda: any(tmp_path.glob(".gdo/runs/*/running")))
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "goes on from there" in said


def test_a_damaged_reply_is_asked_again_and_no_other(pipeline: Callable[..., Path], server: Any, tmp_path: Path) -> None:
    path = pipeline(100)
    gdo.run(path)
    with sqlite3.connect(tmp_path / ".gdo" / "cache.sqlite") as cache:
        cache.execute("UPDATE replies SET reply = x'ff' WHERE rowid IN (3, 50)")
    run = gdo.run(path)
    assert (run.report["map"]["calls"], run.report["map"]["cached"]) == (2, 98)
    assert run.table().column("a").null_count == 0
    assert gdo.run(path).report["map"]["calls"] == 0
    assert len(server.bodies) == 102


@pytest.mark.parametrize("rows", [3, 40])
def test_a_run_that_is_stopped_while_its_last_rows_are_tried_again_leaves_the_old_table(
    pipeline: Callable[..., Path], server: Any, answer: Any, tmp_path: Path, rows: int
) -> None:
    path = pipeline(rows, attempts=20)
    gdo.run(path)
    before = (tmp_path / "out.parquet").read_bytes()
    path.write_text(path.read_text().replace("model: tiny", "model: other"))
    good = server.answer
    server.answer = lambda n, body: (
        answer(status=500) if body["messages"][-1]["content"] == "row 1" else good(n, body)
    )
    process = subprocess.Popen([*GDO, "run", str(path)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    until(lambda: len(server.bodies) >= 2 * rows + 1)  # all of them, and one again
    process.send_signal(signal.SIGINT)
    asked_before = len(server.bodies)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 1, said
    assert "goes on from there" in said
    assert (tmp_path / "out.parquet").read_bytes() == before
    assert len(server.bodies) <= asked_before + 1, "nothing more was sent"

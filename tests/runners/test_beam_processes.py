"""The Beam runner in several processes: one server a machine, and what happens when one of them dies."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gdo
from gdo.model import Head, Request, Sampling
from gdo.runners.beam_desk import DeskSpec
from gdo.runners.beam_machine import HERE, Machine, connected, dismiss, socket_of, stop, totals

Write = Callable[..., Path]
TWO = ("--direct_running_mode=multi_processing", "--direct_num_workers=2")
ROWS = pa.table({"n": list(range(2000)), "k": [f"key {i % 5}" for i in range(2000)]})
STEP = {"op": "map", "model": "m", "prompt": "{{ n }}", "output": {"a": "string"}}
WHO = """
import json, os, pathlib, time
def answer(request):
    with open(pathlib.Path(__file__).with_name("who.txt"), "a") as file:
        file.write(f"{os.getpid()} {request.body}\\n")
    return json.dumps({"a": request.body})
"""
MODELS = {"m": {"backend": "fake", "answer": "who_answers:answer"}}
SLOW = {"m": {"backend": "fake", "answer": "who_answers:answer", "latency_s": 0.1, "concurrency": 8}}

MARK = f"GDO_TESTED_BY={os.getpid()}"


def processes(word: str) -> list[int]:
    """The processes that these tests have started whose command has a word in it; others run tests at the same time."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                ours = MARK.encode() in (folder / "environ").read_bytes().split(b"\0")
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:  # it has just ended
                continue
            if ours and word in command and state != "Z":
                found.append(int(folder.name))
    return found


def gone(word: str, others: list[int], within_s: float = 60.0) -> bool:
    """Whether no process with a word but some others is left, or will be soon."""
    ends = time.monotonic() + within_s
    while set(processes(word)) - set(others):
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture(autouse=True)
def no_orphan(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test does, no process of it is left."""
    monkeypatch.setenv(*MARK.split("="))
    before = processes("gdo.runners.beam_")
    yield
    assert gone("gdo.runners.beam_", before)


@pytest.fixture
def asked(tmp_path: Path) -> Callable[[], list[tuple[int, str]]]:
    """Who was asked what: the process of the model, and the prompt."""
    sys.modules.pop("who_answers", None)
    (tmp_path / "who_answers.py").write_text(WHO, encoding="utf-8")

    def told() -> list[tuple[int, str]]:
        path = tmp_path / "who.txt"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [(int(line.split()[0]), line.split()[1]) for line in lines]

    return told


Asked = Callable[[], list[tuple[int, str]]]


def test_two_processes_give_the_same_table_and_ask_one_server(write: Write, asked: Asked, tmp_path: Path) -> None:
    pq.write_table(ROWS, tmp_path / "in.parquet", row_group_size=300)
    (tmp_path / "doubles.py").write_text(
        "import os, pathlib, pyarrow as pa\n"
        "def double(batch):\n"
        "    pathlib.Path(__file__).with_name(f'worker-{os.getpid()}').touch()\n"
        "    return pa.RecordBatch.from_pydict({'twice': [2 * n for n in batch.column('n').to_pylist()]})\n",
        encoding="utf-8",
    )
    steps = [
        STEP,
        {"op": "python", "function": "doubles:double", "writes": {"twice": "integer"}},
        {"op": "reduce", "id": "groups", "by": ["k"], "model": "m", "output": {"a": "string"},
         "prompt": "{% for row in rows[:9] %}{{ row.twice }}-{% endfor %}"},
    ]  # fmt: skip
    sinks = [{"path": "rows.parquet", "from": "python"}, {"path": "groups.jsonl"}]
    path = write(steps, models=MODELS, source={"path": "in.parquet"}, sinks=sinks)
    done = gdo.run(path, runner="beam", runner_options=TWO, batch_rows=50)
    workers = {int(p.name.partition("-")[2]) for p in tmp_path.glob("worker-*")}
    assert len(workers) == 2
    servers = {process for process, _ in asked()}
    assert len(servers) == 1
    assert not servers & {*workers, os.getpid()}
    prompts = [prompt for _, prompt in asked()]
    assert len(prompts) == len(set(prompts)) == 2005
    assert done.report["map"]["calls"] == 2000
    assert done.calls().num_rows >= 2005
    beams = [done.table(i) for i in range(2)]
    for left in tmp_path.glob("*-of-*"):
        left.unlink()
    other = gdo.run(path, cache=False)
    assert [other.table(i).equals(beam) for i, beam in enumerate(beams)] == [True, True]


def test_the_budget_of_a_machine_holds_over_its_processes(write: Write, asked: Asked) -> None:
    path = write([STEP], models=MODELS)
    with pytest.raises(gdo.BudgetSpent, match="the budget of 70 calls is spent"):
        gdo.run(path, runner="beam", runner_options=TWO, source=ROWS, batch_rows=20, max_calls=70)
    assert len(asked()) == 70


def left_by(tmp_path: Path) -> tuple[pa.Table, pa.Table]:
    """The errors and calls that the only run has left."""
    (folder,) = (tmp_path / ".gdo" / "runs").iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["calls.parquet", "errors.parquet", "run.json"]
    errors, calls = (pq.read_table(folder / f"{name}.parquet") for name in ("errors", "calls"))
    return errors, calls


def test_a_run_that_fails_leaves_the_errors_and_calls_of_all_its_processes(write: Write, tmp_path: Path) -> None:
    path = write([STEP], models={"m": {"backend": "fake", "fail_every": 4}})
    with pytest.raises(gdo.BudgetSpent):
        gdo.run(path, runner="beam", runner_options=TWO, source=ROWS, batch_rows=20, max_calls=700)
    errors, calls = left_by(tmp_path)
    assert calls.num_rows == 700
    assert 0 < errors.num_rows <= calls.column("error").to_pylist().count("refused")


def started(path: Path, *more: str) -> "subprocess.Popen[str]":
    """A run in a process of its own, as from the command line."""
    command = [sys.executable, "-m", "gdo", "run", str(path), "--runner", "beam", *more, "--", *TWO]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(true: Callable[[], object], within_s: float = 120.0) -> None:
    ends = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.parametrize("victim", ["beam_harness", "beam_server"])
def test_a_process_that_is_killed_ends_the_run_clearly_and_the_next_one_pays_for_the_rest(
    write: Write, asked: Asked, tmp_path: Path, victim: str
) -> None:
    pq.write_table(ROWS.slice(0, 600), tmp_path / "in.parquet")
    path = write([STEP], models=SLOW, source={"path": "in.parquet"}, sink={"path": "out.parquet"})
    before = processes(f"gdo.runners.{victim}")
    with started(path) as process:
        until(lambda: len(asked()) > 20)
        os.kill(min(set(processes(f"gdo.runners.{victim}")) - set(before)), signal.SIGKILL)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    told = "a worker process was killed by signal 9 (" if victim == "beam_harness" else "model server ended: it was killed"
    assert told in said.splitlines()[-1]
    assert "Traceback" not in said
    assert not list(tmp_path.glob("*out*"))
    paid = len(set(asked()))
    noted = left_by(tmp_path)[1].num_rows
    assert noted == paid if victim == "beam_harness" else noted <= paid
    done = gdo.run(path, runner="beam", source=ROWS.slice(0, 600))
    assert done.table().num_rows == 600
    assert done.report["map"]["calls"] <= 600 - paid + 8  # what was in flight when the server was killed is lost
    assert done.report["map"]["calls"] < 600


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files; its name is short, since sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="gdo-test-") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_when_the_launcher_is_killed_nothing_more_is_sent_and_the_next_run_removes_what_is_left(
    write: Write, asked: Asked, tmp_path: Path, temporary: Path
) -> None:
    pq.write_table(ROWS.slice(0, 800), tmp_path / "in.parquet")
    path = write([STEP], models=SLOW, source={"path": "in.parquet"}, sink={"path": "out.parquet"})
    before = processes("gdo.runners.beam_")
    with started(path) as process:
        until(lambda: len(asked()) > 20)
        process.kill()
    assert gone("gdo.runners.beam_", before)
    paid = len(asked())
    assert paid < 400
    assert gdo.run(path, runner="beam").report["map"]["calls"] == 800 - paid  # what was in flight is kept
    assert [path.name for path in temporary.rglob("*")] == [f"gdo-{os.getuid()}"]


def test_ctrl_c_ends_all_processes_and_keeps_what_is_paid_for(write: Write, asked: Asked, tmp_path: Path) -> None:
    pq.write_table(ROWS.slice(0, 600), tmp_path / "in.parquet")
    path = write([STEP], models=SLOW, source={"path": "in.parquet"}, sink={"path": "out.parquet"})
    with started(path) as process:
        until(lambda: len(asked()) > 20)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert said.splitlines()[-1] == "stopped; replies so far are kept, and the same command goes on from there"
    assert not list(tmp_path.glob("*out*"))
    paid = len(asked())
    assert gdo.run(path, runner="beam").report["map"]["calls"] == 600 - paid


# The server itself


@pytest.fixture
def spec(tmp_path: Path, asked: Asked) -> Iterator[DeskSpec]:
    from gdo.backend import Backend

    models = {name: Backend.kinds["fake"].model_validate(told["m"]) for name, told in (("m", MODELS), ("slow", SLOW))}
    made = DeskSpec(f"test-{os.getpid()}-{tmp_path.name[-8:]}", models, tmp_path, str(tmp_path / "cache.sqlite"))
    yield made
    dismiss(made.run_id)


def test_the_server_is_started_once_and_ends_when_it_is_dismissed(spec: DeskSpec) -> None:
    before = processes("gdo.runners.beam_server")
    one, other = Machine(spec), Machine(spec)
    assert len(set(processes("gdo.runners.beam_server")) - set(before)) == 1
    assert totals(spec.run_id) == {}
    one.close()
    other.close()
    dismiss(spec.run_id)
    assert gone("gdo.runners.beam_server", before)
    assert not Path(socket_of(spec.run_id)).exists()


def test_the_server_ends_by_itself_when_nobody_is_there(spec: DeskSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    before = processes("gdo.runners.beam_server")
    line = connected(spec)
    time.sleep(0.5)
    assert set(processes("gdo.runners.beam_server")) - set(before)
    line.close()
    assert gone("gdo.runners.beam_server", before)
    assert not list(Path(socket_of(spec.run_id)).parent.glob(f"{spec.run_id}.*"))


def test_what_servers_left_that_were_killed_is_removed_by_the_next_one(temporary: Path, spec: DeskSpec) -> None:
    line = connected(spec)
    home = Path(socket_of(spec.run_id)).parent
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(home / "dead.sock"))
    (home / "dead.lock").touch()
    with (home / "begun.lock").open("w") as begun:
        fcntl.flock(begun, fcntl.LOCK_EX)
        other = replace(spec, run_id=f"{spec.run_id}-other")
        connected(other).close()
        kept = [f"{run}.{kind}" for run in (spec.run_id, other.run_id) for kind in ("lock", "sock")]
        assert {path.name for path in home.iterdir()} == {"begun.lock", *kept}
    line.close()
    dismiss(other.run_id)


def requests(count: int) -> list[Request]:
    return [Request(Head("chat"), f"{n}", Sampling()) for n in range(count)]


def test_a_worker_that_comes_after_one_that_was_lost_is_answered(spec: DeskSpec, asked: Asked) -> None:
    there, asks = connected(spec), connected(spec)
    there.send(HERE)
    there.recv()
    asks.send(("replies", "slow", "s", requests(400), 0))
    until(lambda: len(asked()) > 20)
    there.close()
    assert isinstance(asks.recv(), gdo.Stopped)
    before = len(asked())
    assert before < 300
    next_one = Machine(spec)
    replies, _ = next_one.replies("slow", "s", requests(before + 50), 0)
    assert [reply.error for reply in replies] == [None] * (before + 50)
    assert len(asked()) == before + 50
    asks.close()
    stop(spec.run_id)
    with pytest.raises(gdo.Stopped):
        next_one.replies("slow", "s", requests(400), 0)
    next_one.close()
    again = Machine(spec)
    with pytest.raises(gdo.Stopped):
        again.replies("slow", "s", requests(400), 0)
    again.close()


def test_how_a_server_ended_is_told(spec: DeskSpec, asked: Asked) -> None:
    before = processes("gdo.runners.beam_server")
    machine = Machine(spec)
    (server,) = set(processes("gdo.runners.beam_server")) - set(before)
    os.kill(server, signal.SIGKILL)
    with pytest.raises(gdo.RunFailed, match=r"^the machine's model server ended: it was killed by signal 9$"):
        machine.replies("slow", "s", requests(1), 0)


def test_only_its_user_may_enter_where_the_server_listens(spec: DeskSpec) -> None:
    connected(spec).close()
    folder = Path(socket_of(spec.run_id)).parent
    assert folder.stat().st_mode & 0o077 == 0
    folder.chmod(0o755)
    try:
        with pytest.raises(gdo.RunFailed, match="others may enter it"):
            connected(spec)
    finally:
        folder.chmod(0o700)


def test_a_server_that_cannot_start_says_why(spec: DeskSpec, tmp_path: Path) -> None:
    (tmp_path / "cache.sqlite").write_text("no database at all, but a text that is long enough to be taken for one")
    with pytest.raises(gdo.Faults, match=r"does not start: .*cache\.sqlite: cannot be used as a cache"):
        connected(spec)
    with pytest.raises(gdo.Faults, match=r"does not start: cache: redis://127.0.0.1:1/0 cannot be used"):
        connected(replace(spec, cache="redis://127.0.0.1:1/0"))


# Installed


def test_a_wheel_runs_in_several_processes(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    files = subprocess.check_output(["git", "ls-files", "-z"], cwd=root, text=True).split("\0")
    for name in filter(None, files):
        if (root / name).is_file():
            (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / name).write_bytes((root / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheels = str(tmp_path / "wheels")
    subprocess.run([*pip, "wheel", "--no-deps", "-w", wheels, str(tmp_path / "tree")], check=True)
    (wheel,) = Path(wheels).glob("gdo-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)], check=True)
    pq.write_table(ROWS, tmp_path / "in.parquet", row_group_size=300)
    (tmp_path / "p.yaml").write_text(
        "models: {m: {backend: fake}}\nsource: {path: in.parquet}\nsink: {path: out.parquet}\n"
        "steps:\n  - {op: map, model: m, prompt: '{{ n }}', output: {a: string}}\n",
        encoding="utf-8",
    )
    code = "import gdo.cli, sys; print(gdo.__file__, file=sys.stderr); sys.exit(gdo.cli.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "run", str(tmp_path / "p.yaml"), "--runner", "beam", "--", *TWO]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(str(tmp_path / "site"))
    table = pa.concat_tables([pq.read_table(path) for path in sorted(tmp_path.glob("out-*-of-*.parquet"))])
    assert table.column("n").equals(ROWS.column("n"))

"""The command line, as a user meets it: a process, its exit status, and what it writes where."""

import contextlib
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

import gdo

Done = subprocess.CompletedProcess[str]
Cli = Callable[..., Done]
GDO = [sys.executable, "-m", "gdo.cli"]
ROWS = 60


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    def run(*words: object, **more: Any) -> Done:
        return subprocess.run(
            [*GDO, *map(str, words)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, **more
        )

    return run


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """A pipeline over sixty rows and a fake model; keys of the model, of the step and of the file as they come."""

    def made(model: dict[str, Any] | None = None, step: dict[str, Any] | None = None, **outer: Any) -> Path:
        rows = "".join(f"{i},name {i}\n" for i in range(ROWS))
        (tmp_path / "in.csv").write_text(f"id,name\n{rows}", encoding="utf-8")
        ask = {"op": "map", "prompt": "{{ name }}", "output": {"a": "string"}, "model": "m", **(step or {})}
        spec = {
            "models": {"m": {"backend": "fake", **(model or {})}},
            "source": {"path": "in.csv"},
            "steps": [ask],
            "sink": {"path": "out/result.parquet"},
            **outer,
        }
        path = tmp_path / "pipeline.yaml"
        path.write_text(yaml.safe_dump({k: v for k, v in spec.items() if v is not None}, sort_keys=False))
        return path

    return made


def calls(folder: Path) -> pa.Table:
    """The calls of all runs in a project that came to an end."""
    found = []
    for path in sorted((folder / ".gdo" / "runs").glob("*/calls.parquet")):
        try:
            found.append(pyarrow.parquet.read_table(path))
        except pa.ArrowInvalid:
            continue  # the run was killed before it could close the file
    return pa.concat_tables(found)


def stored(folder: Path) -> int:
    path = folder / ".gdo" / "cache.sqlite"
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as cache:
        if not cache.execute("SELECT 1 FROM sqlite_master WHERE name = 'replies'").fetchone():
            return 0
        return int(cache.execute("SELECT count(*) FROM replies").fetchone()[0])


# A run


def test_a_run_writes_its_table_and_says_on_stdout_where(
    cli: Cli, project: Callable[..., Path], tmp_path: Path
) -> None:
    project()
    done = cli("run", "pipeline.yaml")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out/result.parquet\n"
    assert pyarrow.parquet.read_table(tmp_path / "out" / "result.parquet").num_rows == ROWS
    assert "map" in done.stderr
    assert "rows in" in done.stderr
    assert "output: out/result.parquet" in done.stderr
    assert "errors: 0" in done.stderr
    assert "\x1b" not in done.stderr  # no terminal, no control characters
    (run,) = (tmp_path / ".gdo" / "runs").iterdir()
    assert sorted(p.name for p in run.iterdir()) == ["calls.parquet", "errors.parquet", "run.json"]
    facts = json.loads((run / "run.json").read_text())
    assert facts["outcome"] == "done"
    assert facts["steps"]["map"]["calls"] == ROWS
    assert facts["id"] == run.name


def test_a_quiet_run_says_nothing_on_standard_error(cli: Cli, project: Callable[..., Path]) -> None:
    project({"latency_s": 0.05})
    done = cli("run", "pipeline.yaml", "--quiet")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "out/result.parquet\n")


def test_errors_are_counted_and_their_table_is_named(cli: Cli, project: Callable[..., Path], tmp_path: Path) -> None:
    project({"fail_every": 1})
    done = cli("run", "pipeline.yaml")
    assert done.returncode == 0
    (place,) = [line.partition(" in ")[2] for line in done.stderr.splitlines() if line.startswith("errors: 60 in ")]
    assert pyarrow.parquet.read_table(tmp_path / place).num_rows == ROWS


def test_a_run_that_fails_exits_1_with_its_reason(cli: Cli, project: Callable[..., Path], tmp_path: Path) -> None:
    project({"fail_every": 1}, {"on_error": "fail"})
    done = cli("run", "pipeline.yaml", "--quiet")
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.search(
        r"step 'map', row \d+: refused: told to fail", done.stderr
    )  # batches run side by side: any of its rows
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_limit_and_another_sink_come_from_the_command_line(
    cli: Cli, project: Callable[..., Path], tmp_path: Path
) -> None:
    project()
    (tmp_path / "elsewhere").mkdir()
    done = cli("run", "pipeline.yaml", "--limit", 3, "--out", "elsewhere/x.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("elsewhere/x.csv")
    assert len((tmp_path / "elsewhere" / "x.csv").read_text().splitlines()) == 4
    assert not (tmp_path / "out").exists()


def test_a_pipeline_is_run_from_any_folder(cli: Cli, project: Callable[..., Path], tmp_path: Path) -> None:
    path = project()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    done = subprocess.run(
        [*GDO, "run", str(path)], cwd=tmp_path / "deep" / "er", capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "result.parquet").is_file()
    assert list((tmp_path / "deep" / "er").iterdir()) == []


def test_no_cache_neither_reads_nor_keeps_replies(cli: Cli, project: Callable[..., Path], tmp_path: Path) -> None:
    project()
    assert cli("run", "pipeline.yaml", "--no-cache").returncode == 0
    assert not (tmp_path / ".gdo" / "cache.sqlite").exists()
    assert cli("run", "pipeline.yaml").returncode == 0
    assert cli("run", "pipeline.yaml", "--no-cache").returncode == 0
    assert calls(tmp_path).column("cached").to_pylist().count(False) == 3 * ROWS


def test_variables_come_from_the_command_line(cli: Cli, project: Callable[..., Path], tmp_path: Path) -> None:
    project(vars={"n": 1}, source={"sql": "SELECT range AS id, 'x' AS name FROM range(${var:n})"})
    assert cli("run", "pipeline.yaml", "--set", "n=7").returncode == 0
    assert pyarrow.parquet.read_table(tmp_path / "out" / "result.parquet").num_rows == 7


def test_progress_in_a_pipe_is_lines_without_control_characters(cli: Cli, project: Callable[..., Path]) -> None:
    project({"latency_s": 0.2, "concurrency": 1})
    done = cli("run", "pipeline.yaml")
    assert done.returncode == 0
    line = next(line for line in done.stderr.splitlines() if line.startswith("["))
    assert "map" in line
    assert "calls" in line
    assert "\x1b" not in done.stderr


def test_progress_in_a_terminal_is_live_and_ends_with_the_summary(project: Callable[..., Path], tmp_path: Path) -> None:
    project({"latency_s": 0.1, "concurrency": 8})
    ours, theirs = pty.openpty()
    with subprocess.Popen([*GDO, "run", "pipeline.yaml"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs) as child:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:
                break
            if not part:
                break
            shown += part
        assert child.stdout is not None
        assert child.stdout.read() == b"out/result.parquet\n"
    os.close(ours)
    assert child.returncode == 0
    assert b"\x1b[" in shown
    assert b"/60" in shown
    assert b"done in" in shown


# Stopping and going on


def stopped(folder: Path, sign: int, *, twice: bool = False, quiet: bool = False) -> tuple[int, str]:
    """Start a run, send it a signal when some replies are on disk; its exit status and what it said."""
    words = [*GDO, "run", "pipeline.yaml", *(["--quiet"] if quiet else [])]
    with subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        for _ in range(600):
            time.sleep(0.05)
            if stored(folder) >= 8:
                break
        child.send_signal(sign)
        if twice:
            time.sleep(0.5)
            child.send_signal(sign)
        out, said = child.communicate(timeout=60)
        assert out == ""
    return child.returncode, said


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_was_paid_for_and_says_how_to_go_on(
    cli: Cli, project: Callable[..., Path], tmp_path: Path, word: signal.Signals
) -> None:
    project({"latency_s": 0.2, "concurrency": 4})
    status, said = stopped(tmp_path, word)
    assert status == 1
    assert "Traceback" not in said
    assert "goes on" in said.splitlines()[-1]
    assert not (tmp_path / "out" / "result.parquet").exists()
    assert list((tmp_path / "out").iterdir()) == []
    kept = stored(tmp_path)
    assert 8 <= kept < ROWS
    (run,) = (tmp_path / ".gdo" / "runs").iterdir()
    assert pyarrow.parquet.read_table(run / "calls.parquet").num_rows == kept  # what was sent was finished and stored
    assert json.loads((run / "run.json").read_text())["outcome"] == "stopped"
    assert cli("run", "pipeline.yaml", "--quiet").returncode == 0
    assert calls(tmp_path).column("cached").to_pylist().count(False) == ROWS
    assert pyarrow.parquet.read_table(tmp_path / "out" / "result.parquet").num_rows == ROWS


def test_ctrl_c_twice_leaves_at_once(project: Callable[..., Path], tmp_path: Path) -> None:
    project({"latency_s": 3.0, "concurrency": 8})
    with subprocess.Popen(
        [*GDO, "run", "pipeline.yaml"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        for _ in range(600):
            time.sleep(0.05)
            if stored(tmp_path) >= 8:
                break
        child.send_signal(signal.SIGINT)
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "Traceback" not in said
    assert stored(tmp_path) == 8  # it did not wait for the calls in flight


def test_ctrl_c_is_quiet_under_quiet_but_for_the_reason(project: Callable[..., Path], tmp_path: Path) -> None:
    project({"latency_s": 0.2, "concurrency": 4})
    status, said = stopped(tmp_path, signal.SIGINT, quiet=True)
    assert status == 1
    assert len(said.splitlines()) == 1


def test_a_run_that_was_killed_is_run_again_and_pays_only_for_what_is_missing(
    cli: Cli, project: Callable[..., Path], tmp_path: Path
) -> None:
    project({"latency_s": 0.2, "concurrency": 4}, sink={"path": "first/result.parquet"})
    (tmp_path / "first").mkdir()
    status, _ = stopped(tmp_path, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not (tmp_path / "first" / "result.parquet").exists()
    kept = stored(tmp_path)
    assert 8 <= kept < ROWS
    assert cli("run", "pipeline.yaml", "--quiet").returncode == 0
    again = calls(tmp_path).column("cached").to_pylist()
    assert again.count(True) == kept
    assert again.count(False) == ROWS - kept
    table = pyarrow.parquet.read_table(tmp_path / "first" / "result.parquet")
    project({"latency_s": 0.0}, sink={"path": "second.parquet"})
    assert cli("run", "pipeline.yaml", "--quiet", "--no-cache").returncode == 0
    assert pyarrow.parquet.read_table(tmp_path / "second.parquet").equals(table)


@pytest.mark.parametrize("budget", [("--max-calls", 25), ("--max-tokens", 25 * 9)])
def test_a_budget_stops_the_run_and_the_next_one_goes_on(
    cli: Cli, project: Callable[..., Path], tmp_path: Path, budget: tuple[str, int]
) -> None:
    project({"latency_s": 0.01, "concurrency": 4})
    done = cli("run", "pipeline.yaml", *budget)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "budget" in done.stderr.splitlines()[-1]
    assert "goes on" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "result.parquet").exists()
    kept = stored(tmp_path)
    assert kept == 25 if budget[0] == "--max-calls" else 15 <= kept <= 30
    assert cli("run", "pipeline.yaml", "--max-calls", ROWS - kept).returncode == 0
    assert calls(tmp_path).column("cached").to_pylist().count(False) == ROWS


# The other commands


def test_check_is_silent_on_stdout_and_names_each_fault_with_its_place(cli: Cli, project: Callable[..., Path]) -> None:
    project()
    done = cli("check", "pipeline.yaml")
    assert (done.returncode, done.stdout) == (0, "")
    project(None, {"promt": "x", "where": "nme = 1", "retries": "many", "model": "mm"})
    done = cli("check", "pipeline.yaml")
    assert done.returncode == 2
    assert "did you mean 'prompt'" in done.stderr
    assert all(line.startswith("pipeline.yaml:") for line in done.stderr.splitlines())
    assert len(done.stderr.splitlines()) >= 2


def test_plan_shows_the_plan_before_and_after_and_an_estimate(cli: Cli, project: Callable[..., Path]) -> None:
    path = project()
    spec = yaml.safe_load(path.read_text())
    spec["steps"].append({"op": "sql", "query": "SELECT * FROM input WHERE id > 5"})
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    done = cli("plan", "pipeline.yaml", "--estimate")
    assert (done.returncode, done.stderr) == (0, "")
    assert "# as written" in done.stdout
    assert "# as run" in done.stdout
    written, run = done.stdout.split("# as run")
    assert "map = map" in written
    assert written.index("map = map") < written.index("sql = sql")
    assert run.index("sql = sql") < run.index("map = map")
    assert "map: 54 calls" in done.stdout
    assert "total: 54 calls" in done.stdout
    assert "map: 10 calls" in cli("plan", "pipeline.yaml", "--estimate", "--limit", 16).stdout


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("operators", ["map", "clean", "filter", "classify", "extract", "expand", "reduce", "sql", "python"]),
        ("backends", ["local", "fake", "replay", "endpoint"]),
        ("models", ["smollm2-135m"]),
        ("udps", []),
    ],
)
def test_list_shows_what_there_is(cli: Cli, what: str, words: list[str]) -> None:
    done = cli("list", what)
    assert (done.returncode, done.stderr) == (0, "")
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert set(words) <= set(names)
    assert "broken" not in done.stdout


UDP = """
udp: shout
prompt: "{{ word }}"
output: {loud: string}
tests:
  - {in: {word: one}, out: {loud: ONE}}
  - {in: {word: two}, out: {loud: three}}
"""


def test_test_shows_pass_and_fail_and_what_was_said(cli: Cli, project: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("import json\ndef answer(r): return json.dumps({'loud': r.body.upper()})\n")
    project({"answer": "loud:answer"})
    (tmp_path / "shout.yaml").write_text(UDP)
    done = cli("test", "shout.yaml", "--model", "m", "--pipeline", "pipeline.yaml")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines == ["pass  shout 1: ONE", "FAIL  shout 2: TWO", "      wanted three", "1 of 2 tests passed"]
    (tmp_path / "shout.yaml").write_text(UDP.replace("three", "TWO"))
    assert cli("test", "shout.yaml", "--model", "m", "--pipeline", "pipeline.yaml").returncode == 0
    assert not (tmp_path / ".gdo").exists()


def test_init_makes_a_project_that_fits_the_schema_and_checks(cli: Cli, tmp_path: Path) -> None:
    done = cli("init", "shop")
    assert done.returncode == 0, done.stderr
    made = [Path(line) for line in done.stdout.splitlines()]
    assert made
    assert all((tmp_path / path).is_file() for path in made)
    schema = json.loads(cli("schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load((tmp_path / "shop" / "pipeline.yaml").read_text()), schema)
    assert cli("check", "shop/pipeline.yaml").returncode == 0
    again = cli("init", "shop")
    assert again.returncode == 2
    assert "is there already" in again.stderr


@pytest.mark.model
def test_the_project_that_init_makes_runs_as_it_is(cli: Cli, tmp_path: Path) -> None:
    assert cli("init", "shop").returncode == 0
    done = cli("run", "shop/pipeline.yaml")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        assert (tmp_path / line).is_file()


def test_the_schema_knows_good_files_from_bad_ones(cli: Cli, project: Callable[..., Path]) -> None:
    schema = json.loads(cli("schema").stdout)
    validator = jsonschema.Draft202012Validator(schema)
    good = yaml.safe_load(project(None, {"where": "id > 1", "retries": 2, "into": "x"}).read_text())
    assert validator.is_valid(good)
    good["steps"] += [
        {"op": "sql", "query": "SELECT 1", "id": "x", "from": "map"},
        {"op": "classify", "text": "{{ a }}", "labels": {"a": "b"}, "examples": [{"in": {"a": 1}, "out": "a"}]},
        {"op": "python", "function": "a:b", "writes": {"x": "integer"}, "max_tokens": "${var:n}"},
    ]
    assert validator.is_valid(good)
    for wrong in (
        {"op": "map", "promt": "x"}, {"op": "mapp"}, {"prompt": "x"}, {"op": "sql"}, {"op": "map", "on_error": "skip"},
        {"op": "map", "prompt": "x", "retries": -1},
    ):  # fmt: skip
        assert not validator.is_valid({**good, "steps": [wrong]}), wrong
    assert not validator.is_valid({**good, "stepz": []})
    assert not validator.is_valid({**good, "models": {"m": {"backend": "fake", "url": "x"}}})


def test_help_and_version_go_to_stdout(cli: Cli) -> None:
    assert cli("--version").stdout == f"gdo {gdo.__version__}\n"
    for words in (["--help"], [], ["run", "--help"], ["list", "--help"]):
        done = cli(*words)
        assert (done.returncode, done.stderr) == (0, "")
        assert "usage: gdo" in done.stdout


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys; from gdo.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()[-1]
    assert not any(
        f"'{name}'" in loaded for name in ("pyarrow", "duckdb", "pydantic", "jinja2", "rich", "aiohttp", "yaml")
    )


def test_a_pipe_that_closes_early_is_no_traceback(tmp_path: Path) -> None:
    with subprocess.Popen(
        [*GDO, "schema"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.read(1)
        child.stdout.close()
        assert "Traceback" not in (said := child.stderr.read()), said
        assert "Exception ignored" not in said


# Wrong usage


WRONG: dict[str, tuple[list[str], int, str]] = {
    "no such command": (["rum", "pipeline.yaml"], 2, "invalid choice"),
    "no file": (["run"], 2, "PIPELINE.yaml"),
    "a file that is not there": (["run", "pipelin.yaml"], 2, "no such file"),
    "a folder": (["run", "."], 2, "folder"),
    "a file that is no yaml": (["run", "broken.yaml"], 2, r"broken\.yaml:2:4"),
    "a binary file": (["check", "binary.yaml"], 2, "UTF-8|YAML"),
    "an empty file": (["check", "empty.yaml"], 2, "empty.yaml"),
    "a list": (["check", "list.yaml"], 2, "mapping"),
    "a limit of nothing": (["run", "pipeline.yaml", "--limit", "0"], 2, "--limit"),
    "a limit that is no number": (["run", "pipeline.yaml", "--limit", "ten"], 2, "--limit"),
    "an option that is not there": (["run", "pipeline.yaml", "--fast"], 2, "--fast"),
    "a runner that is not there": (["run", "pipeline.yaml", "--runner", "spark"], 2, "spark"),
    "options for the runner": (["run", "pipeline.yaml", "--", "--workers=3"], 2, "--workers=3"),
    "a variable without a value": (["run", "pipeline.yaml", "--set", "x"], 2, "KEY=VALUE"),
    "a variable that is not declared": (["run", "pipeline.yaml", "--set", "x=1"], 2, "no variable 'x'"),
    "an output of an unknown kind": (["run", "pipeline.yaml", "--out", "x.docx"], 2, "x.docx"),
    "an output that is a folder": (["run", "pipeline.yaml", "--out", "folder.csv"], 2, "--out: 'folder.csv' is a folder"),
    "a list of nothing": (["list", "dragons"], 2, "dragons"),
    "a udp that is not there": (["test", "nope"], 2, "no UDP named 'nope'"),
    "a udp file that is not there": (["test", "nope.yaml"], 2, "no such file"),
    "a udp file that is a pipeline": (["test", "pipeline.yaml"], 2, "pipeline.yaml:"),
    "a udp without tests": (["test", "untested.yaml", "--model", "fake"], 2, "no tests"),
    "a udp and a model that is not there": (["test", "shout.yaml", "--model", "gpt"], 2, "no model named 'gpt'"),
    "a model to pull that is not there": (["pull", "gpt-9"], 2, "gpt-9"),
    "a project in a file": (["init", "broken.yaml"], 2, "broken.yaml"),
    "a column that is not there": (["run", "column.yaml"], 2, "no column 'nam' here .*did you mean 'name'"),
    "a source that is not there": (["plan", "source.yaml"], 2, "did you mean 'in.csv'"),
    "a function that is not there": (["run", "function.yaml"], 2, "cannot be imported"),
    "an environment variable that is not set": (["run", "env.yaml"], 2, r"env\.yaml:\d+:\d+: \$\{env:GDO_NOT_SET\} is not set"),
    "a cache that is none": (["run", "cache/pipeline.yaml"], 2, "cache"),
    "a home that is a file": (["run", "home/pipeline.yaml"], 1, "home"),
    "a recording that is not there": (["run", "replay.yaml"], 2, "said.parquet"),
    "a source that is a number": (["check", "number.yaml"], 2, r"number\.yaml:\d+:\d+"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_usage_is_a_message_and_never_a_traceback(
    cli: Cli, project: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    path = project()
    good = yaml.safe_load(path.read_text())
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "broken.yaml").write_text("a: [1,\nb: }")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "shout.yaml").write_text(UDP)
    (tmp_path / "untested.yaml").write_text(UDP.partition("tests:")[0].replace("shout", "untested"))
    ask = good["steps"][0]
    others = {
        "column": {"steps": [{**ask, "prompt": "{{ nam }}"}]},
        "source": {"source": {"path": "im.csv"}},
        "function": {"models": {"m": {"backend": "fake", "answer": "nope:nope"}}},
        "env": {"sink": {"path": "${env:GDO_NOT_SET}/x.csv"}},
        "replay": {"models": {"m": {"backend": "replay", "path": "said.parquet"}}},
        "number": {"source": 5},
    }
    for stem, change in others.items():
        (tmp_path / f"{stem}.yaml").write_text(yaml.safe_dump({**good, **change}))
    for folder in ("cache", "home"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "pipeline.yaml").write_text(yaml.safe_dump({**good, "source": {"path": "../in.csv"}}))
    (tmp_path / "cache" / ".gdo").mkdir()
    (tmp_path / "cache" / ".gdo" / "cache.sqlite").write_text("this is no cache, but it is long enough to look at")
    (tmp_path / "home" / ".gdo").write_text("a file")
    words, status, what = WRONG[name]
    done = cli(*words)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == status, done.stderr
    assert re.search(what, done.stderr), done.stderr
    assert done.stdout == ""


def test_an_unknown_option_names_the_one_that_may_be_meant(cli: Cli, project: Callable[..., Path]) -> None:
    project()
    done = cli("run", "pipeline.yaml", "--limt", "3")
    assert done.returncode == 2
    assert "did you mean '--limit'?" in done.stderr
    assert "did you mean '--estimate'?" in cli("plan", "pipeline.yaml", "--estimates").stderr


def test_a_source_that_is_no_table_is_told(project: Callable[..., Path]) -> None:
    with pytest.raises(gdo.Faults, match="source: a list is no Arrow stream"):
        gdo.run(project(), source=[1, 2])  # type: ignore[arg-type]


def test_the_cache_is_told_pruned_and_verified(cli: Cli, project: Callable[..., Path], tmp_path: Path) -> None:
    project()
    assert cli("cache").returncode == 2
    cli("run", "pipeline.yaml")
    done = cli("cache", "pipeline.yaml", "--verify")
    assert done.returncode == 0
    assert done.stdout.splitlines()[1].split()[-5:-3] == ["map", str(ROWS)]
    assert f"{ROWS} replies are whole, 0 faults" in done.stderr
    assert cli("cache", ".", "--prune").returncode == 2
    assert cli("cache", ".", "--step", "map").returncode == 2
    assert cli("cache", ".", "--prune", "--older-than", "soon").returncode == 2
    assert "0 replies removed" in cli("cache", ".", "--prune", "--older-than", "1d").stderr
    assert f"{ROWS} replies removed" in cli("cache", ".", "--prune", "--step", "map").stderr
    assert stored(tmp_path) == 0


def test_a_step_that_answers_no_row_is_warned_of(cli: Cli, project: Callable[..., Path]) -> None:
    project({"fail_every": 1})
    done = cli("run", "pipeline.yaml")
    assert done.returncode == 0
    assert f"warning: step 'map' answered none of its {ROWS} rows" in done.stderr


def test_a_budget_of_no_call_shows_that_all_is_cached(cli: Cli, project: Callable[..., Path]) -> None:
    project()
    stopped = cli("run", "pipeline.yaml", "--max-calls", 0)
    assert stopped.returncode == 1
    assert "the budget of 0 calls is spent" in stopped.stderr
    assert "rows in" in stopped.stderr, "how far it came is told too"
    cli("run", "pipeline.yaml")
    assert cli("run", "pipeline.yaml", "--max-calls", 0).returncode == 0


def test_gdo_runs_as_a_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gdo", "--version"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"gdo {gdo.__version__}"


def test_what_a_module_of_the_user_wants_done_at_the_end_of_the_process_is_done(
    project: Callable[..., Path], cli: Cli, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(
        "import atexit, pathlib\n"
        "atexit.register(lambda: pathlib.Path('left').touch())\n"
        "def same(batch):\n    return batch\n"
    )
    step = {"op": "python", "function": "own:same", "writes": {"name": "string"}}
    path = project(steps=[step])
    done = cli("run", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'out' / 'result.parquet'}\n"
    assert (tmp_path / "left").exists()

"""`gdo sql`, as a user meets it: a process, its exit status, and what it writes where."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet
import pytest

Done = subprocess.CompletedProcess[str]
GDO = [sys.executable, "-m", "gdo.cli", "sql"]
UDP = "udp: two\nprompt: '{{ name }}'\noutput: {word: string, size: integer}\n"


@pytest.fixture
def sql(tmp_path: Path) -> Callable[..., Done]:
    """Run `gdo sql` in a folder with a file of ten rows and a folder of UDPs."""
    rows = "".join(f"{i},name {i % 4}\n" for i in range(10))
    (tmp_path / "in.csv").write_text(f"id,name\n{rows}", encoding="utf-8")
    (tmp_path / "udps").mkdir()
    (tmp_path / "udps" / "two.yaml").write_text(UDP, encoding="utf-8")

    def run(*words: object, **more: Any) -> Done:
        more = {"input": ""} | more
        return subprocess.run(
            [*GDO, *map(str, words)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, **more
        )

    return run


SAY = "prompt('{{ t }}', {t: name})"
FAKE = ("--model", "fake")


def test_a_query_over_a_file_is_answered_as_a_table(sql: Callable[..., Done]) -> None:
    done = sql(f"SELECT id, {SAY} AS said FROM 'in.csv' WHERE id < 6", *FAKE)
    assert done.returncode == 0, done.stderr
    assert "│ said" in done.stdout.replace("  ", " ").replace("│  ", "│ ") or "said" in done.stdout
    assert done.stdout.count("fake-") == 6
    assert done.stderr.startswith("6 rows, 4 calls, 0 cached, 0 errors in ")


def test_the_same_query_again_makes_no_call(sql: Callable[..., Done]) -> None:
    query = f"SELECT {SAY} FROM 'in.csv'"
    first, second = sql(query, *FAKE), sql(query, *FAKE)
    assert first.stdout == second.stdout
    assert second.stderr.startswith("10 rows, 0 calls, 4 cached")


def test_a_query_comes_from_standard_input(sql: Callable[..., Done]) -> None:
    for words in ((), ("-",)):
        done = sql(*words, "--format", "csv", "--quiet", *FAKE, input="SELECT 1 AS a,\n  two('x').size > 0 AS b\n")
        assert (done.returncode, done.stdout, done.stderr) == (0, "a,b\n1,true\n", "")


def test_udps_of_the_folder_and_shipped_ones_are_functions(sql: Callable[..., Done]) -> None:
    done = sql("SELECT two(name).word AS a, tidy_name(name) AS b FROM 'in.csv' LIMIT 1", "--format", "json", *FAKE)
    (row,) = json.loads(done.stdout)
    assert row["a"].startswith("fake-")
    assert row["b"].startswith("fake-")


def test_a_database_is_read_and_left_as_it_was(sql: Callable[..., Done], tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "a.duckdb")) as con:
        con.execute("CREATE TABLE \"my table\" AS SELECT 'x' AS name").fetchall()
    before = (tmp_path / "a.duckdb").read_bytes()
    done = sql(f'SELECT {SAY} AS s FROM "my table"', "--db", "a.duckdb", "--format", "csv", *FAKE)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("s\nfake-")
    assert (tmp_path / "a.duckdb").read_bytes() == before


@pytest.mark.parametrize("name", ["out.csv", "out.json", "out.jsonl", "out.parquet"])
def test_rows_go_to_a_file_of_the_kind_that_its_name_tells(sql: Callable[..., Done], tmp_path: Path, name: str) -> None:
    done = sql(f"SELECT id, {SAY} AS s, [1, 2] AS l FROM 'in.csv' ORDER BY id", "--out", name, *FAKE)
    assert (done.returncode, done.stdout) == (0, f"{name}\n")
    assert [path.name for path in tmp_path.glob("out*")] == [name]
    path = tmp_path / name
    if name.endswith(".parquet"):
        rows = pyarrow.parquet.read_table(path).to_pylist()
    elif name.endswith(".json"):
        rows = json.loads(path.read_text())
    elif name.endswith(".jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        rows = duckdb.read_csv(str(path)).to_arrow_table().to_pylist()
    assert [row["id"] for row in rows] == list(range(10))
    assert all(row["s"].startswith("fake-") for row in rows)


def test_parquet_on_standard_output_is_whole(sql: Callable[..., Done], tmp_path: Path) -> None:
    with (tmp_path / "piped.parquet").open("wb") as file:
        command = [*GDO, "SELECT 1 AS a", "--format", "parquet"]
        subprocess.run(command, cwd=tmp_path, stdout=file, check=True, timeout=120)
    assert pyarrow.parquet.read_table(tmp_path / "piped.parquet").to_pylist() == [{"a": 1}]


def test_explain_says_what_would_be_asked_and_asks_nothing(sql: Callable[..., Done], tmp_path: Path) -> None:
    done = sql(f"SELECT {SAY} FROM 'in.csv' WHERE ask_bool('{{{{ t }}}}', {{t: name}}) AND id < 3", "--explain", *FAKE)
    first, rows, second, *_ = done.stdout.splitlines()
    assert first.startswith("1. ask_bool(")
    assert rows.strip() == 'SELECT DISTINCT "name" AS a0 FROM "in.csv" WHERE (id < 3)'
    assert second.startswith("2. prompt(")
    assert done.stderr == ""
    assert not (tmp_path / ".gdo").exists()


def test_failures_are_told_and_their_rows_are_null(sql: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "models: {bad: {backend: fake, fail_every: 1}}\nsource: {path: in.csv}\n"
        "steps: [{op: map, model: bad, prompt: '{{ name }}', output: {a: string}}]\n"
    )
    done = sql(f"SELECT DISTINCT {SAY} AS s FROM 'in.csv'", "--pipeline", "p.yaml", "--format", "csv")
    assert (done.returncode, done.stdout) == (0, 's\n""\n' if '""' in done.stdout else "s\n\n")
    assert "4 errors" in done.stderr
    assert "prompt: 4 x refused: told to fail" in done.stderr
    place = next(line for line in done.stderr.splitlines() if line.startswith("errors: 4 in ")).rpartition(" in ")[2]
    assert pyarrow.parquet.read_table(tmp_path / place).num_rows == 4
    failed = sql(f"SELECT {SAY} FROM 'in.csv'", "--pipeline", "p.yaml", "--on-error", "fail")
    assert failed.returncode == 1
    assert "step 'prompt', input {\"t\": \"name " in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_budget_stops_with_1_and_the_same_command_goes_on(sql: Callable[..., Done]) -> None:
    query = f"SELECT {SAY} FROM 'in.csv'"
    stopped = sql(query, "--max-calls", 3, *FAKE)
    assert stopped.returncode == 1
    assert "the budget of 3 calls is spent; replies so far are kept" in stopped.stderr
    assert sql(query, *FAKE).stderr.startswith("10 rows, 1 call, 3 cached")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["SELECT 1", "--udps", "nowhere/"], "udps: no folder 'nowhere/' (paths are relative to the working folder)"),
        (["SELECT 1", "--udps", "standardize_brnd"], "(did you mean 'standardize_brand'?)"),
        (["SELECT nam FROM 'in.csv'"], 'query: Referenced column "nam" not found in FROM clause! (Candidate bindings: "name")'),
        (["SELECT * FROM 'no.csv'"], 'query: No files found that match the pattern "no.csv"'),
        (["SELECT * FROM nope"], "query: Table with name nope does not exist!"),
        (["SELECT * FROM t", "--db", "no.duckdb"], "--db: no database file 'no.duckdb'"),
        (["SELECT * FROM t", "--db", "in.csv"], "--db: 'in.csv' is no DuckDB database (a file of rows is read in the query"),
        (["SELECT tidy_nme(name) FROM 'in.csv'"], "does not exist! (did you mean 'tidy_name'?)"),
        (["SELECT two() FROM 'in.csv'"], "query:1:8: two: takes 1 argument (name), not 0"),
        (["SELECT\n  two(name, 1)\nFROM 'in.csv'"], "query:2:3: two: takes 1 argument (name), not 2"),
        (["SELECT prompt('{{ t', {t: 1})"], "query:1:8: prompt: template: "),
        (["SELECT prompt('{{ q }}', {t: 1})"], "the template reads 'q', which its struct does not have (known: t)"),
        (["SELECT prompt('{{ t }}', {t: 1}, 'intger')"], "unknown type 'intger' (did you mean 'integer'?)"),
        (["SELECT prompt('{{ t }}', {t: 1}, '{a')"], "the schema '{a' is not YAML"),
        (["SELECT a,, b"], 'query:1:10: syntax error at or near ","'),
        (["SELECT 1; SELECT 2"], "query: 2 statements (one SELECT at a time)"),
        (["DROP TABLE t"], "query: a statement of kind DROP is no query"),
        (["INSERT INTO t VALUES (1)"], "query: a statement of kind INSERT is no query"),
        (["-- nothing"], "query: there is no statement in it"),
        ([], "query: there is no statement in it"),
        (["SELECT 1", "--out", "x.foo"], "--out: 'x.foo' tells no format"),
        (["SELECT 1", "--out", "no/x.csv"], "there is no folder"),
        (["SELECT 1", "--out", "udps"], "tells no format"),
        (["SELECT 1", "--model", "fke"], "model: no model named 'fke' (did you mean 'fake'?)"),
        (["SELECT 1", "--pipeline", "no.yaml"], "no.yaml: no such file"),
        (["SELECT 1", "--max-calls", "x"], "'x' is not a whole number of 0 or more"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_2_and_without_a_traceback(
    sql: Callable[..., Done], words: list[str], said: str
) -> None:
    done = sql(*words, *([] if "--model" in words else FAKE))
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_every_fault_of_a_query_is_told_at_once(sql: Callable[..., Done]) -> None:
    done = sql("SELECT prompt('{{ t', {t: 1}), two(), classify('x', ['a', 'a'])", *FAKE)
    assert [line.split(":")[2] for line in done.stderr.splitlines()] == ["8", "32", "39"]


def test_a_query_that_fails_while_it_runs_leaves_1(sql: Callable[..., Done]) -> None:
    done = sql(f"SELECT CAST(name AS INTEGER), {SAY} FROM 'in.csv'", *FAKE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("query: Could not convert string 'name 0' to INT32")


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(GDO, cwd=tmp_path, input=b"SELECT '\xff'", capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (2, b"QUERY: is not UTF-8 text (byte 8)\n")


def test_an_interrupt_keeps_what_was_answered(sql: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "models: {slow: {backend: fake, latency_s: 0.05, concurrency: 2}}\nsource: {path: in.csv}\n"
        "steps: [{op: map, model: slow, prompt: '{{ name }}', output: {a: string}}]\n"
    )
    query = "SELECT prompt('{{ i }}', {i: i}) FROM range(2000) r(i)"
    command = [*GDO, query, "--pipeline", "p.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    cache = tmp_path / ".gdo" / "cache.sqlite-wal"  # its tables alone are 30 kB there
    deadline = time.monotonic() + 60
    while not (cache.exists() and cache.stat().st_size > 100_000):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert said == "stopped; replies so far are kept, and the same command goes on from there\n"
    (tmp_path / "p.yaml").write_text((tmp_path / "p.yaml").read_text().replace("0.05", "0.0"))
    rest = sql(query, "--pipeline", "p.yaml").stderr
    calls, cached = (int(rest.split(", ")[place].split(" ")[0].replace(",", "")) for place in (1, 2))
    assert 0 < cached < 2000
    assert calls == 2000 - cached

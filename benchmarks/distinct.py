"""Rows that repeat: a million with a thousand distinct prompts, 1,001 with fifty, and 100,000 that are all in the cache.

    python benchmarks/distinct.py [--rows N]

Through the fake model, which costs nothing. The floor is DuckDB alone, which reads the same parquet file and writes it again.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parent))
from figure import Figure, show

from gdo.api import Options, load

STEP = {"op": "map", "model": "fake", "prompt": "Brand as entered: {{ brand }}", "output": {"name": "string"}}


def made(folder: Path, rows: int, distinct: int) -> Path:
    """The pipeline, its rows beside it."""
    query = f"SELECT i AS id, 'brand ' || (i * 7919 % {distinct}) AS brand, 'title ' || i AS title FROM range({rows}) t(i)"
    duckdb.execute(f"COPY ({query}) TO '{folder}/in.parquet'")
    path = folder / "pipeline.yaml"
    path.write_text(json.dumps({"source": {"path": "in.parquet"}, "steps": [STEP], "sink": {"path": "out.parquet"}}))
    return path


def through_gdo(path: Path, rows: int) -> tuple[float, float, int]:
    """Rows/s, the most memory in MB, and the calls of a run."""
    started = time.perf_counter()
    run = load(path).run(Options())
    seconds = time.perf_counter() - started
    found = duckdb.execute(f"SELECT count(*), count(name) FROM '{path.parent}/out.parquet'").fetchone()
    assert found == (rows, rows)
    calls = int(str(run.report["map"]["calls"]))
    return rows / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, calls


def in_a_process(path: Path, rows: int) -> tuple[float, float, int]:
    """The same, in a process of its own."""
    command = [sys.executable, __file__, "--rows", str(rows), "--inside", str(path)]
    found: tuple[float, float, int] = tuple(json.loads(subprocess.check_output(command)))
    return found


def figures(rows: int = 1_000_000) -> Iterator[Figure]:
    """Many rows with few prompts, few with fewer, and a second run over all that is in the cache."""
    with tempfile.TemporaryDirectory() as name:
        path = made(Path(name), rows, 1_000)
        started = time.perf_counter()
        duckdb.execute(f"COPY (SELECT *, brand AS name FROM '{name}/in.parquet') TO '{name}/floor.parquet'")
        floor = rows / (time.perf_counter() - started)
        rate, memory, calls = in_a_process(path, rows)
        told = f"{rate:,.0f} rows/s, {memory:,.0f} MB, {calls:,} calls"
        asked = "200,000 rows/s, 600 MB"
        yield Figure(f"{rows:,} rows, 1,000 prompts", told, f"{floor:,.0f} rows/s (DuckDB)", f"{rate / floor:.2f}", asked)
    with tempfile.TemporaryDirectory() as name:
        calls = in_a_process(made(Path(name), 1_001, 50), 1_001)[2]
        yield Figure("1,001 rows, 50 prompts", f"{calls} calls", "50 calls", f"{calls / 50:.2f}", "1.00")
    with tempfile.TemporaryDirectory() as name:
        path = made(Path(name), 100_000, 100_000)
        in_a_process(path, 100_000)
        rate, _, calls = in_a_process(path, 100_000)
        yield Figure("100,000 prompts, all cached", f"{rate:,.0f} rows/s, {calls} calls", "", "", "40,000 rows/s")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(through_gdo(options.inside, options.rows)))
        return
    show(figures(options.rows))


if __name__ == "__main__":
    main()

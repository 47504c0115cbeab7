"""100,000 and 1,000,000 rows of distinct prompts: the same rate and the same memory, however long the run.

    python benchmarks/steady.py [--rows N ...]

Through a server that answers at once, 64 in flight; each run in a fresh process, with a cache that begins empty.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parent))
from figure import Figure, show
from loopback import running
from wire_speed import OUTPUT, PROMPT, WINDOW

from gdo.api import Options, load


def one_run(url: str, size: int) -> tuple[float, float]:
    """Rows/s and the most memory in MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        query = f"SELECT 'product number ' || i || ', 500 ml bottle' AS title, 'ACME inc.' AS brand FROM range({size}) t(i)"
        duckdb.execute(f"COPY ({query}) TO '{folder}/in.parquet'")
        models = {"m": {"backend": "endpoint", "url": f"{url}/v1", "model": "loopback", "concurrency": WINDOW}}
        step = {"op": "map", "model": "m", "prompt": PROMPT, "output": OUTPUT["typed"]}
        spec = {"models": models, "source": {"path": "in.parquet"}, "steps": [step], "sink": {"path": "out.parquet"}}
        (folder / "pipeline.yaml").write_text(json.dumps(spec))
        started = time.perf_counter()
        run = load(folder / "pipeline.yaml").run(Options())
        seconds = time.perf_counter() - started
        assert run.report["map"]["calls"] == size
        assert run.report["map"]["errors"] == 0
    return size / seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def figures(sizes: Sequence[int] = (100_000, 1_000_000)) -> Iterator[Figure]:
    """The last size beside the first."""
    with running() as url:
        found = [
            json.loads(subprocess.check_output([sys.executable, __file__, "--inside", url, str(size)])) for size in sizes
        ]
    told = [f"{rate:,.0f} rows/s, {memory:,.0f} MB" for rate, memory in found]
    name = f"{sizes[-1]:,} rows beside {sizes[0]:,}"
    ratio = f"{found[-1][0] / found[0][0]:.2f}, {found[-1][1] - found[0][1]:+,.0f} MB"
    yield Figure(name, told[-1], f"{told[0]} (the shorter run)", ratio, "0.90, +100 MB")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        print(json.dumps(one_run(options.inside[0], int(options.inside[1]))))
        return
    show(figures(options.rows))


if __name__ == "__main__":
    main()

"""The Beam runner: a million rows beside Beam alone, and a slow server beside its own latency.

    python benchmarks/beam.py [--rows N] [--prompts N] [--rounds N]

Beam's local runner, in one process. The floor of the first figure is the same Beam pipeline (same reading, shuffles and
writing, over the same batches) whose step is a DoFn that hands its batches on; the step rewrites a column, so both write
tables of one shape. The sides alternate, each round in a fresh process, and the ratio is that of the medians. The second
sends 5,000 prompts to a server that takes 50 ms, 64 in flight: once from one bundle, once from eight bundles at a time of
small batches; its floor is calls x latency / window.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parent))
from distinct import made
from figure import Figure, show
from loopback import running
from wire_speed import WINDOW, pipeline, rows

from gdo.api import Options, load
from gdo.runners import beam_graph
from gdo.runners.beam import BeamRunner

LATENCY_S = 0.050
BUNDLES = ("--direct_running_mode=multi_threading", "--direct_num_workers=8")


class HandsOn(beam.DoFn):
    """The floor: what is fastest of all that a step could do."""

    def __init__(self, *_: object) -> None:
        super().__init__()

    def process(self, batch):
        yield batch


def one_side(folder: Path, side: str, size: int) -> float:
    """Seconds of one run, from the plan to the sink."""
    path = made(folder, size, 1_000)
    spec = json.loads(path.read_text())
    spec["steps"] = [{"op": "clean", "model": "fake", "column": "brand", "prompt": "Brand as entered: {{ brand }}"}]
    if side == "identity":
        beam_graph.Steps = HandsOn  # type: ignore[misc,assignment]
        BeamRunner._check_edges = lambda _: None  # type: ignore[method-assign]  # noqa: SLF001 (nobody counts there)
        spec["steps"] = [{"op": "sql", "query": "SELECT * FROM input WHERE true"}]  # never run: `HandsOn` stands for it
    path.write_text(json.dumps(spec))
    made_pipeline = load(path)
    started = time.perf_counter()
    run = made_pipeline.run(Options(runner="beam"))
    seconds = time.perf_counter() - started
    shards = sorted(folder.glob("out-*-of-*.parquet"))
    assert sum(pq.ParquetFile(shard).metadata.num_rows for shard in shards) == size
    if side == "gdo":
        assert run.report["clean"]["calls"] == 1_000
        assert pq.read_table(shards[-1], columns=["brand"]).column(0)[0].as_py().startswith("fake-")
    return seconds


def million(size: int, rounds: int) -> Iterator[Figure]:
    """The fake model beside a step that does nothing."""
    found: dict[str, list[float]] = {"gdo": [], "identity": []}
    for _ in range(rounds):
        for side, seconds in found.items():
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--inside", side, folder, "--rows", str(size)]
                seconds.append(float(subprocess.check_output(command, stderr=subprocess.DEVNULL)))
    gdo, identity = (statistics.median(found[side]) for side in ("gdo", "identity"))
    floor = f"{identity:.2f} s (the same, an identity DoFn)"
    yield Figure(f"{size:,} rows, 1,000 prompts", f"{gdo:.2f} s", floor, f"{gdo / identity:.2f}", "1.30")


def slow(prompts: int) -> Iterator[Figure]:
    """A server that takes its time."""
    floor = prompts * LATENCY_S / WINDOW
    for name, options, batch_rows in (("one bundle", (), None), ("8 bundles of batches of 16 rows", BUNDLES, 16)):
        with running("--latency-ms", LATENCY_S * 1000) as url, tempfile.TemporaryDirectory() as folder:
            step = load(pipeline(Path(folder), f"{url}/v1", "typed"), source=rows(prompts))
            started = time.perf_counter()
            run = step.run(Options(runner="beam", runner_options=options, batch_rows=batch_rows))
            seconds = time.perf_counter() - started
            assert run.report["map"]["calls"] == prompts
            assert run.errors().num_rows == 0
        told = f"{floor:.2f} s (calls x latency / window)"
        yield Figure(f"50 ms a call, {name}", f"{seconds:.2f} s", told, f"{seconds / floor:.2f}", "1.25")


def figures(size: int = 1_000_000, prompts: int = 5_000, rounds: int = 3) -> Iterator[Figure]:
    """Both."""
    yield from million(size, rounds)
    yield from slow(prompts)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--prompts", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inside", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        side, folder = options.inside
        print(one_side(Path(folder), side, options.rows))
        return
    show(figures(options.rows, options.prompts, options.rounds))


if __name__ == "__main__":
    main()

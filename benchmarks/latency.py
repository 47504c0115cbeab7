"""A server that takes its time: the wall clock of a run beside rows x latency / window.

    python benchmarks/latency.py [--rows N]

Once with 50 ms a call, and once with one call in a hundred taking 2 s; 64 requests in flight, a process for each side.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from figure import Figure, show
from loopback import running
from wire_speed import WINDOW, pipeline, rows

from gdo.api import Options, load

CASES = {"50 ms a call": (0, 0.050, "1.10"), "one call in 100 takes 2 s": (100, 0.99 * 0.050 + 0.01 * 2.0, "1.25")}


def wall_s(url: str, size: int) -> float:
    """Seconds of a whole run."""
    with tempfile.TemporaryDirectory() as folder:
        made = load(pipeline(Path(folder), f"{url}/v1", "typed"), source=rows(size))
        started = time.perf_counter()
        run = made.run(Options())
        seconds = time.perf_counter() - started
        assert run.table().num_rows == size
        assert run.errors().num_rows == 0
    return seconds


def figures(size: int = 10_000) -> Iterator[Figure]:
    """The wall clock beside what the latency alone takes."""
    for name, (slow_every, mean_s, asked) in CASES.items():
        with running("--latency-ms", 50, "--slow-every", slow_every) as url:
            seconds = wall_s(url, size)
        floor = size * mean_s / WINDOW
        yield Figure(name, f"{seconds:.2f} s", f"{floor:.2f} s (rows x latency / window)", f"{seconds / floor:.2f}", asked)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_000)
    show(figures(parser.parse_args().rows))


if __name__ == "__main__":
    main()

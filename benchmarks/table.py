"""Every figure of speed in one table, each beside its floor in the same run: `make bench`.

    python benchmarks/table.py
"""

import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import distinct
import latency
import sql
import steady
import wire_speed
from figure import show

if __name__ == "__main__":
    figures = (module.figures() for module in (wire_speed, latency, distinct, sql, steady))
    show(itertools.chain.from_iterable(figures))

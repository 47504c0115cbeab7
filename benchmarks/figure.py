"""A figure of a benchmark: what was measured beside its floor, in one run."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """`ratio` is measured over floor; `asked` is what the project holds itself to."""

    name: str
    measured: str
    floor: str
    ratio: str
    asked: str


HEADER = Figure("figure", "gdo", "floor, in the same run", "ratio", "asked")


def show(figures: Iterable[Figure]) -> None:
    """Print figures as a table."""
    rows = [(f.name, f.measured, f.floor, f.ratio, f.asked) for f in (HEADER, *figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

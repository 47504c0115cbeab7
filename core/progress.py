"""What a user sees of a run: progress on standard error while it works, a summary at its end."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from gdo.ledger import Ledger, StepCount
from gdo.op import Operator
from gdo.plan import Plan

if TYPE_CHECKING:
    from rich.table import Table

TERMINAL_S = 0.2
PIPE_S = 10.0


class Progress:
    """Tells how far a run is: a live table in a terminal, a line every ten seconds in a pipe, nothing when quiet."""

    def __init__(self, plan: Plan, ledger: Ledger, stream: TextIO | None = None, *, quiet: bool = False) -> None:
        self._plan = plan
        self._ledger = ledger
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._done = threading.Event()
        self._started = time.monotonic()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show progress while the body runs."""
        if self._quiet:
            yield
            return
        work = self._live if self._stream.isatty() else self._lines
        thread = threading.Thread(target=work, name="gdo-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def tell(self, text: str) -> None:
        """A message on its own line."""
        if not self._quiet:
            print(text, file=self._stream, flush=True)

    def _live(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(file=self._stream)
        with Live(self._table(), console=console, refresh_per_second=4, transient=True) as live:
            while not self._done.wait(TERMINAL_S):
                live.update(self._table())

    def _lines(self) -> None:
        while not self._done.wait(PIPE_S):
            parts = []
            for node in self._plan.nodes:
                count = self._ledger.steps.get(node.id)
                if count and (count.asked or count.rows_in):
                    calls, cached, tokens, errors, pace = _cells(count, node.op)
                    said = f"{calls} calls, {cached} cached, {tokens} tokens, {errors} errors"
                    parts.append(f"{node.id} {self._amount(count, node.op)}, {said}{pace and f', {pace}'}")
            left = self._left()
            self.tell(f"[{time.monotonic() - self._started:.0f} s{left and f', about {left} left'}] {'; '.join(parts)}")

    def _table(self) -> "Table":
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="dim")
        for name in ("step", "rows", "calls", "cached", "tokens", "errors", "rate"):
            table.add_column(name, justify="left" if name == "step" else "right")
        for node in self._plan.nodes:
            count = self._ledger.steps.get(node.id) or StepCount()
            table.add_row(node.id, self._amount(count, node.op), *_cells(count, node.op))
        left = self._left()
        table.caption = f"{time.monotonic() - self._started:.0f} s{left and f', about {left} left'}"
        return table

    def _amount(self, count: StepCount, op: Operator) -> str:
        total = self._total()
        done = _done(count, op)
        return f"{done:,}" if total is None else f"{min(done, total):,}/{total:,}"

    def _total(self) -> int | None:
        totals = [count.total for count in list(self._ledger.steps.values()) if count.total is not None]
        return max(totals) if totals else None

    def _left(self) -> str:
        """An estimate: rows that every asking step still has before it, at the pace so far.

        How many rows reach a step is reckoned from what the steps before it have let through.
        """
        expected = float(self._total() or 0)
        done = wanted = 0.0
        for node in self._plan.nodes:
            count = self._ledger.steps.get(node.id) or StepCount()
            if node.op.asks:
                wanted += expected
                done += min(_done(count, node.op), expected)
            if count.rows_in:
                expected *= count.rows_out / count.rows_in
        if not wanted or done < wanted / 20:
            return ""
        return clock((time.monotonic() - self._started) * (wanted - done) / done)


def _done(count: StepCount, op: Operator) -> int:
    """Rows that a step is done with; while its first batches are under way, those whose prompts were answered."""
    return max(count.rows_in, (count.calls + count.cached) // max(len(op.prompts()), 1))


def _cells(count: StepCount, op: Operator) -> tuple[str, ...]:
    seconds = count.ended - count.started
    pace = f"{_done(count, op) / seconds:,.1f}/s" if seconds > 0.2 else ""  # noqa: PLR2004
    tokens = count.prompt_tokens + count.completion_tokens
    return f"{count.calls:,}", f"{count.cached:,}", f"{tokens:,}", f"{count.errors:,}", pace


def clock(seconds: float) -> str:
    """Seconds as a person reads them.

    >>> clock(75), clock(4000)
    ('1 min 15 s', '1 h 6 min')
    """
    whole = round(seconds)
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def summary(plan: Plan, ledger: Ledger, seconds: float, word: str = "done") -> str:
    """The table at the end of a run."""
    header = ("step", "rows in", "rows out", "rejected", "calls", "cached", "tokens", "errors", "seconds")
    rows: list[tuple[str, ...]] = [header]
    for node in plan.nodes:
        c = ledger.steps.get(node.id) or StepCount()
        tokens = c.prompt_tokens + c.completion_tokens
        numbers = (c.rows_in, c.rows_out, c.rejected, c.calls, c.cached, tokens, c.errors)
        rows.append((node.id, *(f"{n:,}" for n in numbers), f"{c.ended - c.started:.1f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join([*lines, f"{word} in {clock(seconds)}"])

"""Errors and calls of a run on this machine, written down as they happen: a run that fails leaves them, too.

Each process writes a file of its own in a folder of the run's; one that is killed leaves what it had written.
"""

import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from gdo.errors import RunFailed
from gdo.ledger import Call, Failure, Ledger
from gdo.runfolder import error_row
from gdo.runners.beam_desk import Tally


class Notes:
    """The records of one process; safe to use from several threads."""

    def __init__(self, folder: str) -> None:
        self._path = Path(folder) / f"{secrets.token_hex(8)}.jsonl"
        self._lock = threading.Lock()

    def errors(self, step: str, failures: Sequence[tuple[int, Failure]]) -> None:
        """Note rows (by their number) that a step could not answer."""
        self._write("errors", [error_row(row, step, failure) for row, failure in failures])

    def calls(self, calls: Sequence[Call]) -> None:
        """Note requests made, or found in the cache."""
        self._write("calls", [tuple(call) for call in calls])

    def learned(self, step: str, text: str, save: Path | None) -> None:
        """A worker learns nothing by itself."""

    def _write(self, kind: str, rows: list[tuple[object, ...]]) -> None:
        if not rows:
            return
        line = orjson.dumps((kind, rows), option=orjson.OPT_APPEND_NEWLINE)
        try:
            with self._lock, self._path.open("ab") as file:
                file.write(line)
        except OSError as error:
            raise RunFailed(f"{self._path}: cannot be written: {error} (free some space and run again)") from None


def take(folder: Path, ledger: Ledger) -> Tally:
    """Put what was noted into the records of the run, once; what it comes to."""
    sums = Tally(notes=ledger.records)
    for kind, rows in _lines(folder):
        if kind == "calls":
            calls = [Call(*row) for row in rows]
            ledger.records.calls(calls)
            sums.take(calls)
        else:
            sums.failed(rows[0][1], [(row, Failure(*failure)) for row, _, *failure in rows])
    ledger.reasons |= sums.reasons
    return sums


def _lines(folder: Path) -> Iterator[tuple[str, list[Any]]]:
    for path in folder.glob("*.jsonl"):
        with path.open("rb") as file:
            yield from (orjson.loads(line) for line in file if line.endswith(b"\n"))  # else its writer was killed
        path.unlink()

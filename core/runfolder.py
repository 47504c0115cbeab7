"""What a run leaves behind: `.gdo/runs/<id>/` with errors.parquet, calls.parquet and run.json."""

import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet

from gdo.errors import RunFailed
from gdo.ledger import Call, Failure

ERRORS = pa.schema(
    [
        ("row_key", pa.int64()),
        ("step", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("prompt", pa.string()),
        ("raw_reply", pa.string()),
        ("attempts", pa.int32()),
    ]
)
CALLS = pa.schema(
    [
        ("step", pa.string()),
        ("model", pa.string()),
        ("prompt_tokens", pa.int32()),
        ("completion_tokens", pa.int32()),
        ("latency_s", pa.float64()),
        ("cached", pa.bool_()),
        ("attempts", pa.int32()),
        ("error", pa.string()),
    ]
)
_BUFFER = 10_000
_LONGEST = 20_000
"""Characters of a prompt or a raw reply that the errors table keeps."""


class _Log:
    """Rows of one parquet file, written a row group at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._path = path
        self._beside = path.with_name(f"{path.name}.part")
        self._writer = pyarrow.parquet.ParquetWriter(str(self._beside), schema, compression="zstd")
        self._rows: list[tuple[object, ...]] = []
        self._lock = threading.Lock()

    def add(self, rows: Sequence[tuple[object, ...]]) -> None:
        with self._lock:
            self._rows += rows
            if len(self._rows) >= _BUFFER:
                self._flush()

    def close(self) -> None:
        with self._lock:
            self._flush()
            self._writer.close()
            self._beside.replace(self._path)  # a reader of all runs never meets half a table

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
            self._writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema))
            self._rows = []


class RunFolder:
    """The folder of one run; receives its errors and calls as they happen.

    `row_key` is the number of the row (from 0) in the table that the step's chain began with: the source, or the last
    step that made new rows. `hide` takes values of the environment out of every text that is kept.

    Raises:
        RunFailed: the folder cannot be made.
    """

    def __init__(self, parent: Path, hide: Callable[[str], str] = str) -> None:
        self._hide = hide
        self.id = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        self.path = parent / self.id
        self._began = datetime.now(UTC).isoformat(timespec="seconds")
        self._started = time.monotonic()  # the clock may be set while it runs
        try:
            self.path.mkdir(parents=True)
            self._running = self.path / "running"
            self._running.write_text(f"{socket.gethostname()} {os.getpid()}", encoding="utf-8")
            sweep(parent)
            self._errors = _Log(self.path / "errors.parquet", ERRORS)
            self._calls = _Log(self.path / "calls.parquet", CALLS)
        except OSError as error:
            raise RunFailed(f"{self.path}: the run folder cannot be made: {error}") from None

    def leaves(self, parts: Sequence[Path]) -> None:
        """Note which half files a run that is killed would leave elsewhere."""
        with self._running.open("a", encoding="utf-8") as marker:
            marker.writelines(f"\n{part.absolute()}" for part in parts)

    def errors(self, step: str, failures: Sequence[tuple[int, Failure]]) -> None:
        """Write down rows that a step could not answer."""
        self._errors.add([error_row(row, step, failure, self._hide) for row, failure in failures])

    def calls(self, calls: Sequence[Call]) -> None:
        """Write down requests made, or found in the cache."""
        self._calls.add(calls)

    def learned(self, step: str, text: str, save: Path | None) -> None:
        """Write down what a step learned: as `<step>.json`, and where its user wants it.

        Raises:
            RunFailed: the user's file cannot be written.
        """
        (self.path / f"{step}.json").write_text(text, encoding="utf-8")
        if save is None:
            return
        beside = save.with_name(f".{save.name}.{self.id}.part")
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(save)
        except OSError as error:
            raise RunFailed(f"step '{step}': '{save}' cannot be written: {error.strerror}") from None

    def close(self, facts: Mapping[str, object]) -> None:
        """Finish the tables and write run.json."""
        self._errors.close()
        self._calls.close()
        whole = {
            "id": self.id, "started": self._began, "seconds": round(time.monotonic() - self._started, 3), **facts
        }  # fmt: skip
        text = orjson.dumps(whole, option=orjson.OPT_INDENT_2, default=str).decode()
        (self.path / "run.json").write_text(f"{self._hide(text)}\n", encoding="utf-8")
        self._running.unlink(missing_ok=True)


def error_row(row: int, step: str, failure: Failure, hide: Callable[[str], str] = str) -> tuple[object, ...]:
    """A failure as a row of the errors table."""
    texts = (failure.detail, failure.prompt, failure.raw_reply)
    detail, prompt, reply = (hide(text[:_LONGEST]) for text in texts)
    return (row, step, failure.reason, detail, prompt, reply, failure.attempts)


def sweep(parent: Path) -> None:
    """Remove what runs of this machine that were killed have left in their folders: spilled rows and half tables."""
    for marker in parent.glob("*/running"):
        first, *parts = marker.read_text(encoding="utf-8").splitlines() or [""]
        host, _, process = first.partition(" ")
        if host != socket.gethostname() or not process.isdigit() or _lives(int(process)):
            continue
        beside = [path for path in map(Path, parts) if path.name.endswith(".part")]
        for left in (*beside, *marker.parent.glob("spill.*"), *marker.parent.glob("*.part"), marker):
            remove(left)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True

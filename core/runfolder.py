"""What a run leaves behind: `.gdo/runs/<id>/` with errors.parquet, calls.parquet and run.json."""

import contextlib
import operator
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import orjson
import pyarrow as pa
import pyarrow.parquet

from gdo.claims import here, is_gone
from gdo.database import connect, literal, quote
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
MARKER = "running"
_BUFFER = 10_000
_LONGEST = 20_000
"""Characters of a prompt or a raw reply that the errors table keeps."""


class _Log:
    """Rows of one parquet file, written a row group at a time; in the end they are put into the order of some columns."""

    def __init__(self, path: Path, schema: pa.Schema, order: Sequence[str] = ()) -> None:
        self.schema = schema
        self._path = path
        self._order = order
        self._beside = path.with_name(f"{path.name}.part")
        self._writer = self._open(self._beside)
        self._rows: list[tuple[object, ...]] = []
        self._flushed = False
        self._lock = threading.Lock()

    def _open(self, path: Path) -> pyarrow.parquet.ParquetWriter:
        return pyarrow.parquet.ParquetWriter(str(path), self.schema, compression="zstd")

    def add(self, rows: Sequence[tuple[object, ...]]) -> None:
        with self._lock:
            self._rows += rows
            if len(self._rows) >= _BUFFER:
                self._flush()

    def close(self) -> None:
        with self._lock:
            if self._order and not self._flushed:
                places = [self.schema.get_field_index(name) for name in self._order]
                self._rows.sort(key=operator.itemgetter(*places))
            self._flush()
            try:
                self._writer.close()
                if self._order and self._flushed:
                    self._sort()
                self._beside.replace(self._path)  # a reader of all runs never meets half a table
            except OSError as error:
                raise RunFailed(_refused(self._path, error)) from None

    def _flush(self) -> None:
        if self._rows:
            columns = zip(*self._rows, strict=True)
            arrays = [pa.array(column, field.type) for column, field in zip(columns, self.schema, strict=True)]
            try:
                self._writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema))
            except OSError as error:
                raise RunFailed(_refused(self._path, error)) from None
            self._flushed |= len(self._rows) >= _BUFFER
            self._rows = []

    def _sort(self) -> None:
        """Sort what may be larger than the memory: DuckDB does it in the folder."""
        sorted_ = self._beside.with_name(f"sorted.{self._beside.name}")
        with pyarrow.parquet.ParquetFile(self._beside) as file, connect() as connection:
            connection.execute(f"SET temp_directory = {literal(str(self._beside.with_suffix('.tmp')))}")
            rows = pa.RecordBatchReader.from_batches(self.schema, file.iter_batches())
            connection.register("rows", rows)
            order = ", ".join(map(quote, self._order))
            with self._open(sorted_) as writer:
                for batch in connection.sql(f"SELECT * FROM rows ORDER BY {order}").to_arrow_reader(_BUFFER):
                    writer.write_batch(batch.cast(self.schema))
        sorted_.replace(self._beside)


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
            self._running = _mark(self.path)
            sweep(parent)
            self._errors = _Log(self.path / "errors.parquet", ERRORS, ("step", "row_key", "detail"))
            self._calls = _Log(self.path / "calls.parquet", CALLS)
        except OSError as error:
            raise RunFailed(f"{self.path}: the run folder cannot be made: {error}") from None

    def leaves(self, parts: Sequence[Path]) -> None:
        """Note which half files a run that is killed would leave elsewhere."""
        self._running.writelines(f"{part.absolute()}\n" for part in parts)
        self._running.flush()

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
        own = self.path / f"{step}.json"
        try:
            own.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RunFailed(_refused(own, error)) from None
        if save is None:
            return
        beside = save.with_name(f".{save.name}.{self.id}.part")
        self.leaves([beside])
        try:
            beside.write_text(text, encoding="utf-8")
            beside.replace(save)
        except OSError as error:
            raise RunFailed(f"step '{step}': '{save}' cannot be written: {error.strerror}") from None

    def close(self, facts: Mapping[str, object]) -> None:
        """Finish the tables and write run.json.

        Raises:
            RunFailed: the disk refused one of them; the others are there.
        """
        with self._running:
            with contextlib.ExitStack() as last:  # each of them, whatever becomes of the others
                last.callback(self._write, facts)
                last.callback(self._calls.close)
                last.callback(self._errors.close)
            (self.path / MARKER).unlink(missing_ok=True)

    def _write(self, facts: Mapping[str, object]) -> None:
        whole = {
            "id": self.id, "started": self._began, "seconds": round(time.monotonic() - self._started, 3), **facts
        }  # fmt: skip
        text = orjson.dumps(whole, option=orjson.OPT_INDENT_2, default=str).decode()
        try:
            (self.path / "run.json").write_text(f"{self._hide(text)}\n", encoding="utf-8")
        except OSError as error:
            raise RunFailed(_refused(self.path / "run.json", error)) from None


def _refused(path: Path, error: OSError) -> str:
    return f"{path}: cannot be written: {error} (free some space and run again)"


def _mark(folder: Path) -> TextIO:
    """The file that says that a run lives: as long as it is open it is locked, which ends with the process however it ends."""
    new = folder / f"{MARKER}.new"
    marker = new.open("w", encoding="utf-8")
    _lock(marker)
    marker.write(f"{here()}\n")
    marker.flush()
    new.rename(folder / MARKER)  # nobody finds it before it is locked
    return marker


def _lock(marker: TextIO) -> bool | None:
    """Whether a file is now ours alone; None where files cannot be locked."""
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    try:
        fcntl.flock(marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def error_row(row: int, step: str, failure: Failure, hide: Callable[[str], str] = str) -> tuple[object, ...]:
    """A failure as a row of the errors table."""
    texts = (failure.detail, failure.prompt, failure.raw_reply)
    detail, prompt, reply = (hide(text[:_LONGEST]) for text in texts)
    return (row, step, failure.reason, detail, prompt, reply, failure.attempts)


def sweep(parent: Path) -> None:
    """Remove what runs that were killed have left in their folders and beside their sinks: spilled rows and half files."""
    for path in parent.glob(f"*/{MARKER}"):
        with contextlib.suppress(FileNotFoundError), path.open("r+", encoding="utf-8") as marker:
            ours = _lock(marker)
            first, *parts = marker.read().splitlines() or [""]
            if ours is False or (ours is None and not is_gone(first)):
                continue
            beside = [part for part in map(Path, parts) if ".part" in part.suffixes]
            for left in (*beside, *leftovers(path.parent)):
                remove(left)


def leftovers(folder: Path) -> list[Path]:
    """What a run that is left in the middle leaves in its folder."""
    return [*folder.glob("spill.*"), *folder.glob("*.part"), *folder.glob("*.parquet.tmp"), folder / MARKER]


def remove(left: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if left.is_dir() and not left.is_symlink():
        shutil.rmtree(left, ignore_errors=True)
    else:
        left.unlink(missing_ok=True)

"""What a run leaves behind: `.gdo/runs/<id>/` with errors.parquet, calls.parquet and run.json."""

import secrets
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
        self._writer = pyarrow.parquet.ParquetWriter(str(path), schema, compression="zstd")
        self._rows: list[dict[str, object]] = []
        self._lock = threading.Lock()

    def add(self, rows: Sequence[dict[str, object]]) -> None:
        with self._lock:
            self._rows += rows
            if len(self._rows) >= _BUFFER:
                self._flush()

    def close(self) -> None:
        with self._lock:
            self._flush()
            self._writer.close()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self.schema))
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
        self._started = time.time()
        try:
            self.path.mkdir(parents=True)
            self._errors = _Log(self.path / "errors.parquet", ERRORS)
            self._calls = _Log(self.path / "calls.parquet", CALLS)
        except OSError as error:
            raise RunFailed(f"{self.path}: the run folder cannot be made: {error}") from None

    def errors(self, step: str, failures: Sequence[tuple[int, Failure]]) -> None:
        """Write down rows that a step could not answer."""
        self._errors.add(
            [
                {
                    "row_key": row,
                    "step": step,
                    "reason": failure.reason,
                    "detail": self._hide(failure.detail[:_LONGEST]),
                    "prompt": self._hide(failure.prompt[:_LONGEST]),
                    "raw_reply": self._hide(failure.raw_reply[:_LONGEST]),
                    "attempts": failure.attempts,
                }
                for row, failure in failures
            ]
        )

    def calls(self, calls: Sequence[Call]) -> None:
        """Write down requests made, or found in the cache."""
        self._calls.add(
            [
                {
                    "step": call.step,
                    "model": call.model,
                    "prompt_tokens": call.prompt_tokens,
                    "completion_tokens": call.completion_tokens,
                    "latency_s": call.latency_s,
                    "cached": call.cached,
                    "attempts": call.attempt,
                    "error": call.error,
                }
                for call in calls
            ]
        )

    def close(self, facts: Mapping[str, object]) -> None:
        """Finish the tables and write run.json."""
        self._errors.close()
        self._calls.close()
        whole = {"id": self.id, "started": self._started, "seconds": round(time.time() - self._started, 3), **facts}
        text = orjson.dumps(whole, option=orjson.OPT_INDENT_2, default=str).decode()
        (self.path / "run.json").write_text(f"{self._hide(text)}\n", encoding="utf-8")

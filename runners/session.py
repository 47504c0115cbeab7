"""What SQL functions ask through: one desk, one ledger and one run folder, from the first question until they are closed."""

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from gdo.answers import Answers
from gdo.ask import ROW
from gdo.backend import Backend
from gdo.cache import HOME, NAME, Cache
from gdo.collector import rare_collections
from gdo.desk import Desk
from gdo.distinct import Distinct
from gdo.errors import GdoError
from gdo.ledger import Call, Failure, Ledger, Unrecorded
from gdo.op import put_column
from gdo.progress import Progress, Since
from gdo.prompted import Compiled
from gdo.runfolder import ERRORS, RunFolder
from gdo.runners.flight import IN_FLIGHT, in_order
from gdo.runners.function import Function
from gdo.runners.known import Known
from gdo.version import __version__

MAX_ROWS = 2048
LONG_S = 2.0
"""Progress of a query that is quicker would only flash by."""
KEPT = 100_000
"""Failures that can be read before the folder is whole."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be asked: rows whose answers go where they are known, and the arguments that are the same for each."""

    function: Function
    known: Known
    rows: pa.RecordBatch
    settled: Mapping[str, object]

    def whole(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        """Some of the rows with all arguments."""
        for place, value in self.settled.items():
            listed = list(value) if isinstance(value, tuple) else value
            rows = rows.append_column(place, pa.array([listed] * rows.num_rows))
        return rows


@dataclass(frozen=True, slots=True)
class Means:
    """What functions have to ask with."""

    models: Mapping[str, Backend]
    folder: Path
    cache: bool = True
    max_calls: int | None = None
    max_tokens: int | None = None
    on_error: str = "keep"
    tell: Callable[[str], None] = lambda _: None
    hide: Callable[[str], str] = str


class _Kept(Unrecorded):
    """Writes errors and calls into a run folder, and keeps the first errors at hand."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.failures: list[tuple[int, str, Failure]] = []

    def errors(self, step: str, failures: Sequence[tuple[int, Failure]]) -> None:
        """Rows (by their number) that a function could not answer."""
        room = max(0, KEPT - len(self.failures))
        self.failures += [(row, step, failure) for row, failure in failures[:room]]
        self.folder.errors(step, failures)

    def calls(self, calls: Sequence[Call]) -> None:
        """Requests made, or found in the cache."""
        self.folder.calls(calls)


@dataclass(frozen=True, slots=True)
class _Open:
    """What is there once something was asked."""

    desk: Desk
    folder: RunFolder
    kept: _Kept
    ledger: Ledger


class Session:
    """The functions that one `gdo.register` made; a context manager that closes them.

    Nothing is opened before the first question. After `close` the next question opens a new run folder.
    """

    def __init__(self, means: Means) -> None:
        self.means = means
        self.names: list[str] = []
        """What the functions are called in SQL."""
        self.fault: BaseException | None = None
        """What the last call raised: DuckDB hands on no more than its words."""
        self.queries: list[str] = []
        self._lock = threading.Lock()
        self._opened: _Open | None = None
        self._latest: _Open | None = None
        self._asked_rows = 0

    def __repr__(self) -> str:
        return f"<gdo functions {', '.join(self.names)}>"

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> Path | None:
        """The run folder of what was asked last; None before the first question."""
        return self._latest.folder.path if self._latest else None

    @property
    def ledger(self) -> Ledger | None:
        """The totals of what was asked last; None before the first question."""
        return self._latest.ledger if self._latest else None

    @property
    def report(self) -> dict[str, dict[str, object]]:
        """The totals by function: calls, cached, tokens, errors."""
        return self._latest.ledger.facts() if self._latest else {}

    def errors(self) -> pa.Table:
        """The inputs that were not answered: row_key, step, reason, detail, prompt, raw_reply, attempts.

        `step` is the function, `detail` names the input; `row_key` counts the inputs that were asked.
        """
        failures = self._latest.kept.failures if self._latest else []
        rows = [(row, step, f.reason, f.detail, f.prompt, f.raw_reply, f.attempts) for row, step, f in failures]
        columns = list(zip(*rows, strict=True)) or [()] * len(ERRORS)
        arrays = [pa.array(column, part.type) for column, part in zip(columns, ERRORS, strict=True)]
        return pa.Table.from_arrays(arrays, schema=ERRORS)

    def close(self) -> None:
        """Let the models go, and finish the run folder."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is None:
            return
        opened.desk.__exit__(None, None, None)
        facts = {"pipeline": "SQL", "gdo": __version__, "outcome": "done", "message": "", "sinks": []}
        opened.folder.close({**facts, "plan": self.queries, "steps": opened.ledger.facts()})

    def open(self) -> Desk:
        """The desk, opened if it is not.

        Raises:
            RunFailed: there can be no run folder here.
        """
        with self._lock:
            if self._opened is None:
                home = self.means.folder / HOME
                folder = RunFolder(home / "runs", self.means.hide)
                kept = _Kept(folder)
                ledger = Ledger(kept, max_calls=self.means.max_calls, max_tokens=self.means.max_tokens)
                cache = Cache(home / NAME) if self.means.cache else None
                desk = Desk(self.means.models, self.means.folder, ledger, cache, self.means.tell).__enter__()
                self._opened = self._latest = _Open(desk, folder, kept, ledger)
            return self._opened.desk

    @contextmanager
    def shown(self, names: Iterable[str], *, quiet: bool) -> Iterator[None]:
        """Progress of some functions on standard error while the body runs, once it takes long."""
        self.open()
        assert self._opened is not None  # noqa: S101 (just opened)
        with Progress(dict.fromkeys(names, True), Since(self._opened.ledger), quiet=quiet, after_s=LONG_S).shown():
            yield

    # Questions

    def answer(self, function: Function, columns: Sequence[pa.Array]) -> pa.Array:
        """The answers to the arguments of a call; each distinct row is asked once.

        Raises:
            Faults, ModelUnready, RunFailed: nothing can be asked, or a failure under `on_error='fail'`.
        """
        rows = function.flat(
            pa.RecordBatch.from_arrays(list(columns), names=[str(place) for place in range(len(columns))])
        )
        distinct = Distinct.of(rows, rows.schema.names)
        return distinct.spread(self.ask(function, distinct.rows))

    def ask(self, function: Function, rows: pa.RecordBatch) -> pa.Array:
        """The answers to rows that are distinct; raises as `answer` does."""
        try:
            return self._asked(function, rows)
        except BaseException as error:
            self.fault = error
            self._renew()
            raise

    def fill(self, questions: Sequence[Question]) -> None:
        """Ask rows of several functions in one stream, and keep their answers where each belongs.

        An interrupt sends nothing more, and what was answered is in the cache.
        """
        desk = self.open()
        for question in questions:
            count = desk.ledger.step(question.function.name)
            count.total = (count.total or 0) + question.rows.num_rows
        pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="gdo-sql")

        def settle(piece: tuple[Question, int]) -> None:
            question, start = piece
            rows = question.rows.slice(start, MAX_ROWS)
            question.known.add(rows, self._asked(question.function, question.whole(rows)))
            desk.ledger.add(question.function.name, rows_in=rows.num_rows, rows_out=rows.num_rows)

        pieces = ((question, start) for question in questions for start in range(0, question.rows.num_rows, MAX_ROWS))
        try:
            # Where a failure ends the query, nothing more is under way than what may fail.
            with rare_collections():
                for _ in in_order(pool, settle, pieces, 1 if self.means.on_error == "fail" else IN_FLIGHT):
                    pass
        except BaseException as error:
            self.fault = error
            if not isinstance(error, GdoError):
                desk.stop()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self._renew()

    def _asked(self, function: Function, rows: pa.RecordBatch) -> pa.Array:
        desk = self.open()

        def asking(called: Function, op: Compiled, batch: pa.RecordBatch) -> Answers:
            with self._lock:
                start = self._asked_rows
                self._asked_rows += batch.num_rows
            numbers = pa.array(range(start, start + batch.num_rows), pa.int64())
            ask = desk.ask(called.name, op)
            ask.named = lambda row: f"input {_shown(batch, row - start)}"
            return ask(op.compiled, put_column(batch, ROW, numbers))

        return function.answer(rows, asking)

    def _renew(self) -> None:
        if self._opened is not None:
            self._opened.desk.renew()


def _shown(batch: pa.RecordBatch, row: int) -> str:
    values = {name: batch.column(name)[row].as_py() for name in batch.schema.names if name != ROW}
    return json.dumps(values, ensure_ascii=False, default=str)

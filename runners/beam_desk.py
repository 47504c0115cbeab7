"""Where the steps of a Beam run ask: the desk of this process, or the one that all processes of a machine share.

Counts go the other way: each batch has a tally of its own, so that what a bundle gives up is not counted twice.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from gdo.ask import Answering, Ask, Memos
from gdo.backend import Backend, resolve
from gdo.cache import Store
from gdo.caller import Caller
from gdo.desk import Desk, policy_of
from gdo.errors import GdoError
from gdo.ledger import Call, Failure, Ledger, Records
from gdo.model import Model, Reply, Request
from gdo.op import Operator
from gdo.plan import model_name
from gdo.rediscache import open_store

THREADS = 64
"""Batches that a process works on at once, over all bundles."""


@dataclass(frozen=True, slots=True)
class DeskSpec:
    """What a worker needs to know to find or open the desk of a run; it travels with the job."""

    run_id: str
    models: Mapping[str, Backend]
    folder: Path
    cache: str | None
    """A file or a URL; none keeps no reply."""
    max_calls: int | None = None
    max_tokens: int | None = None
    notes: str = ""
    """The folder in which the processes of a run on this machine alone note errors and calls; else they go with the rows."""
    launched: bool = True
    """Whether gdo's launcher waits for the end; not so in a user's own pipeline."""


@dataclass(slots=True)
class Kept:
    """The errors and calls of one batch, until they leave it with its rows."""

    failures: list[tuple[str, int, Failure]] = field(default_factory=list)
    requests: list[Call] = field(default_factory=list)

    def errors(self, step: str, failures: Sequence[tuple[int, Failure]]) -> None:
        """Rows (by their number) that a step could not answer."""
        self.failures += ((step, row, failure) for row, failure in failures)

    def calls(self, calls: Sequence[Call]) -> None:
        """Requests made, or found in the cache."""
        self.requests += calls

    def learned(self, step: str, text: str, save: Path | None) -> None:
        """A batch learns nothing by itself."""


class Tally(Ledger):
    """The counts of one batch; what it may spend is for the ledger of the whole run to say.

    Errors and calls go to `notes`, or are kept until they leave with the rows.
    """

    def __init__(self, whole: Ledger | None = None, notes: Records | None = None) -> None:
        self.kept = Kept()
        super().__init__(notes or self.kept)
        self._whole = whole

    def add(self, name: str, **amounts: int) -> None:
        """Add to the totals of a step, here and in the whole."""
        super().add(name, **amounts)
        if self._whole is not None:
            self._whole.add(name, **amounts)

    def spend_call(self) -> str:
        """Take one call from the budget of the whole."""
        return self._whole.spend_call() if self._whole is not None else super().spend_call()

    def spent(self, call: Call) -> None:
        """Count a request that reached a model, here and in the whole."""
        super().spent(call)
        if self._whole is not None:
            self._whole.spent(call)

    def take(self, calls: Sequence[Call]) -> None:
        """Count requests that were made elsewhere on the machine, and are noted there if they are to be."""
        made = [call for call in calls if not call.cached]
        if len(made) < len(calls):
            self.add(calls[0].step, cached=len(calls) - len(made))
        for call in made:
            self.spent(call)
        if self.records is self.kept:
            self.kept.calls(calls)


class Counter(Protocol):
    """Answers the processes of a run: in this one, or across the machine."""

    def answering(self, name: str, tally: Tally) -> Answering:
        """A model, its calls counted in a tally."""

    @property
    def whole(self) -> Ledger | None:
        """The ledger of the run, where it is in this process."""

    def close(self) -> None:
        """Nobody asks any more."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A model of this process's desk, with its calls counted in the tally of one batch."""

    caller: Caller
    tally: Tally

    @property
    def model(self) -> Model:
        """The caller's model."""
        return self.caller.model

    def replies(self, step: str, requests: Sequence[Request], order: int = 0) -> list[Reply]:
        """The caller's replies."""
        return self.caller.replies(step, requests, order, self.tally)

    def halt(self, cause: GdoError) -> None:
        """Send nothing more."""
        self.caller.halt(cause)


@dataclass(frozen=True, slots=True)
class Here:
    """The desk of this process."""

    desk: Desk

    def answering(self, name: str, tally: Tally) -> Answering:
        """A model, its calls counted in a tally."""
        return Counted(self.desk.caller(name), tally)

    @property
    def whole(self) -> Ledger | None:
        """The desk's ledger."""
        return self.desk.ledger

    def close(self) -> None:
        """The desk is the launcher's."""


class WorkerDesk:
    """What all bundles of a run in this process share: the way to the models, what was answered lately, the threads."""

    def __init__(self, counter: Counter, notes: Records | None = None) -> None:
        self.counter = counter
        self.notes = notes
        self.pool = ThreadPoolExecutor(THREADS, thread_name_prefix="gdo-batch")
        self.memos: dict[str, Memos] = {}

    def batch(self) -> "BatchDesk":
        """What one batch asks by."""
        return BatchDesk(self, Tally(self.counter.whole, self.notes))

    def close(self, *, wait: bool = False) -> None:
        """Let the threads go; `wait` for what is in flight."""
        self.pool.shutdown(wait=wait, cancel_futures=True)
        self.counter.close()


@dataclass(frozen=True, slots=True)
class BatchDesk:
    """The desk as one batch sees it: its counts are its own."""

    worker: WorkerDesk
    ledger: Tally

    def ask(self, step: str, op: Operator) -> Ask:
        """What a step asks by, for this batch."""

        def find(name: str) -> Answering:
            return self.worker.counter.answering(name, self.ledger)

        memos = self.worker.memos.setdefault(step, {})
        return Ask(step, model_name(op), find, self.ledger, policy_of(op), memos)


def open_cache(spec: DeskSpec) -> Store | None:
    """The cache of a worker: the file of the pipeline's folder, or one of this machine's where that is not here."""
    place = spec.cache
    if place is not None and "://" not in place and not spec.folder.is_dir():
        place = str(Path(tempfile.gettempdir()) / f"gdo-{os.getuid()}" / Path(place).name)
    return open_store(place)


def unstarted(spec: DeskSpec, name: str) -> Model:
    """A model that another process runs, for what it says of itself."""
    return resolve(name, dict(spec.models)).build(spec.folder)

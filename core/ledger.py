"""What a run counts while it works: rows, calls, tokens and errors of each step."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

Reason = Literal[
    "empty_prompt",  # the prompt rendered to nothing
    "template",  # the prompt could not be rendered for this row
    "unparsable",  # the reply held no JSON
    "invalid",  # the reply did not fit the declared type
    "python",  # the user's function failed
    "no_votes",  # no voter of an ensemble answered
    "refused", "context", "timeout", "connection", "rate_limit", "server", "missing", "budget",  # the call failed
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no answer: kept in the errors table with the rows it befell."""

    reason: Reason
    detail: str
    prompt: str = ""
    raw_reply: str = ""
    attempts: int = 0


class Call(NamedTuple):
    """One request and what it took; `cached` when the reply was there already.

    `attempts` are the requests that reached a server: more than one where it was busy, failed or broke off; none where `cached`.
    """

    step: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    latency_s: float
    cached: bool
    attempts: int = 0
    error: str = ""


@dataclass(slots=True)
class StepCount:
    """Running totals of one step."""

    total: int | None = None
    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    calls: int = 0
    cached: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    errors: int = 0
    asked: int = 0
    seen: int = 0
    """Rows that it has learned from, before it works on the first."""
    started: float = 0.0
    ended: float = 0.0


class Records(Protocol):
    """Where errors and calls are written as they happen."""

    def errors(self, step: str, failures: Sequence[tuple[int, Failure]]) -> None:
        """Rows (by their number) that a step could not answer."""

    def calls(self, calls: Sequence[Call]) -> None:
        """Requests made, or found in the cache."""

    def learned(self, step: str, text: str, save: Path | None) -> None:
        """What a step learned, as JSON; and where else it is to be kept."""


class Unrecorded:
    """Records of which nothing is written down."""

    def errors(self, step: str, failures: Sequence[tuple[int, Failure]]) -> None:
        """Nothing."""

    def calls(self, calls: Sequence[Call]) -> None:
        """Nothing."""

    def learned(self, step: str, text: str, save: Path | None) -> None:
        """Nothing."""


@dataclass
class Ledger:
    """The totals of a run; safe to use from several threads."""

    records: Records
    steps: dict[str, StepCount] = field(default_factory=dict)
    reasons: dict[tuple[str, Reason], tuple[int, str]] = field(default_factory=dict)
    """For each step and reason of failure: how many rows, and the first one's words."""
    learned: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What steps learned from the rows, in lines for the end of the run."""
    max_calls: int | None = None
    max_tokens: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _spent_calls: int = 0
    _spent_tokens: int = 0

    def step(self, name: str) -> StepCount:
        """The totals of a step."""
        found = self.steps.get(name)
        if found is not None:
            return found
        with self._lock:
            return self.steps.setdefault(name, StepCount())

    def add(self, name: str, **amounts: int) -> None:
        """Add to the totals of a step."""
        count = self.step(name)
        with self._lock:
            count.started = count.started or time.monotonic()
            count.ended = time.monotonic()
            for key, amount in amounts.items():
                setattr(count, key, getattr(count, key) + amount)

    def learn(self, name: str, told: tuple[str, ...], text: str, save: Path | None) -> None:
        """Keep what a step learned, for its user and in files."""
        self.learned[name] = told
        if text:
            self.records.learned(name, text, save)

    def facts(self) -> dict[str, dict[str, object]]:
        """The totals of each step as plain data."""
        names = ("rows_in", "rows_out", "rejected", "calls", "cached", "prompt_tokens", "completion_tokens", "errors")
        return {
            name: {**{key: getattr(count, key) for key in names}, "seconds": round(count.ended - count.started, 3)}
            for name, count in list(self.steps.items())
        }

    def spend_call(self) -> str:
        """Take one call from the budget; when it is spent, which one, and nothing else."""
        with self._lock:
            if self.max_calls is not None and self._spent_calls >= self.max_calls:
                return f"the budget of {self.max_calls:,} calls is spent"
            if self.max_tokens is not None and self._spent_tokens >= self.max_tokens:
                return f"the budget of {self.max_tokens:,} tokens is spent ({self._spent_tokens:,} used)"
            self._spent_calls += 1
            return ""

    def spent(self, call: Call) -> None:
        """Count a request that reached a model; `records` gets it later, with others."""
        count = self.step(call.step)
        tokens = call.prompt_tokens + call.completion_tokens
        with self._lock:
            count.ended = time.monotonic()
            count.started = count.started or count.ended
            count.calls += 1
            count.prompt_tokens += call.prompt_tokens
            count.completion_tokens += call.completion_tokens
            self._spent_tokens += tokens

    def called(self, calls: Sequence[Call]) -> None:
        """Count requests whose reply was there already, and write them down."""
        if calls:
            self.add(calls[0].step, cached=len(calls))
            self.records.calls(calls)

    def failed(self, name: str, rows: Iterable[tuple[int, Failure]]) -> None:
        """Count rows that a step could not answer and write them down."""
        failures = list(rows)
        if failures:
            self.add(name, errors=len(failures))
            with self._lock:
                for _, failure in failures:
                    count, detail = self.reasons.get((name, failure.reason), (0, failure.detail))
                    self.reasons[name, failure.reason] = (count + 1, detail)
            self.records.errors(name, failures)

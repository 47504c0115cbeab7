"""What a run counts while it works: rows, calls, tokens and errors of each step."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Reason = Literal[
    "empty_prompt",  # the prompt rendered to nothing
    "template",  # the prompt could not be rendered for this row
    "unparsable",  # the reply held no JSON
    "invalid",  # the reply did not fit the declared type
    "python",  # the user's function failed
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


@dataclass(frozen=True, slots=True)
class Call:
    """One request and what it took; `cached` when the reply was there already."""

    step: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    latency_s: float
    cached: bool
    attempt: int
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
    started: float = 0.0
    ended: float = 0.0


class Records(Protocol):
    """Where errors and calls are written as they happen."""

    def errors(self, step: str, failures: Sequence[tuple[int, Failure]]) -> None:
        """Rows (by their number) that a step could not answer."""

    def calls(self, calls: Sequence[Call]) -> None:
        """Requests made, or found in the cache."""


@dataclass
class Ledger:
    """The totals of a run; safe to use from several threads."""

    records: Records
    steps: dict[str, StepCount] = field(default_factory=dict)
    reasons: dict[tuple[str, Reason], tuple[int, str]] = field(default_factory=dict)
    """For each step and reason of failure: how many rows, and the first one's words."""
    max_calls: int | None = None
    max_tokens: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _spent_calls: int = 0
    _spent_tokens: int = 0

    def step(self, name: str) -> StepCount:
        """The totals of a step."""
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

    def may_call(self) -> bool:
        """Take one call from the budget; False when it is spent."""
        with self._lock:
            if self.max_calls is not None and self._spent_calls >= self.max_calls:
                return False
            if self.max_tokens is not None and self._spent_tokens >= self.max_tokens:
                return False
            self._spent_calls += 1
            return True

    def called(self, calls: Sequence[Call]) -> None:
        """Count requests and write them down."""
        for call in calls:
            self.add(
                call.step,
                calls=not call.cached,
                cached=call.cached,
                prompt_tokens=0 if call.cached else call.prompt_tokens,
                completion_tokens=0 if call.cached else call.completion_tokens,
            )
            if not call.cached:
                with self._lock:
                    self._spent_tokens += call.prompt_tokens + call.completion_tokens
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

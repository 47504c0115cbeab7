"""The totals of a Beam job: out of its metrics at the end, and from the machine's server while it works."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from apache_beam.metrics.metric import MetricsFilter
from apache_beam.runners.runner import PipelineResult

from gdo.ledger import Ledger, StepCount
from gdo.runners import beam_machine
from gdo.runners.beam_worker import COUNTS, METRICS


def counts(result: PipelineResult) -> dict[str, StepCount]:
    """The totals of each step: what was committed, where the engine tells that apart from what was tried."""
    found: dict[str, StepCount] = {}
    told = result.metrics().query(MetricsFilter().with_namespace(METRICS))
    for counter in told["counters"]:
        step, _, key = counter.key.metric.name.rpartition(".")
        if key in COUNTS:
            count = found.setdefault(step, StepCount())
            amount = counter.committed if counter.committed is not None else counter.attempted
            setattr(count, key, getattr(count, key) + int(amount or 0))
    for times in told["distributions"]:
        step, _, key = times.key.metric.name.rpartition(".")
        span = times.committed if times.committed is not None else times.attempted
        if key == "time_ms" and span is not None and step in found:
            count = found[step]
            count.started = min(count.started or span.min / 1000, span.min / 1000)
            count.ended = max(count.ended, span.max / 1000)
    return found


FOLLOW_S = 1.0


@contextmanager
def followed(run_id: str, ledger: Ledger) -> Iterator[None]:
    """While the body runs, a ledger shows what the server of this machine has counted, if there is one."""
    done = threading.Event()

    def follow() -> None:
        while not done.wait(FOLLOW_S):
            for step, told in beam_machine.totals(run_id).items():
                count = ledger.step(step)
                for key in ("calls", "cached", "prompt_tokens", "completion_tokens", "started", "ended"):
                    setattr(count, key, getattr(told, key))
                count.asked = told.calls + told.cached

    thread = threading.Thread(target=follow, name="gdo-follow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

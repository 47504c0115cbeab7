"""The totals of a Beam job, out of its metrics."""

from apache_beam.metrics.metric import MetricsFilter
from apache_beam.runners.runner import PipelineResult

from gdo.ledger import StepCount
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

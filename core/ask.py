"""`ask`: a prompt over a batch looks like a column function.

Each distinct row is rendered once, each distinct prompt is looked up in the cache and sent at most once, held to its
type where the model can, parsed, checked, asked again with the fault named, and put back in the order of the rows.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from gdo import score
from gdo.caller import Caller
from gdo.distinct import Distinct
from gdo.errors import RunFailed
from gdo.ledger import Failure, Ledger
from gdo.model import Message, Reply, Request, Sampling
from gdo.parse import parse_line, parse_reply
from gdo.prompt import Udp
from gdo.scalars import AnswerFault, NoJson
from gdo.schema import Record, Scalar
from gdo.template import TemplateFault

ROW = "__row__"
"""The hidden column that carries each row's number through a pipeline; never in a sink."""

Values = dict[str, object]


@dataclass(frozen=True, slots=True)
class Policy:
    """What a step does about faults, and how it samples."""

    on_error: Literal["keep", "reject", "fail"] = "keep"
    retries: int = 1
    sampling: Sampling = field(default_factory=Sampling)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a batch was answered, row for row.

    `record` is a struct column of the output's fields, null where there is no answer; `failed` marks the rows whose
    call or reply failed (a row whose inputs are all null is null and not failed); `confidence` is null where the
    model gives no log-probabilities.
    """

    record: pa.StructArray
    failed: pa.BooleanArray
    confidence: pa.DoubleArray

    def column(self, name: str) -> pa.Array:
        """One field as a column, null where there is no answer."""
        return pc.struct_field(self.record, name)


@dataclass(frozen=True, slots=True)
class _Outcome:
    values: Values | None = None
    failure: Failure | None = None
    confidence: float | None = None


class Ask:
    """Asks a model for one step and one batch; `failed_rows` collects the numbers of the rows without an answer."""

    def __init__(
        self, step: str, caller: Callable[[], Caller], loop: asyncio.AbstractEventLoop, ledger: Ledger, policy: Policy
    ) -> None:
        self.step = step
        self.failed_rows: set[int] = set()
        self._find_caller = caller
        self._loop = loop
        self._ledger = ledger
        self._policy = policy

    @property
    def _caller(self) -> Caller:
        return self._find_caller()

    def __call__(self, udp: Udp, batch: pa.RecordBatch) -> Answers:
        """Ask a prompt for each row of a batch.

        Costs one call for each distinct prompt that is not in the cache, and one more for each retry; a prompt scored
        by label costs one call a field, and its calibration once.

        Raises:
            RunFailed: a row failed and the step says `on_error: fail`; or the run was stopped.
        """
        distinct = Distinct.of(batch, sorted(udp.columns))
        rows = distinct.rows.to_pylist() if udp.columns else [{}]
        rows = rows if batch.num_rows else []
        texts: dict[str, int] = {}
        places: list[int | _Outcome] = []
        for row in rows:
            rendered = _render(udp, row)
            places.append(texts.setdefault(rendered, len(texts)) if isinstance(rendered, str) else rendered)
        self._ledger.add(self.step, asked=len(texts))
        answered = self._wait(udp, list(texts))
        outcomes = [place if isinstance(place, _Outcome) else answered[place] for place in places]
        self._note(batch, distinct, outcomes)
        return _answers(udp.output, distinct, outcomes)

    def fail(self, row: int, failure: Failure) -> None:
        """Note that a row could not be answered, for operators whose faults come from elsewhere than a model."""
        if self._policy.on_error == "fail":
            error = RunFailed(f"step '{self.step}', row {row}: {failure.reason}: {failure.detail}")
            if failure.attempts:
                self._caller.halt(error)
            raise error
        self.failed_rows.add(row)
        self._ledger.failed(self.step, [(row, failure)])

    def _note(self, batch: pa.RecordBatch, distinct: Distinct, outcomes: Sequence[_Outcome]) -> None:
        if not any(outcome.failure for outcome in outcomes):
            return
        numbers = batch.column(ROW).to_pylist()
        for number, place in zip(numbers, distinct.index.to_pylist(), strict=True):
            failure = outcomes[place].failure
            if failure is not None:
                self.fail(number, failure)

    def _wait(self, udp: Udp, texts: Sequence[str]) -> list[_Outcome]:
        if not texts:
            return []
        # Where a failure ends the run, what is sent at a time is what can be in flight: nothing is paid for in vain.
        size = self._caller.model.concurrency if self._policy.on_error == "fail" else len(texts)
        outcomes: list[_Outcome] = []
        for start in range(0, len(texts), size):
            job = self._settle(udp, texts[start : start + size])
            outcomes += asyncio.run_coroutine_threadsafe(job, self._loop).result()
            if size < len(texts) and any(outcome.failure for outcome in outcomes):
                return outcomes + [_Outcome(failure=Failure("refused", "not asked"))] * (len(texts) - len(outcomes))
        return outcomes

    async def _settle(self, udp: Udp, texts: Sequence[str]) -> list[_Outcome]:
        scored, written = self._split(udp)
        jobs = [self._scored(udp.narrowed([name]), texts) for name in scored]
        if written:
            jobs.append(self._written(udp if not scored else udp.narrowed(written), texts))
        parts = await asyncio.gather(*jobs)
        return [_joined(outcomes) for outcomes in zip(*parts, strict=True)]

    def _split(self, udp: Udp) -> tuple[list[str], list[str]]:
        """The fields that are scored among closed labels, and those that are written."""
        model = self._caller.model
        if not (model.capabilities.logprobs and model.style == "plain"):
            return [], list(udp.output.names)
        scored = [p.name for p in udp.output.fields if score.closed_labels(p.type) and not p.nullable]
        return scored, [name for name in udp.output.names if name not in scored]

    async def _scored(self, udp: Udp, texts: Sequence[str]) -> list[_Outcome]:
        only = udp.output.fields[0]
        labels = score.closed_labels(only.type)
        calibration = list(_renderable(udp, score.calibration_rows(udp)))
        sampling = replace(self._policy.sampling, temperature=0.0, max_tokens=1)
        bodies = [udp.body(text, "plain") for _, text in calibration]
        bodies += [udp.body(text, "plain") for text in texts]
        head, options = udp.head("plain"), score.candidates(labels)
        requests = [Request(head, body, sampling, candidates=options) for body in bodies]
        replies = await self._caller.replies(self.step, requests)
        size = len(calibration)
        usable = [(group, r.scores) for (group, _), r in zip(calibration, replies, strict=False) if r.error is None]
        offsets = score.prior([group for group, _ in usable], [scores for _, scores in usable]) or [0.0] * len(labels)
        outcomes = []
        for request, reply in zip(requests[size:], replies[size:], strict=True):
            if reply.error is not None:
                outcomes.append(_Outcome(failure=_refusal(request, reply, 1)))
                continue
            best = score.verdict(labels, reply.scores, offsets)
            outcomes.append(_Outcome({only.name: only.type.check(best.label)}, None, best.confidence))
        return outcomes

    async def _written(self, udp: Udp, texts: Sequence[str]) -> list[_Outcome]:
        outcomes: list[_Outcome] = [_Outcome()] * len(texts)
        requests = {place: self._request(udp, text) for place, text in enumerate(texts)}
        for attempt in range(1, self._policy.retries + 2):
            again: dict[int, Request] = {}
            replies = await self._caller.replies(self.step, list(requests.values()), attempt)
            for (place, request), reply in zip(requests.items(), replies, strict=True):
                outcomes[place] = outcome = self._read(udp, request, reply, attempt)
                if outcome.failure and outcome.failure.reason in {"unparsable", "invalid"}:
                    again[place] = self._again(udp, texts[place], request, reply, outcome.failure.detail)
            if not again:
                break
            requests = again
        return outcomes

    def _request(self, udp: Udp, text: str, note: str = "") -> Request:
        model = self._caller.model
        constrained = model.capabilities.schema
        sampling = self._policy.sampling
        if model.style == "plain":
            if _is_line(udp.output):
                sampling, constrained = replace(sampling, stop=("\n",)), False
            return Request(udp.head("plain"), udp.body(text + note, "plain"), sampling, constrained)
        return Request(udp.head("chat", schema_in_prompt=not constrained), text, sampling, constrained)

    def _again(self, udp: Udp, text: str, request: Request, reply: Reply, fault: str) -> Request:
        if self._caller.model.style == "plain":
            return self._request(udp, text, f"\n(not usable: {fault})")
        turns = (
            Message("assistant", reply.text),
            Message("user", f"That answer cannot be used: {fault}. Give the whole answer again, mended."),
        )
        return replace(request, turns=(*request.turns, *turns))

    def _read(self, udp: Udp, request: Request, reply: Reply, attempt: int) -> _Outcome:
        if reply.error is not None:
            return _Outcome(failure=_refusal(request, reply, attempt))
        plain_line = self._caller.model.style == "plain" and len(udp.output.fields) == 1
        try:
            return _Outcome((parse_line if plain_line else parse_reply)(reply.text, udp.output))
        except AnswerFault as fault:
            kind: Literal["unparsable", "invalid"] = "unparsable" if isinstance(fault, NoJson) else "invalid"
            return _Outcome(failure=Failure(kind, str(fault), request.text(), reply.text, attempt))


def _is_line(output: Record) -> bool:
    """Whether a plain completion answers with bare text to the end of the line."""
    return len(output.fields) == 1 and output.fields[0].type == Scalar("string")


def _render(udp: Udp, row: Values) -> str | _Outcome:
    if udp.columns and all(row[name] is None for name in udp.columns):
        return _Outcome()  # null in, null out: there is nothing to ask
    try:
        text = udp.render(row)
    except TemplateFault as fault:
        return _Outcome(failure=Failure("template", str(fault), udp.template.source))
    if not text:
        return _Outcome(failure=Failure("empty_prompt", "the prompt rendered to nothing", udp.template.source))
    return text


def _renderable(udp: Udp, rows: Sequence[tuple[str, Mapping[str, object]]]) -> Iterator[tuple[str, str]]:
    """Calibration prompts by group; a template of numbers cannot be rendered for a content-free text."""
    for group, row in rows:
        with contextlib.suppress(TemplateFault):
            yield group, udp.render(row)


def _refusal(request: Request, reply: Reply, attempt: int) -> Failure:
    assert reply.error is not None  # noqa: S101 (told by the caller)
    return Failure(reply.error.kind, reply.error.message, request.text(), reply.text, attempt)


def _joined(parts: Sequence[_Outcome]) -> _Outcome:
    if len(parts) == 1:
        return parts[0]
    for part in parts:
        if part.failure is not None:
            return part
    values: Values = {}
    for part in parts:
        values |= part.values or {}
    return _Outcome(values)


def _answers(output: Record, distinct: Distinct, outcomes: Sequence[_Outcome]) -> Answers:
    values = [outcome.values for outcome in outcomes]
    return Answers(
        record=distinct.spread(pa.array(values, output.arrow())),
        failed=distinct.spread(pa.array([outcome.failure is not None for outcome in outcomes], pa.bool_())),
        confidence=distinct.spread(pa.array([outcome.confidence for outcome in outcomes], pa.float64())),
    )

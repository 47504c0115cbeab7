"""`ask`: a prompt over a batch looks like a column function.

Each distinct row is rendered once, each distinct prompt is looked up in the cache and sent at most once, held to its
type where the model can, parsed, checked, asked again with the fault named, and put back in the order of the rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import pyarrow as pa

from gdo import score
from gdo.answers import NOTHING, Answers, Outcome, answers, joined
from gdo.distinct import Distinct
from gdo.errors import GdoError, RunFailed
from gdo.ledger import Failure, Ledger
from gdo.memo import Memo
from gdo.model import Message, Model, Reply, Request, Sampling
from gdo.parse import parse_line, parse_reply
from gdo.prompt import Rendered, Udp
from gdo.scalars import AnswerFault, NoJson
from gdo.schema import Record, Scalar
from gdo.seen import Seen
from gdo.template import TemplateFault

ROW = "__row__"
"""The hidden column that carries each row's number through a pipeline; never in a sink."""


Memos = dict[tuple[str, float, bytes, str], Memo]
"""What a step was answered in other batches: by model, temperature, prompt and template, then by text."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What a step does about faults, and how it samples."""

    on_error: Literal["keep", "reject", "fail"] = "keep"
    retries: int = 1
    sampling: Sampling = field(default_factory=Sampling)


class Answering(Protocol):
    """One model as a step sees it: its own caller, or one elsewhere on the machine."""

    @property
    def model(self) -> Model:
        """What it can do, and how it is spoken to."""

    def replies(self, step: str, requests: Sequence[Request], order: int = 0) -> list[Reply]:
        """The replies in the order of the requests, stored before they are here."""

    def halt(self, cause: GdoError) -> None:
        """Send nothing more; whoever still wants a reply gets the cause."""


class Ask:
    """Asks a model for one step and one batch; `failed_rows` collects the numbers of the rows without an answer."""

    def __init__(
        self,
        step: str,
        model: str,
        caller: Callable[[str], Answering],
        ledger: Ledger,
        policy: Policy,
        memos: Memos | None = None,
    ) -> None:
        self.step = step
        self.model = model
        self.failed_rows: set[int] = set()
        self.voice = ""
        """Who asks, where several do for one step."""
        self.named: Callable[[int], str] | None = None
        """How a row is called where its number tells nobody anything; a failure then ends what is asked, not the model."""
        self._find_caller = caller
        self._ledger = ledger
        self._policy = policy
        self._memos = {} if memos is None else memos
        self._order = 0
        """The first row's number: rows are handed on in order, so the first ones must not wait for later ones."""

    @property
    def _caller(self) -> Answering:
        return self._find_caller(self.model)

    def by(self, voice: str, model: str | None, temperature: float | None = None) -> "Ask":
        """What asks for the same step by another model; which rows it fails is its own affair, told under its name."""
        policy = replace(self._policy, on_error="keep")
        if temperature is not None:
            policy = replace(policy, sampling=replace(policy.sampling, temperature=temperature))
        other = Ask(self.step, model or self.model, self._find_caller, self._ledger, policy, self._memos)
        other.voice = voice
        return other

    def __call__(self, udp: Udp, batch: pa.RecordBatch) -> Answers:
        """Ask a prompt for each row of a batch.

        Costs one call for each distinct prompt that is not in the cache, and one more for each retry; a prompt scored
        by label costs one call a field, and its calibration once.

        Raises:
            RunFailed: a row failed and the step says `on_error: fail`; or the run was stopped.
        """
        self._order = batch.column(ROW)[0].as_py() if batch.num_rows and ROW in batch.schema.names else 0
        columns = sorted(udp.columns)
        seen = self._seen(udp, pa.schema([batch.schema.field(name) for name in columns]))
        found = seen.find(batch.select(columns))
        if found is None:
            return self._answered(udp, batch, seen)
        if found.missing is None:
            return found.together()
        needed = [name for name in batch.schema.names if name in {*columns, ROW}]
        return found.together(self._answered(udp, batch.select(needed).filter(found.missing), seen))

    def _answered(self, udp: Udp, batch: pa.RecordBatch, seen: Seen) -> Answers:
        distinct = Distinct.of(batch, sorted(udp.columns))
        rows = distinct.rows if udp.columns else distinct.rows.slice(0, 0)
        rendered = list(udp.texts(rows, alone=batch.num_rows > 0))
        memo = self._memo(udp)
        texts = dict.fromkeys(text for text in rendered if isinstance(text, str) and text)
        known = {text: found for text in texts if (found := memo.known.get(text)) is not None}
        fresh = [text for text in texts if text not in known]
        self._ledger.add(self.step, asked=len(fresh))
        repeats = bool(known) or distinct.rows.num_rows < batch.num_rows  # else to look rows up is no gain
        known |= memo.settle(fresh, lambda texts: self._wait(udp, texts))
        outcomes = [known[text] if isinstance(text, str) and text else _unasked(udp, text) for text in rendered]
        self._note(batch, distinct, outcomes)
        told = answers(udp.output, outcomes)
        if repeats:
            seen.keep(distinct.rows, told)
        return told.moved(distinct.spread)

    def fail(self, row: int, failure: Failure) -> None:
        """Note that a row could not be answered, for operators whose faults come from elsewhere than a model."""
        if self.voice:
            failure = replace(failure, detail=f"{self.voice}: {failure.detail}")
        if self._policy.on_error == "fail":
            called = self.named(row) if self.named else f"row {row}"
            error = RunFailed(f"step '{self.step}', {called}: {failure.reason}: {failure.detail}")
            if failure.attempts and not self.named:
                self._caller.halt(error)
            raise error
        if self.named:
            failure = replace(failure, detail=f"{failure.detail} ({self.named(row)})")
        self.failed_rows.add(row)
        self._ledger.failed(self.step, [(row, failure)])

    def _note(self, batch: pa.RecordBatch, distinct: Distinct, outcomes: Sequence[Outcome]) -> None:
        if not any(outcome.failure for outcome in outcomes):
            return
        numbers = batch.column(ROW).to_pylist()
        for number, place in zip(numbers, distinct.index.to_pylist(), strict=True):
            failure = outcomes[place].failure
            if failure is not None:
                self.fail(number, failure)

    def _wait(self, udp: Udp, texts: Sequence[str]) -> list[Outcome]:
        if not texts:
            return []
        # Where a failure ends the run, what is sent at a time is what can be in flight: nothing is paid for in vain.
        size = self._caller.model.concurrency if self._policy.on_error == "fail" else len(texts)
        outcomes: list[Outcome] = []
        for start in range(0, len(texts), size):
            outcomes += self._settle(udp, texts[start : start + size])
            if size < len(texts) and any(outcome.failure for outcome in outcomes):
                return outcomes + [Outcome(failure=Failure("refused", "not asked"))] * (len(texts) - len(outcomes))
        return outcomes

    def _settle(self, udp: Udp, texts: Sequence[str]) -> list[Outcome]:
        scored, written = score.split_fields(udp, self._caller.model)
        parts = [self._scored(udp.narrowed([name]), texts) for name in scored]
        if written:
            parts.append(self._written(udp if not scored else udp.narrowed(written), texts))
        return parts[0] if len(parts) == 1 else [joined(outcomes) for outcomes in zip(*parts, strict=True)]

    def _scored(self, udp: Udp, texts: Sequence[str]) -> list[Outcome]:
        only = udp.output.fields[0]
        labels = score.closed_labels(only.type)
        memo = self._memo(udp)
        with memo.settling:  # the first batch measures the prior, the others wait for it
            memo.prior = offsets = memo.prior or self._prior(udp)
        requests = list(self._candidates(udp, texts))
        outcomes = []
        for request, reply in zip(requests, self._caller.replies(self.step, requests, order=self._order), strict=True):
            if reply.error is not None:
                outcomes.append(Outcome(failure=_refusal(request, reply, reply.tries)))
                continue
            best = score.verdict(labels, reply.scores, offsets or [0.0] * len(labels))
            outcomes.append(Outcome({only.name: only.type.check(best.label)}, None, best.confidence))
        return outcomes

    def _prior(self, udp: Udp) -> list[float]:
        """What the prompt makes of each label whatever the row; empty where that cannot be measured."""
        prompts = score.calibration_prompts(udp)
        requests = list(self._candidates(udp, [text for _, text in prompts]))
        replies = self._caller.replies(self.step, requests, order=self._order)
        usable = [(group, r.scores) for (group, _), r in zip(prompts, replies, strict=True) if r.error is None]
        return score.prior([group for group, _ in usable], [scores for _, scores in usable])

    def _candidates(self, udp: Udp, texts: Sequence[str]) -> Iterator[Request]:
        sampling = replace(self._policy.sampling, temperature=0.0, max_tokens=1)
        head, options = udp.head("plain"), score.candidates(score.closed_labels(udp.output.fields[0].type))
        for text in texts:
            yield Request(head, udp.body(text, "plain"), sampling, candidates=options)

    def _memo(self, udp: Udp) -> Memo:
        sampling = self._policy.sampling
        # Of prompts that differ in their template alone, each has a prior of its own.
        key = (self.model, sampling.temperature, udp.head("chat").digest, udp.template.source)
        return self._memos.setdefault(key, Memo())

    def _seen(self, udp: Udp, columns: pa.Schema) -> Seen:
        """The rows that this prompt was asked for: of such columns, put into it in this way."""
        seen = self._memo(udp).seen
        key = (udp.inputs, *udp.renamed.items(), columns)
        return seen.get(key) or seen.setdefault(key, Seen(columns, udp.output))

    def _written(self, udp: Udp, texts: Sequence[str]) -> list[Outcome]:
        outcomes: list[Outcome] = [NOTHING] * len(texts)
        places: Sequence[int] = range(len(texts))
        requests = list(self._requests(udp, texts))
        tried: dict[int, int] = {}
        for _ in range(self._policy.retries + 1):
            again: dict[int, Request] = {}
            replies = self._caller.replies(self.step, requests, self._order)
            for place, request, reply in zip(places, requests, replies, strict=True):
                tries = tried.get(place, 0) + reply.tries
                outcomes[place] = outcome = self._read(udp, request, reply, tries)
                if outcome.failure and outcome.failure.reason in {"unparsable", "invalid"}:
                    again[place] = self._again(udp, texts[place], request, reply, outcome.failure.detail)
                    tried[place] = tries
            if not again:
                break
            places, requests = list(again), list(again.values())
        return outcomes

    def _requests(self, udp: Udp, texts: Iterable[str]) -> Iterator[Request]:
        model = self._caller.model
        constrained = model.capabilities.schema
        sampling = self._policy.sampling
        style = model.style
        if style == "plain" and _is_line(udp.output):
            sampling, constrained = replace(sampling, stop=("\n",)), False
        head = udp.head(style, schema_in_prompt=not constrained)
        for text in texts:
            yield Request(head, udp.body(text, style), sampling, constrained)

    def _again(self, udp: Udp, text: str, request: Request, reply: Reply, fault: str) -> Request:
        if self._caller.model.style == "plain":
            return next(self._requests(udp, [f"{text}\n(not usable: {fault})"]))
        turns = (
            Message("assistant", reply.text),
            Message("user", f"That answer cannot be used: {fault}. Give the whole answer again, mended."),
        )
        return request._replace(turns=(*request.turns, *turns))

    def _read(self, udp: Udp, request: Request, reply: Reply, attempt: int) -> Outcome:
        if reply.error is not None:
            return Outcome(failure=_refusal(request, reply, attempt))
        plain_line = request.plain and len(udp.output.fields) == 1
        cut = reply.ended == "length"
        try:
            if plain_line and not (cut and udp.output.is_text):
                return Outcome(parse_line(reply.text, udp.output))
            return Outcome(parse_reply(reply.text, udp.output, cut=cut))
        except AnswerFault as fault:
            kind: Literal["unparsable", "invalid"] = "unparsable" if isinstance(fault, NoJson) else "invalid"
            detail = f"{fault}{_ended(reply, request.sampling.max_tokens)}"
            return Outcome(failure=Failure(kind, detail, request.text(), reply.text, attempt))


def _unasked(udp: Udp, text: Rendered) -> Outcome:
    """The outcome of a row that needs no call, or cannot be asked."""
    if text is None:
        return NOTHING  # null in, null out: there is nothing to ask
    if isinstance(text, TemplateFault):
        return Outcome(failure=Failure("template", str(text).removeprefix("template: "), udp.template.source))
    return Outcome(failure=Failure("empty_prompt", "the prompt rendered to nothing", udp.template.source))


def _is_line(output: Record) -> bool:
    """Whether a plain completion answers with bare text to the end of the line."""
    return len(output.fields) == 1 and output.fields[0].type == Scalar("string")


def _ended(reply: Reply, most: int) -> str:
    """How a faulty reply ended, where that may be why."""
    if not reply.ended:
        return ""
    hint = f": its {most} tokens were used up, raise `max_tokens`" if reply.ended == "length" else ""
    return f" (the model ended with {reply.ended}{hint})"


def _refusal(request: Request, reply: Reply, attempt: int) -> Failure:
    assert reply.error is not None  # noqa: S101 (told by the caller)
    return Failure(reply.error.kind, reply.error.message, request.text(), reply.text, attempt)

"""`backend: fake`: answers at once, by schema or by a function of yours. For tests and dry runs; it knows nothing."""

import asyncio
import importlib
import sys
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import orjson
from pydantic import Field

from gdo.backend import Backend
from gdo.errors import Faults
from gdo.model import Capabilities, Done, ErrorKind, Reply, ReplyError, Request, Style, Usage
from gdo.schema import AnswerType, Labels, ListOf, Record, Scalar
from gdo.window import Window

Answer = Callable[[Request], str]
_DAY = 86_400


class Fake(Backend, kind="fake"):
    """A model without a model: the same request always gets the same answer."""

    style: Style = Field(default="chat", description="Speak to it as to a chat model, or by plain completion")
    answer: str | None = Field(default=None, description="module:function, Request -> reply text")
    latency_s: float = Field(default=0.0, ge=0.0, description="Seconds that each call takes")
    concurrency: int = Field(default=64, ge=1, description="Calls at once")
    fail_every: int = Field(default=0, ge=0, description="About one prompt in so many fails, always the same ones")
    fail_with: Literal["refused", "timeout", "server", "text"] = Field(
        default="refused", description="How it fails; `text` gives a reply that is no JSON"
    )

    def build(self, folder: Path) -> "FakeModel":
        """The model."""
        return FakeModel(self, _function(self.answer, folder) if self.answer else None)


def _function(word: str, folder: Path) -> Answer:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module, _, name = word.partition(":")
    try:
        found: Answer = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise Faults.one("models", f"'{word}' cannot be imported: {error}", "module:function") from None
    return found


class FakeModel:
    """Answers requests from a digest of their text, or by a function."""

    def __init__(self, options: Fake, answer: Answer | None = None) -> None:
        self._options = options
        self._answer = answer
        self._window = Window(options.concurrency)
        self.calls = 0
        """Requests answered so far: what tests count."""

    @property
    def identity(self) -> str:
        """Its options: another fake answers otherwise."""
        return f"fake/{self._options.model_dump_json(exclude={'latency_s', 'concurrency'})}"

    @property
    def style(self) -> Style:
        """As it was told."""
        return self._options.style

    @property
    def capabilities(self) -> Capabilities:
        """It obeys schemas, and scores labels in the plain style."""
        return Capabilities(schema=True, logprobs=self._options.style == "plain", seeds=True)

    @property
    def concurrency(self) -> int:
        """Calls at once."""
        return self._options.concurrency

    async def start(self, tell: Callable[[str], None]) -> None:
        """Nothing to get ready."""

    async def generate(self, requests: Iterable[Request], done: Done, order: int = 0) -> None:
        """Answer requests, a window of them at a time."""
        await self._window.run(requests, self._call, done, order)

    def stop(self) -> None:
        """Nothing is tried again here."""

    async def close(self) -> None:
        """Nothing to give back."""

    async def _call(self, request: Request) -> Reply:
        self.calls += 1
        if self._options.latency_s:
            await asyncio.sleep(self._options.latency_s)
        digest = blake2b(request.text().encode(), digest_size=8)
        number = int.from_bytes(digest.digest(), "big")
        usage = Usage(len(request.text()) // 4, 8)
        if self._options.fail_every and number % self._options.fail_every == 0:
            if self._options.fail_with == "text":
                return Reply(text="I cannot answer that.", usage=usage)
            kind: ErrorKind = self._options.fail_with
            return Reply(error=ReplyError(kind, "told to fail"), usage=usage)
        if request.candidates:
            best = number % len(request.candidates)
            return Reply(scores=tuple(0.0 if i == best else -9.0 for i in range(len(request.candidates))), usage=usage)
        if self._answer is not None:
            return Reply(text=self._answer(request), usage=usage)
        return Reply(text=_text(request, number), usage=usage)


def _text(request: Request, number: int) -> str:
    answer = request.head.answer
    assert answer is not None  # noqa: S101 (every head says what it wants)
    if not request.plain or len(answer.fields) > 1:
        return orjson.dumps(_value(answer, number)).decode()
    value = _value(answer.fields[0].type, number)
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _value(answer: AnswerType, number: int) -> object:
    match answer:
        case Record(fields):
            return {part.name: _value(part.type, number + i) for i, part in enumerate(fields)}
        case ListOf(item):
            return [_value(item, number + i) for i in range(number % 3)]
        case Labels(labels):
            return labels[number % len(labels)]
        case Scalar(word):
            return _scalar(word, number)


def _scalar(word: str, number: int) -> object:
    from datetime import UTC, datetime

    moment = datetime.fromtimestamp(number % (50 * 365 * _DAY), UTC).replace(tzinfo=None)
    values: dict[str, object] = {
        "string": f"fake-{number % 10_000}",
        "integer": number % 1_000,
        "number": number % 10_000 / 100,
        "boolean": number % 2 == 0,
        "date": moment.date().isoformat(),
        "timestamp": moment.isoformat(),
    }
    return values[word]

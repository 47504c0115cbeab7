"""What a backend is: requests in, each reply handed on when it is complete.

A failed request is a `Reply` with an `error`, never an exception; concurrency, rate limits, retry of busy servers and
time limits live inside the backend.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, NamedTuple, Protocol

import orjson

from gdo.schema import Record

Style = Literal["chat", "plain"]
"""`chat`: messages with roles. `plain`: a text to be continued, for base and very small models."""

ErrorKind = Literal["refused", "context", "timeout", "connection", "rate_limit", "server", "missing", "budget"]
"""Why a request gave no text."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat: `role` is system, user or assistant."""

    role: str
    content: str


def told_schema(answer: Record) -> str:
    """The JSON Schema of an answer in words, for a server that cannot be held to it."""
    schema = orjson.dumps(answer.json_schema()).decode()
    return f"Answer with one JSON object that fulfils this JSON Schema, and nothing else: {schema}"


@dataclass(frozen=True)
class Head:
    """What all rows of a prompt share: built once, never per row.

    `messages` (system and examples) serve the chat style, `text` the plain one.
    """

    style: Style
    messages: tuple[Message, ...] = ()
    text: str = ""
    answer: Record | None = None
    digest: bytes = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        content = [
            self.style,
            [(m.role, m.content) for m in self.messages],
            self.text,
            self.answer.json_schema() if self.answer else None,
        ]
        object.__setattr__(self, "digest", blake2b(orjson.dumps(content), digest_size=16).digest())


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: `temperature` 0 is greedy, `max_tokens` bounds the reply."""

    temperature: float = 0.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int = 0


class Request(NamedTuple):
    """One call: the shared head, this row's body, and what is wanted of the reply.

    `constrained` asks for decoding held to the head's answer type. `candidates` asks for the log-probability of
    each as the continuation instead of a text. `turns` are the rounds of asking again after a faulty reply.
    """

    head: Head
    body: str
    sampling: Sampling
    constrained: bool = False
    candidates: tuple[str, ...] = ()
    turns: tuple[Message, ...] = ()

    def messages(self) -> tuple[Message, ...]:
        """The whole prompt as a chat."""
        return (*self.head.messages, Message("user", self.body), *self.turns)

    def text(self) -> str:
        """The whole prompt as text: for a plain completion, and for the errors table."""
        if not self.plain:
            return "\n\n".join(f"[{turn.role}]\n{turn.content}" for turn in self.messages())
        return self.head.text + self.body

    @property
    def plain(self) -> bool:
        """Whether it is a text to be continued."""
        return self.head.style == "plain"


def cache_keys(requests: Sequence[Request], identity: str) -> Iterator[bytes]:
    """The cache key of each request: a digest of all that decides its reply. `identity` is the model's.

    What requests share is hashed once.
    """
    head = sampling = constrained = candidates = None
    for request in requests:
        same = request.head is head and request.sampling is sampling
        if not (same and request.constrained is constrained and request.candidates is candidates):
            head, sampling = request.head, request.sampling
            constrained, candidates = request.constrained, request.candidates
            rest = (identity, sampling.temperature, sampling.max_tokens, sampling.stop, sampling.seed)
            known = orjson.dumps((*rest, constrained, candidates))
            prefix = blake2b(head.digest + blake2b(known, digest_size=16).digest(), digest_size=20)
        digest = prefix.copy()
        digest.update(request.body.encode("utf-8", "surrogatepass"))
        if request.turns:
            digest.update(b"\0" + orjson.dumps([(turn.role, turn.content) for turn in request.turns]))
        yield digest.digest()


class Usage(NamedTuple):
    """Tokens that a call took, as the backend counted them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ReplyError:
    """Why there is no reply.

    `fatal` means that no other request of this run can succeed either; `unless_known`: except where replies of the model
    are in the cache. `after_s` is how long the server wants this one to wait before it comes again.
    """

    kind: ErrorKind
    message: str
    fatal: bool = False
    unless_known: bool = False
    after_s: float = 0.0


class Reply(NamedTuple):
    """What came back: a text, or the log-probability of each candidate, or an error."""

    text: str = ""
    scores: tuple[float, ...] = ()
    usage: Usage = Usage()
    latency_s: float = 0.0
    error: ReplyError | None = None
    tries: int = 1
    """Requests that it took: more than one where a server was busy, failed or broke off; none where it was not sent."""
    ended: str = ""
    """How it ended, where that was no proper end: `length` at `max_tokens`, `content_filter` and so on."""


Done = Callable[[int, Reply], Awaitable[None]]
"""Takes the index of a request and its reply, and returns when the reply is safe."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend honours: constrained decoding to a schema, log-probabilities, images, seeds."""

    schema: bool = False
    logprobs: bool = False
    images: bool = False
    seeds: bool = False


class Model(Protocol):
    """A language model that answers requests."""

    @property
    def identity(self) -> str:
        """What decides its answers (weights, not address): part of every cache key."""

    @property
    def style(self) -> Style:
        """How it is spoken to."""

    @property
    def capabilities(self) -> Capabilities:
        """What it honours."""

    @property
    def concurrency(self) -> int:
        """Requests that it works on at once."""

    async def start(self, tell: Callable[[str], None]) -> None:
        """Get ready: load weights, open a pool; what takes long is told.

        Raises:
            ModelUnready: it cannot answer here; the message says what would help.
        """

    async def generate(self, requests: Iterable[Request], done: Done, order: int = 0) -> None:
        """Answer requests; each reply is handed to `done` when it is complete, with the index of its request.

        Where several are asked at the same time, the requests of the lowest `order` come first: what others wait for.

        A request is pulled from the iterable only when it can be sent, so budgets and Ctrl-C end the stream there. Its
        place in the window is free when `done` returns: what is paid for and not yet on disk is never more than
        `concurrency` replies. What `done` raises is raised when the calls in flight have ended.
        """

    def stop(self) -> None:
        """The run is ending: try nothing again. May be called from any thread."""

    async def close(self) -> None:
        """Give everything back."""

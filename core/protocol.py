"""The OpenAI protocol: a request as the bytes of its body, and an answer as a reply."""

import datetime as dt
import email.utils
import re
from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from gdo.model import Head, Reply, Request, Sampling, Usage, told_schema

_Json = dict[str, Any]
_NO_SCHEMA = re.compile(
    r"(?i)response_format|json.?schema|structured.outputs?|\bschema\b|\bgrammar\b|guided|\bstrict\b|requested parameters"
)
_PARAMETERS = {
    "max_tokens": re.compile("max_completion_tokens"),
    "temperature": re.compile(
        r"(?i)temperature\b.*(support|allow|unknown|only)|(unsupported|unknown).*\btemperature\b"
    ),
    "seed": re.compile(r"(?i)\bseed\b.*(support|allow|unknown|permitted)|(unsupported|unknown|extra).*\bseed\b"),
}
"""How a server says that it does not take a parameter."""
_WHOLE = {"stop", "eos", "eos_token", "end_turn"}
"""Ways for a reply to end of which nothing is to be said."""
_MOST_TOKENS = 1_000_000_000
_UNKNOWN = re.compile(
    r"(?i)\bmodel\b.*(not found|not exist|unknown|not available|is not supported|deprecated)"
    r"|(no such|unknown|invalid|not a valid|not find|is no) model"
)
_NO_MODEL = re.compile(r"(?i)\W*((invalid|unknown|unsupported) model( name)?|model[ _](does )?not[ _](exist|found))\W*")


class Bodies:
    """Makes bodies: what the rows of a prompt share is put into bytes once.

    What a server does not take is left out of all that follow, or said otherwise: the schema (`response_format`), a
    temperature, a seed, the name of `max_tokens`. None of it changes a cache key, so the next run finds what this one was told.
    """

    def __init__(self, model: str, *, structured: bool) -> None:
        self._model = model
        self.structured = structured
        """Whether the server is asked to hold replies to the JSON Schema; else it is told it in the prompt."""
        self._held = False
        self._left_out: set[str] = set()
        self._form: tuple[Head | None, Sampling | None, bool] = (None, None, False)
        self._around = (b"", b"")

    def of(self, request: Request, *, bare: bool = False) -> bytes:
        """The body of a request; a `bare` one has no schema for the server."""
        form = (request.head, request.sampling, request.constrained and self.structured and not bare)
        if form[0] is not self._form[0] or form[1] is not self._form[1] or form[2] != self._form[2]:
            self._form, self._around = form, self._shared(request, structured=form[2])
        before, after = self._around
        if request.plain:
            return before + orjson.dumps(request.body)[1:] + after
        turns = b"".join(b"," + _message(turn.role, turn.content) for turn in request.turns)
        return before + orjson.dumps(request.body) + b"}" + turns + after

    def yields(self, sent: bytes, said: str) -> bool:
        """Whether a refusal is about a parameter that can be left out or said otherwise; then it is from now on."""
        for key, refused in _PARAMETERS.items():
            if f'"{key}":'.encode() in sent and refused.search(said):
                self._left_out.add(key)
                self._form = (None, None, False)
                return True
        return False

    def may_be_schema(self, sent: bytes, said: str, *, certain: bool = False) -> bool:
        """Whether a refusal may be about the schema, which a bare body shows: by its words, or as long as none was taken."""
        return b'"response_format":' in sent and (bool(_NO_SCHEMA.search(said)) or not (self._held or certain))

    def answered(self, sent: bytes, *, bare: bool) -> None:
        """A body was answered; after a bare one that was sent for the schema's sake, no schema is sent any more."""
        if bare:
            self.structured = False
        elif not self._held:
            self._held = b'"response_format":' in sent

    def _shared(self, request: Request, *, structured: bool) -> tuple[bytes, bytes]:
        """What stands before and behind a row's own text."""
        head, sampling = request.head, request.sampling
        body: _Json = {"model": self._model} if self._model else {}
        if "temperature" not in self._left_out:
            body["temperature"] = sampling.temperature
        body["max_completion_tokens" if "max_tokens" in self._left_out else "max_tokens"] = sampling.max_tokens
        if sampling.temperature and "seed" not in self._left_out:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if request.plain:
            return orjson.dumps(body)[:-1] + b',"prompt":' + orjson.dumps(head.text)[:-1], b"}"
        shared = [(turn.role, turn.content) for turn in head.messages]
        if structured and head.answer:
            schema = {"name": "answer", "strict": True, "schema": head.answer.json_schema()}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.constrained and head.answer:  # in the one system message: some servers take no second
            system = [shared.pop(0)[1]] if shared and shared[0][0] == "system" else []
            shared.insert(0, ("system", "\n\n".join([*system, told_schema(head.answer)])))
        messages = b"".join(_message(role, content) + b"," for role, content in shared)
        return orjson.dumps(body)[:-1] + b',"messages":[' + messages + b'{"role":"user","content":', b"]}"


def _message(role: str, content: str) -> bytes:
    return orjson.dumps({"role": role, "content": content})


def completion(raw: bytes, *, plain: bool) -> Reply:
    """The text and the usage of an answer; the usage is empty where a server does not tell it.

    Raises:
        ValueError: it is no completion.
    """
    try:
        answer = orjson.loads(raw)
        choice = answer["choices"][0]
        message = {} if plain else choice["message"]
        silent = message.keys() & {"tool_calls", "refusal", "reasoning", "reasoning_content"}
        text = choice["text"] if plain else _text(message.get("content") if silent else message["content"])
        text = "" if text is None else text.strip("\0")  # anything but text fails here
        usage = answer.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        spent = Usage(_count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")))
        if spent == (0, 0):
            spent = Usage(_count(usage.get("total_tokens")), 0)
        ended = choice.get("finish_reason") or ""
        ended = f"refusal: {message['refusal']}" if message.get("refusal") else "" if ended in _WHOLE else str(ended)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
    return Reply(text=text, usage=spent, ended=ended)


def _text(content: Any) -> Any:
    """What a message says, where it comes in parts: those that are text, and no thoughts."""
    if not isinstance(content, list):
        return content
    return "".join(part if isinstance(part, str) else part["text"] for part in content if _is_text(part))


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or ("text" in part and part.get("type", "text") in {"text", "output_text"})


def _count(tokens: object) -> int:
    """Tokens as a server counts them; what is no such count is none."""
    return tokens if type(tokens) is int and 0 <= tokens <= _MOST_TOKENS else 0


def refusal(raw: bytes) -> str:
    """What a server says in place of an answer."""
    try:
        error = orjson.loads(raw)["error"]
        said = error.get("message") if isinstance(error, dict) else error
    except (orjson.JSONDecodeError, LookupError, TypeError):
        said = raw[:300].decode(errors="replace")
    return str(said).strip()


def knows_not(said: str, model: str) -> bool:
    """Whether a refusal says that the server has no such model.

    >>> knows_not("The model `tiny` does not exist", "tiny"), knows_not("tiny: the text is too long", "tiny")
    (True, False)
    """
    named = rf"(?<![\w-]){re.escape(model)}(?![\w-])" if model else "$^"
    return bool(_NO_MODEL.fullmatch(said) or (re.search(named, said) and _UNKNOWN.search(said)))


def asked_wait_s(headers: Mapping[str, str]) -> float:
    """The seconds that a server wants to be left alone, by its headers; 0 where it does not say.

    A moment is compared with the server's own clock where it tells it.

    >>> asked_wait_s({"Retry-After": "1.5"}), asked_wait_s({"retry-after-ms": "250"})
    (1.5, 0.25)
    >>> asked_wait_s({"Retry-After": "Wed, 21 Oct 2015 07:28:05 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"})
    5.0
    """
    precise, retry_after, date = (headers.get(name, "") for name in ("retry-after-ms", "Retry-After", "Date"))
    if precise.replace(".", "", 1).isdecimal():
        return float(precise) / 1000
    if retry_after.replace(".", "", 1).isdecimal():
        return float(retry_after)
    until = _moment(retry_after)
    return 0.0 if until is None else max(0.0, (until - (_moment(date) or dt.datetime.now(dt.UTC))).total_seconds())


def _moment(text: str) -> dt.datetime | None:
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


class Stream(Protocol):
    """Bytes that come in pieces; no more pieces after an empty one."""

    async def read(self, most: int) -> bytes:
        """The next piece."""


async def read_some(stream: Stream, most: int) -> bytes:
    """The body of an answer that does not say how long it is: all of it, or a little more than `most` bytes."""
    raw = b""
    while len(raw) <= most and (more := await stream.read(most)):
        raw += more
    return raw

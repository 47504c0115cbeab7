"""The OpenAI protocol: a request as the bytes of its body, and an answer as a reply."""

import datetime as dt
import email.utils
import re
from typing import Any, Protocol

import orjson

from gdo.model import Head, Reply, Request, Sampling, Usage, told_schema

_Json = dict[str, Any]
_UNKNOWN = re.compile(r"(?i)\bmodel\b.*(not found|not exist|unknown|not available)|(no such|unknown|invalid) model")


class Bodies:
    """Makes bodies: what the rows of a prompt share is put into bytes once."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._form: tuple[Head | None, Sampling | None, bool] = (None, None, False)
        self._around = (b"", b"")

    def of(self, request: Request, *, structured: bool) -> bytes:
        """The body of a request; where it is `structured`, the server is to hold the reply to the JSON Schema."""
        form = (request.head, request.sampling, request.constrained and structured)
        if form[0] is not self._form[0] or form[1] is not self._form[1] or form[2] != self._form[2]:
            self._form, self._around = form, self._shared(request, constrained=form[2])
        before, after = self._around
        if request.plain:
            return before + orjson.dumps(request.body)[1:] + after
        turns = b"".join(b"," + _message(turn.role, turn.content) for turn in request.turns)
        return before + orjson.dumps(request.body) + b"}" + turns + after

    def _shared(self, request: Request, *, constrained: bool) -> tuple[bytes, bytes]:
        """What stands before and behind a row's own text."""
        head, sampling = request.head, request.sampling
        body: _Json = {"model": self._model} if self._model else {}
        body |= {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
        if sampling.temperature:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if request.plain:
            return orjson.dumps(body)[:-1] + b',"prompt":' + orjson.dumps(head.text)[:-1], b"}"
        shared = [(turn.role, turn.content) for turn in head.messages]
        if constrained and head.answer:
            schema = {"name": "answer", "strict": True, "schema": head.answer.json_schema()}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif request.constrained and head.answer:
            shared.insert(0, ("system", told_schema(head.answer)))
        messages = b"".join(_message(role, content) + b"," for role, content in shared)
        return orjson.dumps(body)[:-1] + b',"messages":[' + messages + b'{"role":"user","content":', b"]}"


def _message(role: str, content: str) -> bytes:
    return orjson.dumps({"role": role, "content": content})


def completion(raw: bytes, *, plain: bool) -> Reply:
    """The text and the usage of an answer.

    Raises:
        ValueError: it is no completion.
    """
    try:
        answer = orjson.loads(raw)
        choice = answer["choices"][0]
        text = choice["text"] if plain else choice["message"]["content"]
        text = "" if text is None else text.strip("\0")  # anything but text fails here
        usage = answer.get("usage") or {}
        spent = Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from None
    return Reply(text=text, usage=spent)


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
    return bool(re.search(named, said) and _UNKNOWN.search(said))


def asked_wait_s(retry_after: str, date: str) -> float:
    """The seconds that a server wants to be left alone, by its headers; 0 where it does not say.

    A moment is compared with the server's own clock where it tells it.

    >>> asked_wait_s("1.5", ""), asked_wait_s("Wed, 21 Oct 2015 07:28:05 GMT", "Wed, 21 Oct 2015 07:28:00 GMT")
    (1.5, 5.0)
    """
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

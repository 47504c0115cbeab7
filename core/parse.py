"""A reply's text -> checked values: lenient about wrapping, strict about types."""

import itertools
import json
import re

import orjson

from gdo.scalars import AnswerFault, NoJson, show
from gdo.schema import Labels, Record, Scalar

_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)(?:```|\Z)", re.DOTALL)
_TRAILING_COMMA = re.compile(r",\s*([}\]])")
_TAGS = "think|thinking|thought|reasoning"
_THOUGHT = re.compile(rf"(?is)<({_TAGS})>.*?(?:</\1>|\Z)|\[think\].*?(?:\[/think\]|\Z)")
_THOUGHT_BEFORE = re.compile(rf"(?is)\A.*(?:</(?:{_TAGS})>|\[/think\])")
"""A thought of which only the end is marked: the prompt held its beginning."""
_OPENS = re.compile(rf"(?i)\s*(?:<({_TAGS})>|\[think\])")
_CLOSES = (*(f"</{tag}>" for tag in _TAGS.split("|")), "[/think]")
TRIES = 20
"""Brackets in a reply from which JSON is tried."""

_DECODER = json.JSONDecoder(strict=False)


def parse_reply(text: str, answer: Record, *, cut: bool = False) -> dict[str, object]:
    """The record that a reply states.

    Code fences, prose around the JSON, trailing commas and a bare value for a record of one field are forgiven; of a reply
    that was cut off, a bare text is not.

    Raises:
        AnswerFault: there is no JSON in it, or a value does not fit its type.

    >>> from gdo.schema import Field
    >>> parse_reply('Sure! {"n": "3",}', Record((Field("n", Scalar("integer")),)))
    {'n': 3}
    """
    if answer.is_text and not cut and text[:1].isalnum() and not any(mark in text for mark in "{[`<"):
        return answer.check({answer.names[0]: text})  # plain words for one text: nothing to unwrap
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = _search(text, answer)
        if cut and answer.is_text and isinstance(value, str):
            raise AnswerFault("the text is cut off") from None
    if len(answer.fields) == 1 and not (isinstance(value, dict) and answer.names[0] in value):
        value = {answer.names[0]: value}
    return answer.check(value)


def _search(text: str, answer: Record) -> object:
    text = (_without_thought(text) if answer.is_text else _THOUGHT_BEFORE.sub("", _THOUGHT.sub("", text))).strip()
    fence = _FENCE.search(text)
    body = (fence[1] if fence else text).strip()
    found: list[object] = []
    for start in itertools.islice(re.finditer(r"[{\[]", body), TRIES):
        for candidate in (body[start.start() :], _TRAILING_COMMA.sub(r"\1", body[start.start() :])):
            try:
                value = _DECODER.raw_decode(candidate)[0]
            except (ValueError, RecursionError):  # no JSON, or a number of thousands of digits
                continue
            if isinstance(value, dict) and value.keys() & set(answer.names):
                return value
            found.append(value)  # perhaps a footnote in the prose: an object with our fields may follow
            break
    if found:
        return found[0]
    if not body:
        raise NoJson("the reply is empty")
    if len(answer.fields) == 1 and "{" not in body and isinstance(answer.fields[0].type, (Scalar, Labels)):
        return body
    raise NoJson(f"no JSON object in {show(text)}")


def _without_thought(text: str) -> str:
    """A plain text, which may speak of tags itself, behind a thought at its very beginning, or one that a line ends with."""
    thought = 0
    while opened := _OPENS.match(text, thought):
        closing = re.escape(f"</{opened[1]}>" if opened[1] else "[/think]")
        closed = re.compile(closing, re.IGNORECASE).search(text, opened.end())
        thought = closed.end() if closed else len(text)
    if thought:
        return text[thought:]
    lines = text.splitlines(keepends=True)
    for place in range(len(lines) - 1, 0, -1):
        if lines[place - 1].rstrip().lower().endswith(_CLOSES):
            return "".join(lines[place:])
    return text


def parse_line(text: str, answer: Record) -> dict[str, object]:
    """The record of one field that a plain completion states on its line: bare text, or a JSON value.

    Raises:
        AnswerFault: the line is empty, or does not fit the type.
    """
    part = answer.fields[0]
    line = text.strip()
    if not line or (part.nullable and line in {"null", "none", "None"}):
        if part.nullable:
            return {part.name: None}
        raise AnswerFault("the reply is empty")
    if isinstance(part.type, Scalar) and part.type.word == "string":
        return answer.check({part.name: line})
    try:
        value: object = orjson.loads(line)
    except orjson.JSONDecodeError:
        value = line
    return answer.check({part.name: value})

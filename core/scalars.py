"""Single values of an answer: what a model wrote -> string, integer, number, boolean, date or timestamp.

Near misses that lose nothing are mended ("12.5" for a number, "yes" for true); anything else is a fault, told in
words that a model asked again can use.
"""

import datetime as dt
import math
import re
from collections.abc import Callable

import pyarrow as pa


class AnswerFault(ValueError):
    """A reply does not fit its type; the message is written for the model that is asked again, and for the user."""


class NoJson(AnswerFault):
    """There is nothing in the reply that could be checked."""


def fold(text: str) -> str:
    """A word without case, outer spaces and punctuation: how labels are compared."""
    return text.strip().strip("\"'`.*").strip().casefold()


def show(value: object) -> str:
    """A value in a message, cut to one line."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 (a message stays one line)


def _string(value: object) -> str:
    if isinstance(value, str):
        # Half a surrogate pair is no character: no file could hold it.
        return value.encode("utf-8", "replace").decode().strip()
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise AnswerFault(f"{show(value)} is not a string")


def _number(value: object) -> float:
    if isinstance(value, str):
        text = value.strip().replace("\u2212", "-")
        try:
            value = float(text.replace(",", ".") if re.fullmatch(r"[-+]?\d+,\d{1,2}", text) else text)
        except ValueError:
            raise AnswerFault(f"{show(value)} is not a number") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AnswerFault(f"{show(value)} is not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise AnswerFault(f"{show(value)} is not a finite number")
    return number


def _integer(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d{1,30}\s*", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        number = _number(value)
        if not number.is_integer():
            raise AnswerFault(f"{show(value)} is not a whole number")
        value = int(number)
    if not -(2**63) <= value < 2**63:
        raise AnswerFault(f"{show(value)} does not fit in 64 bits")
    return value


def _boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = fold(value) if isinstance(value, str) else ""
    if word in {"true", "yes"}:
        return True
    if word in {"false", "no"}:
        return False
    raise AnswerFault(f"{show(value)} is not true or false")


def _date(value: object) -> dt.date:
    if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
        return value
    try:
        return dt.datetime.fromisoformat(value.strip()).date() if isinstance(value, str) else _not_a("date", value)
    except ValueError:
        return _not_a("date", value)


def _timestamp(value: object) -> dt.datetime:
    try:
        moment = dt.datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        moment = None
    if moment is None:
        raise AnswerFault(f"{show(value)} is not a timestamp like 2024-12-31T23:59:00")
    try:
        return moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except OverflowError:
        raise AnswerFault(f"{show(value)} is out of the range of timestamps") from None


def _not_a(word: str, value: object) -> dt.date:
    raise AnswerFault(f"{show(value)} is not a {word} like 2024-12-31")


ARROW = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
}
FORMATS = {"date": "date", "timestamp": "date-time"}
CHECKS: dict[str, Callable[[object], object]] = {
    "string": _string, "integer": _integer, "number": _number,
    "boolean": _boolean, "date": _date, "timestamp": _timestamp,
}  # fmt: skip

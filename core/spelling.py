"""When two open values are one answer: how they are brought to a common spelling before votes are counted."""

import datetime as dt
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gdo.ask import ROW, Ask
from gdo.database import message, query_batch
from gdo.errors import RunFailed, nearest
from gdo.prompt import Udp
from gdo.scalars import fold

Word = Literal["case", "spaces", "punctuation", "units"]

# To the first unit of a line: grams, millilitres, millimetres, watts, watt-hours, volts, bytes, seconds.
_UNITS = {
    "g": {"mg": 1e-3, "g": 1, "gr": 1, "gram": 1, "grams": 1, "kg": 1e3, "oz": 28.349523125, "lb": 453.59237, "lbs": 453.59237},
    "ml": {"ml": 1, "cl": 10, "dl": 100, "l": 1e3, "ltr": 1e3, "liter": 1e3, "litre": 1e3, "liters": 1e3, "litres": 1e3,
           "fl oz": 29.5735295625, "fl. oz": 29.5735295625, "gal": 3785.411784},
    "mm": {"mm": 1, "cm": 10, "m": 1e3, "in": 25.4, "inch": 25.4, "inches": 25.4, '"': 25.4, "ft": 304.8, "feet": 304.8},
    "w": {"mw": 1e-3, "w": 1, "watt": 1, "watts": 1, "kw": 1e3},
    "v": {"mv": 1e-3, "v": 1, "volt": 1, "volts": 1, "kv": 1e3},
    "b": {"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12},
    "s": {"ms": 1e-3, "s": 1, "sec": 1, "min": 60, "h": 3600, "hr": 3600, "hrs": 3600},
}  # fmt: skip
_TO_BASE = {unit: (base, times) for base, line in _UNITS.items() for unit, times in line.items()}
_AMOUNT = re.compile(
    r"(?<![\w.,])(\d+(?:[.,]\d+)?)[ -]?("
    + "|".join(map(re.escape, sorted(_TO_BASE, key=len, reverse=True)))
    + r")(?!\w)",
    re.IGNORECASE,
)


def _units(text: str) -> str:
    """Amounts in the first unit of their kind.

    >>> _units("0.5 L"), _units("50 cl bottle"), _units("12 fl. oz"), _units("iPhone 5s")
    ('500 ml', '500 ml bottle', '354.882 ml', 'iPhone 5s')
    """

    def mended(found: re.Match[str]) -> str:
        base, times = _TO_BASE[found[2].lower()]
        if found[2].lower() == "s" and found[0][-2].isdigit():
            return found[0]  # a name such as 5s
        return f"{float(found[1].replace(',', '.')) * times:.6g} {base}"

    return _AMOUNT.sub(mended, text)


WORDS: dict[str, Callable[[str], str]] = {
    "units": _units,
    "case": str.casefold,
    "punctuation": lambda text: re.sub(r"[^\w\s.]|(?<!\d)\.|\.(?!\d)", " ", text),
    "spaces": lambda text: " ".join(text.split()),
}
"""What each word of `normalize` does, in the order in which they are done."""


def known_word(item: object) -> object:
    """An entry of `normalize`, checked before its kind is."""
    if isinstance(item, dict) or item in WORDS:
        return item
    raise ValueError(f"unknown way '{item}' | {nearest(str(item), WORDS)}, or {{sql: ...}}, or {{udp: ...}}")


class Canonical(BaseModel):
    """A user's own way to one spelling: a SQL expression over `value`, or a UDP of one column."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sql: str | None = Field(default=None, description="A SQL expression over `value`, a text")
    udp: str | None = Field(default=None, description="A UDP that reads one column and gives one text")
    model: str | None = Field(default=None, description="The model that the UDP asks")

    @model_validator(mode="after")
    def _one(self) -> "Canonical":
        if (self.sql is None) == (self.udp is None):
            raise ValueError("takes `sql` or `udp`, one of them")
        if self.model is not None and self.udp is None:
            raise ValueError("`model` goes with `udp`")
        return self


@dataclass(frozen=True, slots=True)
class Speller:
    """Brings texts to a common spelling: a user's own first, then words of `WORDS`."""

    words: tuple[str, ...] = ()
    own: tuple[tuple[str | Udp, str | None], ...] = ()
    """SQL expressions, and UDPs with the model that each asks."""

    def texts(self, column: pa.Array, ask: Ask | None, rows: pa.Array | None = None) -> pa.StringArray:
        """A column of any type as texts in their common spelling, null where it is null.

        Each distinct value is spelt once; a UDP costs a call for it. `rows` are the numbers of the rows.
        """
        encoded = as_text(column).dictionary_encode()
        spelt = encoded.dictionary
        for how, model in self.own:
            if isinstance(how, str):
                spelt = by_sql(how, spelt)
            elif ask is not None and len(spelt):
                spelt = _by_udp(how, spelt, ask.by("normalize", model), _first(encoded.indices, rows, len(spelt)))
        for word, mend in WORDS.items():
            if word in self.words:
                spelt = pa.array([None if text is None else mend(text) for text in spelt.to_pylist()], pa.string())
        return spelt.take(encoded.indices)


def by_sql(expression: str, texts: pa.StringArray) -> pa.StringArray:
    """A SQL expression over each text; where it gives null the text stays."""
    batch = pa.RecordBatch.from_arrays([texts], names=["value"])
    try:
        found = query_batch(f"SELECT CAST(({expression}\n) AS VARCHAR) AS spelt FROM input", batch)
    except duckdb.Error as error:
        raise RunFailed(f"normalize: sql: {message(error)} (where it may fail, TRY(...) gives null)") from None
    return pc.coalesce(found.column("spelt").combine_chunks().cast(pa.string()), texts)


def _by_udp(udp: Udp, texts: pa.StringArray, ask: Ask, rows: pa.Array) -> pa.StringArray:
    """What a prompt makes of each text; where it fails the text stays."""
    batch = pa.RecordBatch.from_arrays([texts, rows], names=[next(iter(udp.columns)), ROW])
    return pc.coalesce(ask(udp, batch).column(udp.output.names[0]), texts)


def _first(indices: pa.Array, rows: pa.Array | None, size: int) -> pa.Array:
    """The number of the first row that has each distinct value."""
    first = [0] * size
    numbers = range(len(indices)) if rows is None else rows.to_pylist()
    for place, number in reversed(list(zip(indices.to_pylist(), numbers, strict=True))):
        if place is not None:
            first[place] = number
    return pa.array(first, pa.int64())


def as_text(column: pa.Array) -> pa.StringArray:
    """Values as texts that are equal where the values are; lists regardless of order."""
    kind = column.type
    if pa.types.is_nested(kind):
        return pa.array([None if v is None else _json(v) for v in column.to_pylist()], pa.string())
    if pa.types.is_floating(kind):
        return pa.array([None if v is None else f"{v:.10g}" for v in column.to_pylist()], pa.string())
    return column.cast(pa.string())


def _json(value: object) -> str:
    if isinstance(value, list):
        value = sorted(value, key=_json)
    return json.dumps(value, ensure_ascii=False, default=_plain, sort_keys=True)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else str(value)


def closed_code(texts: Sequence[str], labels: Sequence[str]) -> list[str | None]:
    """The label that each text is, as it was declared; None for one outside the set."""
    known = {fold(label): label for label in labels}
    return [known.get(fold(text)) for text in texts]

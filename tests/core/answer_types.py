"""Random answer types, and random values of them."""

import datetime as dt
import json

from hypothesis import strategies as st

from gdo.schema import AnswerType, Field, Labels, ListOf, Record, Scalar

NAMES = st.text(alphabet="abcXYZ_ 9\u00e9\u4e2d\"\\'", min_size=1, max_size=8).filter(lambda name: not name.startswith("__"))
LABELS = st.lists(
    st.text(alphabet="abcde \u00e9\"\\/\t", min_size=1, max_size=6).filter(lambda text: text.strip(" \t\"'`.*") == text),
    min_size=1, max_size=4, unique_by=str.casefold,
)  # fmt: skip
TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=30).map(str.strip)


def _records(inner: st.SearchStrategy[AnswerType]) -> st.SearchStrategy[AnswerType]:
    fields = st.tuples(NAMES, inner, st.text(max_size=5), st.booleans()).map(lambda parts: Field(*parts))
    return st.lists(fields, min_size=1, max_size=4, unique_by=lambda field: field.name).map(
        lambda fields: Record(tuple(fields))
    )


WORDS = st.sampled_from(["string", "integer", "number", "boolean", "date", "timestamp"])
SIMPLE = WORDS.map(Scalar) | LABELS.map(lambda labels: Labels(tuple(labels)))
TYPES: st.SearchStrategy[AnswerType] = st.recursive(SIMPLE, lambda inner: inner.map(ListOf) | _records(inner), max_leaves=5)
RECORDS = _records(TYPES)


def values(answer: AnswerType) -> st.SearchStrategy[object]:
    """Values as `check` gives them."""
    match answer:
        case Scalar(word):
            return {
                "string": TEXTS,
                "integer": st.integers(-(10**17), 10**17),
                "number": st.decimals(-(10**9), 10**9, places=3).map(float),
                "boolean": st.booleans(),
                "date": st.dates(),
                "timestamp": st.datetimes(dt.datetime(1000, 1, 1)).map(lambda moment: moment.replace(microsecond=0)),
            }[word]
        case Labels(labels):
            return st.sampled_from(labels)
        case ListOf(item):
            return st.lists(values(item), max_size=3)
        case Record(fields):
            parts = {f.name: values(f.type) | st.none() if f.nullable else values(f.type) for f in fields}
            return st.fixed_dictionaries(parts).map(lambda value: {f.name: value[f.name] for f in fields})


def as_json(value: object) -> str:
    """A value as the most compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=lambda moment: moment.isoformat())

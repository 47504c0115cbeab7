"""One suite over runners and operators: whatever runs a pipeline, its table is the same."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

import gdo
from gdo.op import Operator

Step = dict[str, Any]
Calls = Callable[[gdo.Run], int]

ROWS = pa.table(
    {
        "id": pa.array(range(24), pa.int64()),
        "brand": pa.array(["Nike", "nike", None, "Größe", "東京", "", "O'Neill", 'Say "hi"'] * 3, pa.string()),
        "title": pa.array([None if i == 7 else f"title {i % 11} — ünïcode 🎈" for i in range(24)], pa.string()),
        "kind": pa.array(["b", "a", None, "b", "c", "a"] * 4, pa.string()),
        "price": pa.array([None if i == 5 else i / 4 for i in range(24)], pa.float64()),
    }
)
BEFORE = {field.name: field.type for field in ROWS.schema}
ALL_TYPES = {
    "s": "string",
    "n": "integer",
    "x": "number",
    "ok": "boolean",
    "d": "date",
    "t": "timestamp",
    "tags": "list[string]",
    "size": {"labels": ["small", "large"]},
    "box": {"width": "integer", "unit": "string"},
}
ALL_ARROW = {
    "s": pa.string(),
    "n": pa.int64(),
    "x": pa.float64(),
    "ok": pa.bool_(),
    "d": pa.date32(),
    "t": pa.timestamp("us"),
    "tags": pa.list_(pa.string()),
    "size": pa.string(),
    "box": pa.struct([("width", pa.int64()), ("unit", pa.string())]),
}
# What each step adds to the columns that it gets.
SAME: dict[str, tuple[Step, dict[str, pa.DataType]]] = {
    "map": ({"op": "map", "prompt": "Describe {{ title }}", "output": ALL_TYPES}, ALL_ARROW),
    "map into": (
        {"op": "map", "prompt": "{{ title }}", "output": {"a": "string", "b": "integer"}, "into": "both"},
        {"both": pa.struct([("a", pa.string()), ("b", pa.int64())])},
    ),
    "map one into": ({"op": "map", "prompt": "{{ id }}", "output": {"a": "integer"}, "into": "b"}, {"b": pa.int64()}),
    "clean": ({"op": "clean", "column": "brand", "prompt": "Spell {{ brand }}"}, {}),
    "clean keeping": (
        {"op": "clean", "column": "brand", "prompt": "Spell {{ brand }}", "keep_original": True},
        {"brand_original": pa.string()},
    ),
    "clean into": (
        {"op": "clean", "column": "brand", "prompt": "Spell {{ brand }}", "into": "spelt"},
        {"spelt": pa.string()},
    ),
    "classify": (
        {"op": "classify", "text": "{{ title }}", "labels": ["toy", "food", "dark blue"], "confidence": True},
        {"label": pa.string(), "label_confidence": pa.float64()},
    ),
    "classify multi": (
        {"op": "classify", "text": "{{ title }}", "labels": {"toy": "to play", "food": "to eat"}, "multi": True,
         "into": "found"},
        {"found": pa.list_(pa.string())},
    ),
    "extract": (
        {"op": "extract", "text": "{{ title }} {{ brand }}",
         "attributes": {"color": {"type": "string", "labels": ["red", "blue"]}, "size": {"type": "number"}}},
        {"color": pa.string(), "size": pa.float64()},
    ),
    "classify by several": (
        {"op": "classify", "text": "{{ title }}", "labels": ["toy", "food", "dark blue"], "keep_votes": True, "confidence": True,
         "voters": [{"name": "v", "text": "1 {{ title }}"}, {"name": "w"}, {"name": "x", "text": "{{ title }} {{ kind }}"}]},
        {"label": pa.string(), "label_margin": pa.float64(), "label_agreement": pa.float64(), "label_v": pa.string(),
         "label_w": pa.string(), "label_x": pa.string()},
    ),
    "extract by several": (
        {"op": "extract", "text": "{{ title }} {{ brand }}", "into": "found",
         "attributes": {"color": {"type": "string", "labels": ["red", "blue"]}, "size": {"type": "number"}},
         "voters": [{"name": "v", "text": "1 {{ title }}"}, {"name": "w"}, {"name": "x", "temperature": 0.5}]},
        {"found": pa.struct([("color", pa.string()), ("size", pa.float64())])},
    ),
    "vote": (
        {"op": "vote", "columns": {"a": "brand", "b": "title", "c": "kind"}, "into": "said", "confidence": True},
        {"said": pa.string(), "said_margin": pa.float64(), "said_agreement": pa.float64()},
    ),
    "python": (
        {"op": "python", "function": "operator_functions:double", "writes": {"twice": "number", "words": "list[string]"}},
        {"twice": pa.float64(), "words": pa.list_(pa.string())},
    ),
}  # fmt: skip
OTHERS: dict[str, tuple[Step, dict[str, pa.DataType]]] = {
    "filter": (
        {"op": "filter", "prompt": "Keep {{ title }}?", "confidence": True},
        {**BEFORE, "filter_confidence": pa.float64()},
    ),
    "expand": (
        {"op": "expand", "prompt": "Parts of {{ title }}", "output": {"part": "string", "count": "integer"}},
        {**BEFORE, "part": pa.string(), "count": pa.int64()},
    ),
    "expand words": (
        {"op": "expand", "prompt": "Words of {{ title }}", "output": {"word": "list[string]"}, "keep_empty": True},
        {**BEFORE, "word": pa.string()},
    ),
    "reduce": (
        {"op": "reduce", "by": ["kind"], "output": {"summary": "string", "count": "integer"},
         "prompt": "{{ kind }}: {% for row in rows %}{{ row.title }};{% endfor %}"},
        {"kind": pa.string(), "summary": pa.string(), "count": pa.int64()},
    ),
    "sql rows": (
        {"op": "sql", "query": "SELECT id, upper(kind) AS kind, price * 2 AS \"select\" FROM input WHERE id > 3"},
        {"id": pa.int64(), "kind": pa.string(), "select": pa.float64()},
    ),
    "sql filter": ({"op": "sql", "query": "SELECT * FROM input WHERE price > 2"}, BEFORE),
    "sql table": (
        {"op": "sql", "query": "SELECT kind, count(*) AS n, max(price) AS p FROM input GROUP BY kind ORDER BY kind"},
        {"kind": pa.string(), "n": pa.int64(), "p": pa.float64()},
    ),
}  # fmt: skip
CASES = {**{name: (step, {**BEFORE, **new}) for name, (step, new) in SAME.items()}, **OTHERS}
FUNCTIONS = """
import pyarrow as pa

def double(batch):
    prices = [None if p is None else 2 * p for p in batch.column("price").to_pylist()]
    words = [None if t is None else t.split() for t in batch.column("title").to_pylist()]
    return pa.RecordBatch.from_pydict({"words": pa.array(words, pa.list_(pa.string())), "twice": pa.array(prices, pa.float64())})
"""


@pytest.fixture(params=["chat", "plain"])
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def step(case: str, style: str, project: Any) -> Step:
    (project.folder / "operator_functions.py").write_text(FUNCTIONS, encoding="utf-8")
    return asked({**CASES[case][0]}, style)


def asked(step: Step, style: str) -> Step:
    return step if step["op"] in {"sql", "python"} else {**step, "model": style}


def fields(schema: pa.Schema) -> dict[str, pa.DataType]:
    return {field.name: field.type for field in schema}


# Every operator


def test_an_operator_gives_the_schema_that_its_plan_says(project: Any, case: str, step: Step) -> None:
    run = project.run([step], ROWS)
    assert fields(run.table().schema) == CASES[case][1]
    assert fields(run.plan.nodes[-1].schema) == CASES[case][1]
    assert run.errors().num_rows == 0


def test_an_operator_gives_the_same_table_for_any_batch_size(project: Any, step: Step) -> None:
    tables = [project.run([step], ROWS, options={"batch_rows": size}).table() for size in (1, 2, 7, 2048)]
    assert all(table.equals(tables[0]) for table in tables)
    assert tables[0].num_rows


def test_an_operator_gives_the_same_table_for_any_batch_size_without_a_cache(project: Any, step: Step) -> None:
    options = {"cache": False}
    tables = [project.run([step], ROWS, options={"batch_rows": size, **options}).table() for size in (1, 5, 2048)]
    assert all(table.equals(tables[0]) for table in tables)
    assert not (project.folder / ".gdo" / "cache.sqlite").exists()


def test_a_warm_cache_gives_the_same_table_without_a_call(project: Any, step: Step, calls: Calls) -> None:
    cold = project.run([step], ROWS)
    table = cold.table()
    warm = project.run([step], ROWS)
    assert warm.table().equals(table)
    assert calls(warm) == 0
    assert bool(calls(cold)) == Operator.kinds[step["op"]].asks


def test_an_operator_keeps_the_order_of_the_rows(project: Any, case: str, step: Step) -> None:
    table = project.run([step], ROWS, options={"batch_rows": 3}).table()
    if "id" in table.column_names:
        assert table.column("id").to_pylist() == sorted(table.column("id").to_pylist())
    if case in SAME:
        assert table.column("id").equals(ROWS.column("id"))


@pytest.mark.parametrize("case", list(SAME), indirect=True)
def test_columns_that_a_step_does_not_write_stay_as_they_were(project: Any, case: str, step: Step) -> None:
    table = project.run([step], ROWS).table()
    for name in ROWS.column_names:
        if name != step.get("column") or "into" in step:
            assert table.column(name).equals(ROWS.column(name)), name


def test_an_operator_works_on_no_rows(project: Any, case: str, step: Step) -> None:
    run = project.run([step], ROWS.slice(0, 0))
    assert run.table().num_rows == 0
    assert fields(run.table().schema) == CASES[case][1]
    assert run.errors().num_rows == 0


def test_an_operator_works_on_rows_of_nulls(project: Any, case: str, step: Step, calls: Calls) -> None:
    nulls = pa.table({f.name: pa.nulls(5, f.type) for f in ROWS.schema})
    run = project.run([step], nulls)
    assert fields(run.table().schema) == CASES[case][1]
    if case in SAME or case in {"filter", "expand"}:
        assert run.table().num_rows == 5
        assert calls(run) == 0
    assert run.errors().num_rows == 0


def test_rows_are_counted_in_and_out(project: Any, case: str, step: Step) -> None:
    run = project.run([step], ROWS)
    count = next(iter(run.report[node.id] for node in run.plan.nodes))
    assert count["rows_in"] == 24
    assert count["rows_out"] == run.table().num_rows
    assert count["rejected"] == 0
    if case in SAME:
        assert count["rows_out"] == 24


@pytest.mark.parametrize("case", list(SAME), indirect=True)
def test_a_where_leaves_the_other_rows_untouched(project: Any, case: str, style: str) -> None:
    (project.folder / "operator_functions.py").write_text(FUNCTIONS, encoding="utf-8")
    step = asked({**CASES[case][0], "where": "price >= 3 AND price < 5"}, style)
    tables = [project.run([step], ROWS, options={"batch_rows": size}).table() for size in (1, 5, 2048)]
    assert all(table.equals(tables[0]) for table in tables)
    table = tables[0]
    new = [name for name in table.column_names if name not in BEFORE]
    for before, after in zip(ROWS.to_pylist(), table.to_pylist(), strict=True):
        if not (before["price"] is not None and 3 <= before["price"] < 5):
            assert {name: after[name] for name in BEFORE} == before
            assert all(after[name] is None for name in new)
    chosen = [row for row in table.to_pylist() if row["price"] is not None and 3 <= row["price"] < 5]
    assert len(chosen) == 8
    if "voters" in step or step["op"] == "vote":
        return  # what is learned from fewer rows may decide otherwise
    # clean and `sum` aside, what a row is answered does not depend on the others
    whole = project.run([asked({**CASES[case][0]}, style)], ROWS).table().to_pylist()
    assert all(row == whole[row["id"]] for row in chosen)


# One by one


def test_a_filter_drops_only_what_is_answered_no(project: Any, style: str) -> None:
    run = project.run([asked(OTHERS["filter"][0], style)], ROWS)
    kept = run.table()
    assert 0 < kept.num_rows < ROWS.num_rows
    assert 7 in kept.column("id").to_pylist()  # its title is null: nobody said no
    if style == "plain":
        confidence = kept.column("filter_confidence").to_pylist()
        assert all(
            c is None if i == 7 else 0.5 < c <= 1 for i, c in zip(kept["id"].to_pylist(), confidence, strict=True)
        )


def test_a_filter_says_what_its_confidence_column_is_called(project: Any) -> None:
    step = {"op": "filter", "prompt": "{{ title }}?", "confidence": True, "into": "sure", "model": "plain"}
    assert project.run([step], ROWS).table().column_names[-1] == "sure"


def test_a_filter_with_a_where_drops_none_of_the_other_rows(project: Any, style: str) -> None:
    step = asked({"op": "filter", "prompt": "Keep {{ id }}?", "where": "id >= 12"}, style)
    table = project.run([step], ROWS, options={"batch_rows": 5}).table()
    assert table.column("id").to_pylist()[:12] == list(range(12))
    assert table.num_rows < 24


def test_clean_with_a_prompt_over_another_column_reads_that_column(project: Any) -> None:
    project_answers = project.module("import json\ndef echo(r): return json.dumps({'brand': r.body})")
    models = {"echo": {"backend": "fake", "answer": f"{project_answers}:echo"}}
    rows = pa.table({"brand": ["x"], "title": ["Air Max"]})
    step = {"op": "clean", "column": "brand", "prompt": "Brand of {{ title }}", "model": "echo"}
    assert project.run([step], rows, models=models).table().to_pylist() == [
        {"brand": "Brand of Air Max", "title": "Air Max"}
    ]


def test_clean_by_a_udp_of_one_input_reads_the_column_to_be_cleaned(project: Any) -> None:
    answers = project.module("import json\ndef echo(r): return json.dumps({'name': r.body})")
    (project.folder / "udps").mkdir()
    (project.folder / "udps" / "shout.yaml").write_text(
        "udp: shout\nprompt: 'loud {{ name }}'\noutput: {name: string}\n"
    )
    models = {"echo": {"backend": "fake", "answer": f"{answers}:echo"}}
    rows = pa.table({"brand name": ["nike", None], "name": ["other", "other"]})
    step = {"op": "clean", "column": "brand name", "udp": "shout", "model": "echo"}
    table = project.run([step], rows, models=models).table()
    assert table.column("brand name").to_pylist() == ["loud nike", None]


def test_map_replaces_a_column_of_the_same_name(project: Any, style: str) -> None:
    step = asked({"op": "map", "prompt": "{{ title }}", "output": {"price": "string"}}, style)
    table = project.run([step], ROWS).table()
    assert table.column_names == ROWS.column_names
    assert table.schema.field("price").type == pa.string()


def test_expand_repeats_a_row_for_each_item_in_order(project: Any) -> None:
    answers = project.module(
        "import json\ndef count(r): return json.dumps({'items': [{'n': i} for i in range(int(r.body))]})"
    )
    models = {"count": {"backend": "fake", "answer": f"{answers}:count"}}
    rows = pa.table({"k": [2, 0, 3, None, 1], "keep": ["a", "b", "c", "d", "e"]})
    step = {"op": "expand", "prompt": "{{ k }}", "output": {"n": "integer"}, "model": "count"}
    found = [(r["keep"], r["n"]) for r in project.run([step], rows, models=models).table().to_pylist()]
    assert found == [("a", 0), ("a", 1), ("c", 0), ("c", 1), ("c", 2), ("d", None), ("e", 0)]
    kept = project.run([{**step, "keep_empty": True}], rows, models=models).table()
    assert [(r["keep"], r["n"]) for r in kept.to_pylist()] == [*found[:2], ("b", None), *found[2:]]
    into = project.run([{**step, "into": "item"}], rows, models=models).table()
    assert into.column("item").to_pylist() == [0, 1, 0, 1, 2, None, 0]


def test_expand_is_followed_by_steps_that_see_its_rows(project: Any, style: str, calls: Calls) -> None:
    steps = [
        asked({"op": "expand", "prompt": "Parts of {{ title }}", "output": {"part": "string"}}, style),
        asked({"op": "map", "prompt": "About {{ part }}", "output": {"about": "string"}}, style),
        asked({"op": "filter", "prompt": "Is {{ about }} good?"}, style),
        {"op": "sql", "query": "SELECT id, part, about FROM input"},
    ]
    tables = [project.run(steps, ROWS, options={"batch_rows": size}).table() for size in (1, 7, 2048)]
    assert all(table.equals(tables[0]) for table in tables)
    assert tables[0].column("id").to_pylist() == sorted(tables[0].column("id").to_pylist())
    assert calls(project.run(steps, ROWS)) == 0


def test_reduce_gives_groups_by_first_appearance_and_null_is_a_group(project: Any) -> None:
    answers = project.module("import json\ndef echo(r): return json.dumps({'seen': r.body})")
    models = {"echo": {"backend": "fake", "answer": f"{answers}:echo"}}
    rows = pa.table({"k": ["b", None, "a", "b", None, "c", "a"], "j": [1, 2, 1, 1, 2, 1, 2], "v": list("uvwxyzq")})
    prompt = "{% for row in rows %}{{ row.v }}{% endfor %}"
    step = {"op": "reduce", "by": ["k"], "prompt": prompt, "output": {"seen": "string"}, "model": "echo"}
    for size in (1, 2, 100):
        table = project.run([step], rows, models=models, options={"batch_rows": size}).table()
        assert table.to_pylist() == [
            {"k": "b", "seen": "ux"},
            {"k": None, "seen": "vy"},
            {"k": "a", "seen": "wq"},
            {"k": "c", "seen": "z"},
        ]
        two = project.run([{**step, "by": ["k", "j"]}], rows, models=models, options={"batch_rows": size}).table()
        assert [(r["k"], r["j"], r["seen"]) for r in two.to_pylist()] == [
            ("b", 1, "ux"), (None, 2, "vy"), ("a", 1, "w"), ("c", 1, "z"), ("a", 2, "q"),
        ]  # fmt: skip


def test_reduce_with_a_where_passes_the_other_rows_on_and_shows_the_prompt_no_inner_columns(project: Any) -> None:
    answers = project.module("import json\ndef echo(r): return json.dumps({'seen': r.body})")
    models = {"echo": {"backend": "fake", "answer": f"{answers}:echo"}}
    rows = pa.table({"k": ["b", "a", "b", "a"], "v": [1, 2, 3, 4]})
    step = {"op": "reduce", "by": ["k"], "prompt": "{{ rows | tojson }}", "output": {"seen": "string"},
            "model": "echo", "where": "v < 4"}  # fmt: skip
    found = project.run([step], rows, models=models).table().to_pylist()
    assert [(r["k"], r["seen"]) for r in found] == [
        ("b", '[{"k": "b", "v": 1}, {"k": "b", "v": 3}]'),
        ("a", '[{"k": "a", "v": 2}]'),
        ("a", None),
    ]


def test_reduce_after_reduce(project: Any, style: str) -> None:
    prompt = "{% for row in rows %}{{ row.title }}{{ row.s }}{% endfor %}"
    steps = [
        asked({"op": "reduce", "by": ["kind", "brand"], "prompt": "{{ rows }}", "output": {"title": "string", "s": "string"}}, style),  # noqa: E501
        asked({"op": "reduce", "by": ["kind"], "prompt": prompt, "output": {"s": "string"}}, style),
    ]  # fmt: skip
    tables = [project.run(steps, ROWS, options={"batch_rows": size}).table() for size in (1, 7, 2048)]
    assert all(table.equals(tables[0]) for table in tables)
    assert tables[0].column("kind").to_pylist() == ["b", "a", None, "c"]


def test_whole_table_queries_follow_each_other(project: Any) -> None:
    steps = [
        {"op": "sql", "query": "SELECT kind, count(*) AS n FROM input GROUP BY kind ORDER BY kind"},
        {"op": "sql", "query": "SELECT max(n) AS most FROM input"},
    ]
    assert project.run(steps, ROWS).table().to_pylist() == [{"most": 8}]


def test_a_whole_table_query_follows_a_reduce(project: Any, style: str) -> None:
    steps = [
        asked(OTHERS["reduce"][0], style),
        {"op": "sql", "query": "SELECT count(*) AS n FROM input"},
    ]
    assert project.run(steps, ROWS).table().to_pylist() == [{"n": 4}]


@pytest.mark.parametrize("name", ["first", "input", "rows_", "select", "min", 'a "b"', "__group", "__first__"])
def test_reduce_takes_columns_of_any_name(project: Any, name: str) -> None:
    rows = pa.table({name: ["x", "y", "x"], "v": [1, 2, 3]})
    step = {"op": "reduce", "by": ["v"], "prompt": "{{ rows }}", "output": {"s": "string"}, "model": "chat"}
    assert project.run([step], rows).table().column("v").to_pylist() == [1, 2, 3]
    by = {**step, "by": [name]}
    assert project.run([by], rows).table().column(name).to_pylist() == ["x", "y"]


def test_a_whole_table_query_with_a_where_keeps_its_order(project: Any) -> None:
    rows = pa.table({"n": [1, 4, 2, 3]})
    step = {"op": "sql", "query": "SELECT * FROM input ORDER BY n DESC", "where": "n > 1"}
    table = project.run([step], rows).table()
    assert table.column("n").to_pylist()[:3] == [4, 3, 2]
    assert table.column_names == ["n"]


def test_a_query_over_whole_rows_shows_no_inner_column(project: Any) -> None:
    rows = pa.table({"n": [1, 2]})
    step = {"op": "sql", "query": "SELECT CAST(to_json(input) AS VARCHAR) AS j FROM input"}
    assert project.run([step], rows).table().column("j").to_pylist() == ['{"n":1}', '{"n":2}']
    assert project.run([{**step, "where": "n > 0"}], rows).table().column("j").to_pylist() == ['{"n":1}', '{"n":2}']


def test_a_python_function_gets_only_the_columns_of_the_table(project: Any) -> None:
    module = project.module(
        "import pyarrow as pa\n"
        "def names(batch): return pa.RecordBatch.from_pydict({'seen': [','.join(batch.schema.names)] * batch.num_rows})"
    )
    rows = pa.table({"n": [1, 2, 3]})
    step = {"op": "python", "function": f"{module}:names", "writes": {"seen": "string"}}
    assert project.run([step], rows).table().column("seen").to_pylist() == ["n"] * 3
    partly = project.run([{**step, "where": "n > 1"}], rows).table()
    assert partly.column("seen").to_pylist() == [None, "n", "n"]


def test_a_python_function_fails_only_on_the_rows_that_make_it_raise(project: Any) -> None:
    module = project.module(
        "import pyarrow as pa, pyarrow.compute as pc\n"
        "def invert(batch): return pa.RecordBatch.from_pydict({'y': pc.divide(6, batch.column('n'))})"
    )
    rows = pa.table({"n": [1, 0, 2, 3, 0]})
    step = {"op": "python", "function": f"{module}:invert", "writes": {"y": "integer"}}
    run = project.run([step], rows)
    assert run.table().column("y").to_pylist() == [6, None, 3, 2, None]
    assert [(e["row_key"], e["reason"]) for e in run.errors().to_pylist()] == [(1, "python"), (4, "python")]
    rejected = project.run([{**step, "on_error": "reject"}], rows)
    assert rejected.table().column("n").to_pylist() == [1, 2, 3]
    with pytest.raises(gdo.RunFailed, match="row 1"):
        project.run([{**step, "on_error": "fail"}], rows)


@pytest.mark.parametrize(
    "body",
    [
        "return 5",
        "return batch.slice(1)",
        "return pa.RecordBatch.from_pydict({'y': [1]})",
        "return pa.RecordBatch.from_pydict({'z': [1] * batch.num_rows})",
    ],
)
def test_a_python_function_that_returns_the_wrong_thing_ends_the_run(project: Any, body: str) -> None:
    module = project.module(f"import pyarrow as pa\ndef wrong(batch): {body}\n")
    step = {"op": "python", "function": f"{module}:wrong", "writes": {"y": "integer"}}
    with pytest.raises(gdo.RunFailed, match=f"step 'python': {module}:wrong: it (returned|did not return)"):
        project.run([step], pa.table({"n": [1, 2, 3]}))
    assert not (project.folder / "out.parquet").exists()


def test_a_python_function_that_leaves_the_process_is_an_error_of_its_row(project: Any) -> None:
    module = project.module("def leave(batch): raise SystemExit(3)\n")
    step = {"op": "python", "function": f"{module}:leave", "writes": {"y": "integer"}}
    run = project.run([step], pa.table({"n": [1]}))
    assert run.errors().column("detail").to_pylist() == ["SystemExit: 3"]


@pytest.mark.parametrize("name", ["items", "values", "keys", "get"])
def test_a_column_that_is_called_like_a_method_is_read_as_a_column(project: Any, name: str) -> None:
    step = {"op": "reduce", "by": ["shop"], "prompt": f"{{% for row in rows %}}{{{{ row.{name} }}}} {{% endfor %}}",
            "output": {"x": "string"}, "model": "broken"}  # fmt: skip
    models = {"broken": {"backend": "fake", "fail_every": 1}}
    run = project.run([step], pa.table({"shop": ["a", "a"], name: ["one", "two"]}), models=models)
    assert run.errors().column("prompt")[0].as_py().split()[-2:] == ["one", "two"]


def test_a_method_in_a_prompt_is_a_fault_of_the_row_and_reaches_no_model(project: Any) -> None:
    step = {"op": "map", "prompt": "{{ name.upper }}", "output": {"x": "string"}}
    run = project.run([step], pa.table({"name": ["a"]}))
    assert run.errors().column("detail").to_pylist() == ["upper is a function, not a value"]
    assert run.report["map"]["calls"] == 0


def test_a_query_that_fails_on_a_row_names_its_step(project: Any) -> None:
    rows = pa.table({"name": ["a", "3"]})
    cast = "CAST(name AS INTEGER) > 1"
    for step in (
        {"op": "map", "id": "told", "prompt": "{{ name }}", "output": {"x": "string"}, "where": cast},
        {"op": "sql", "id": "told", "query": f"SELECT *, {cast} AS y FROM input"},
    ):
        with pytest.raises(gdo.RunFailed, match=r"step 'told': .*convert"):
            project.run([step], rows)


# Faults of rows


FAILING = {
    "refusing": {"backend": "fake", "fail_every": 3},
    "babbling": {"backend": "fake", "fail_every": 2, "fail_with": "text"},
    "mute": {"backend": "fake", "fail_every": 1},
    "late": {"backend": "fake", "fail_every": 1, "fail_with": "timeout"},
    "busy": {"backend": "fake", "fail_every": 1, "fail_with": "server"},
    "plain mute": {"backend": "fake", "style": "plain", "fail_every": 1},
    "chatty": {"backend": "fake", "fail_every": 1, "fail_with": "text"},
}
PROMPTED = {
    name: CASES[name][0]
    for name in (
        "map",
        "map into",
        "clean",
        "clean into",
        "classify",
        "classify multi",
        "extract",
        "filter",
        "expand",
        "reduce",
    )
}


@pytest.fixture(params=list(PROMPTED))
def prompted(request: pytest.FixtureRequest) -> Step:
    return dict(PROMPTED[request.param])


def test_a_failed_row_is_kept_with_nulls_and_stands_in_the_errors(project: Any, prompted: Step) -> None:
    run = project.run([{**prompted, "model": "refusing"}], ROWS, models=FAILING)
    table, errors = run.table(), run.errors().to_pylist()
    assert {e["reason"] for e in errors} == {"refused"}
    assert {e["detail"] for e in errors} == {"told to fail"}
    assert all(e["step"] == prompted["op"] and e["attempts"] == 1 and e["prompt"] for e in errors)
    if prompted["op"] == "reduce":
        assert table.num_rows == 4
        return
    rows = {row["id"]: row for row in table.to_pylist()}
    whole = project.run([{**prompted, "model": "chat"}], ROWS, models={"chat": {"backend": "fake"}}).table()
    new = [name for name in table.column_names if name not in BEFORE or name == prompted.get("column")]
    new = [prompted["into"]] if prompted["op"] == "clean" and "into" in prompted else new
    for error in errors:
        assert error["row_key"] in rows
        assert all(rows[error["row_key"]][name] is None for name in new)
    if prompted["op"] not in {"expand", "filter"}:
        assert table.num_rows == whole.num_rows == 24


def test_a_rejected_row_is_gone_and_counted(project: Any, prompted: Step) -> None:
    kept = project.run([{**prompted, "model": "refusing"}], ROWS, models=FAILING)
    stayed = kept.table()
    run = project.run([{**prompted, "model": "refusing", "on_error": "reject"}], ROWS, models=FAILING)
    table, count = run.table(), run.report[prompted["op"]]
    failed = set(run.errors().column("row_key").to_pylist())
    assert count["rejected"] == len(failed) == kept.errors().num_rows
    assert count["rows_out"] == table.num_rows == stayed.num_rows - len(failed)
    if prompted["op"] not in {"expand", "filter", "reduce"}:
        assert count["rows_in"] == count["rows_out"] + count["rejected"]
        assert table.column("id").to_pylist() == [i for i in range(24) if i not in failed]


@pytest.mark.parametrize("size", [1, 3, 2048])
def test_a_rejection_under_a_where_takes_only_rows_that_were_asked(project: Any, size: int) -> None:
    step = {"op": "map", "prompt": "{{ id }}", "output": {"a": "string"}, "model": "mute", "on_error": "reject",
            "where": "id < 5"}  # fmt: skip
    run = project.run([step], ROWS, models=FAILING, options={"batch_rows": size})
    assert run.table().column("id").to_pylist() == list(range(5, 24))
    assert run.report["map"]["rejected"] == 5


def test_on_error_fail_stops_the_run_and_names_the_row(project: Any, prompted: Step) -> None:
    before = project.old_sink()
    with pytest.raises(gdo.RunFailed, match=rf"step '{prompted['op']}', row \d+: refused"):
        project.run([{**prompted, "model": "refusing", "on_error": "fail"}], ROWS, models=FAILING)
    assert project.sink() == before
    assert sorted(p.name for p in project.folder.iterdir() if p.suffix == ".part") == []


def test_on_error_fail_sends_no_more_than_what_was_in_flight(project: Any) -> None:
    models = {"slow": {"backend": "fake", "fail_every": 1, "latency_s": 0.01, "concurrency": 2}}
    rows = pa.table({"n": list(range(800))})
    step = {"op": "map", "prompt": "{{ n }}", "output": {"a": "string"}, "model": "slow", "on_error": "fail"}
    path = project.write([step], rows, models=models)
    with pytest.raises(gdo.RunFailed):
        gdo.run(path, runner=project.runner, batch_rows=100)
    runs = list((project.folder / ".gdo" / "runs").iterdir())
    sent = pyarrow.parquet.read_table(runs[0] / "calls.parquet").num_rows
    assert sent < 400


@pytest.mark.parametrize(
    ("model", "reason"), [("mute", "refused"), ("late", "timeout"), ("busy", "server"), ("plain mute", "refused")]
)
def test_each_kind_of_failure_has_its_word(project: Any, model: str, reason: str) -> None:
    step = {"op": "classify", "text": "{{ title }}", "labels": ["a", "b"], "model": model}
    run = project.run([step], ROWS, models=FAILING)
    assert set(run.errors().column("reason").to_pylist()) == {reason}
    assert run.table().column("label").to_pylist() == [None] * 24
    assert run.errors().num_rows == 23  # one title is null
    assert run.report["classify"]["errors"] == 23


def test_a_reply_that_is_no_json_is_asked_again_and_then_an_error(project: Any) -> None:
    step = {"op": "map", "prompt": "{{ title }}", "output": {"a": "integer", "b": "integer"}, "model": "chatty"}
    run = project.run([{**step, "retries": 2}], ROWS, models=FAILING)
    errors = run.errors().to_pylist()
    assert {(e["reason"], e["attempts"], e["raw_reply"]) for e in errors} == {
        ("unparsable", 3, "I cannot answer that.")
    }
    assert run.report["map"]["calls"] == 3 * 11  # ten titles and an eleventh, each three times
    assert sorted(run.calls().column("attempts").to_pylist()) == [1] * 33  # each round is a call of its own
    none = project.run([{**step, "retries": 0, "max_tokens": 9}], ROWS, models=FAILING)
    assert none.report["map"]["calls"] == 11
    assert {e["attempts"] for e in none.errors().to_pylist()} == {1}


def test_asking_again_names_the_fault_and_mends_the_row(project: Any) -> None:
    answers = project.module(
        "import json\ndef second(r): return json.dumps({'n': 7 if 'none of the labels' in r.text() or 'not a' in r.text() else 'x'})"  # noqa: E501
    )
    models = {"second": {"backend": "fake", "answer": f"{answers}:second"}}
    step = {"op": "map", "prompt": "{{ title }}", "output": {"n": "integer"}, "model": "second"}
    run = project.run([step], ROWS, models=models)
    assert run.errors().num_rows == 0
    assert set(run.table().column("n").to_pylist()) == {7, None}
    assert run.report["map"]["calls"] == 22
    assert project.run([{**step, "retries": 0}], ROWS, models=models).errors().num_rows == 23


def test_failures_are_asked_again_by_the_next_run_and_answers_are_not(project: Any, calls: Calls) -> None:
    step = {"op": "map", "prompt": "{{ id }}", "output": {"a": "string"}, "model": "refusing"}
    first = project.run([step], ROWS, models=FAILING)
    table = first.table()
    second = project.run([step], ROWS, models=FAILING)
    assert calls(first) == 24
    assert calls(second) == first.errors().num_rows
    assert second.table().equals(table)
    assert second.errors().sort_by("row_key").equals(first.errors().sort_by("row_key"))


def test_each_row_of_a_failed_prompt_stands_in_the_errors(project: Any, calls: Calls) -> None:
    rows = pa.table({"t": ["x", "y", "x", None, "x"]})
    step = {"op": "map", "prompt": "{{ t }}", "output": {"a": "string"}, "model": "mute"}
    run = project.run([step], rows, models=FAILING)
    assert run.errors().column("row_key").to_pylist() == [0, 1, 2, 4]
    assert calls(run) == 2


def test_the_key_of_an_error_is_the_row_of_the_source_after_filters(project: Any) -> None:
    steps = [
        {"op": "sql", "query": "SELECT * FROM input WHERE id % 2 = 1"},
        {"op": "filter", "prompt": "{{ id }}?", "model": "chat"},
        {"op": "map", "prompt": "say {{ id }}", "output": {"a": "string"}, "model": "mute"},
    ]
    run = project.run(steps, ROWS, models={**FAILING, "chat": {"backend": "fake"}}, options={"batch_rows": 3})
    assert sorted(run.errors().column("row_key").to_pylist()) == run.table().column("id").to_pylist()


def test_a_prompt_that_renders_to_nothing_is_an_error_of_its_row(project: Any, calls: Calls) -> None:
    rows = pa.table({"t": ["", "  ", "x"], "n": [1, 2, 3]})
    step = {"op": "map", "prompt": "{% if n > 1 %}{{ t }}{% endif %}", "output": {"a": "string"}, "model": "chat"}
    run = project.run([step], rows)
    assert [(e["row_key"], e["reason"]) for e in run.errors().to_pylist()] == [(0, "empty_prompt"), (1, "empty_prompt")]
    assert calls(run) == 1


def test_a_template_that_fails_on_a_row_is_an_error_of_that_row(project: Any) -> None:
    rows = pa.table({"n": [1, None, 0], "m": [1, 1, 1]})
    step = {"op": "map", "prompt": "{{ m / n }}", "output": {"a": "string"}, "model": "chat"}
    run = project.run([step], rows)
    assert [(e["row_key"], e["reason"]) for e in run.errors().to_pylist()] == [(1, "template"), (2, "template")]
    assert run.table().column("a").null_count == 2


def test_a_template_of_numbers_is_scored_like_any_other(project: Any, style: str) -> None:
    text = "{{ title }} costs {{ '%.2f' % price }} {{ (price * 2) | round(1) }}"
    step = asked({"op": "classify", "text": text, "labels": ["cheap", "dear"]}, style)
    run = project.run([step], ROWS.slice(8))
    assert run.errors().num_rows == 0
    assert set(run.table().column("label").to_pylist()) <= {"cheap", "dear"}


def test_an_unknown_model_is_a_fault_with_the_nearest_name(project: Any) -> None:
    step = {"op": "map", "prompt": "{{ id }}", "output": {"a": "string"}, "model": "chta"}
    with pytest.raises(gdo.Faults, match="did you mean 'chat'"):
        project.run([step], ROWS)


def test_two_steps_ask_two_models(project: Any) -> None:
    step = {"op": "map", "prompt": "{{ id }}", "output": {"a": "string"}}
    run = project.run([{**step, "model": "chat"}, {**step, "model": "plain", "into": "b"}], ROWS)
    assert set(run.calls().column("model").to_pylist()) == {"chat", "plain"}
    assert run.calls().column_names == [
        "step", "model", "prompt_tokens", "completion_tokens", "latency_s", "cached", "attempts", "error",
    ]  # fmt: skip


# Names and conditions

ODD = ["a b", 'quo"te', "it's", "select", "Größe", "group", "1st", "a.b", "semi;colon", "new\nline", "%s", "{x}"]


@pytest.mark.parametrize("name", ODD)
def test_columns_of_any_name_pass_every_operator(project: Any, name: str) -> None:
    (project.folder / "udps").mkdir()
    udp = {"udp": "tidy", "prompt": "Tidy:\n{{ fields }}", "inputs": [name], "output": {"out": "string"}}
    (project.folder / "udps" / "tidy.yaml").write_text(yaml.safe_dump(udp), encoding="utf-8")
    quoted = '"' + name.replace('"', '""') + '"'
    rows = pa.table({name: ["x", None, "y", "x"], "v": [1, 2, 3, 4]})
    ask = {"model": "chat"}
    steps = [
        {"op": "map", "udp": "tidy", "where": f"{quoted} = 'x' OR {quoted} IS NULL", **ask},
        {"op": "clean", "column": name, "prompt": "Clean {{ v }}", "into": f"{name} 2", **ask},
        {"op": "classify", "text": "{{ v }}", "labels": ["a", "b"], "into": f"{name} 3", **ask},
        {"op": "filter", "prompt": "{{ v }}", "confidence": True, "into": f"{name} 4", "where": "v > 100", **ask},
        {"op": "expand", "prompt": "{{ v }}", "output": {"e": "string"}, "keep_empty": True, **ask},
        {"op": "sql", "query": f"SELECT * FROM input WHERE {quoted} IS NULL OR {quoted} = 'x'"},
        {"op": "sql", "query": "SELECT * FROM input ORDER BY v, e"},
        {"op": "reduce", "by": [name], "prompt": "{{ rows }}", "output": {"sum": "string"}, **ask},
    ]
    if project.runner == "beam":
        steps = [step for step in steps if "ORDER BY" not in str(step.get("query"))]
    tables = [project.run(steps, rows, options={"batch_rows": size}).table() for size in (1, 2048)]
    assert tables[0].equals(tables[1])
    assert tables[0].column(name).to_pylist() == ["x", None]


@pytest.mark.parametrize("name", ["range", "dict", "namespace", "lipsum", "rows", "fields", "loop"])
def test_a_column_of_any_name_is_read_by_a_prompt(project: Any, name: str) -> None:
    answers = project.module("import json\ndef echo(r): return json.dumps({'seen': r.body})")
    models = {"echo": {"backend": "fake", "answer": f"{answers}:echo"}}
    rows = pa.table({name: ["x", "y"]})
    step = {"op": "map", "prompt": "It is {{ %s }}" % name, "output": {"seen": "string"}, "model": "echo"}  # noqa: UP031
    assert project.run([step], rows, models=models).table().column("seen").to_pylist() == ["It is x", "It is y"]


def test_a_condition_may_write_a_column_in_any_case_even_one_that_nothing_else_reads(project: Any) -> None:
    steps = [
        {"op": "map", "prompt": "{{ title }}", "output": {"a": "string"}, "model": "chat", "where": "PRICE > 2"},
        {"op": "sql", "query": "SELECT id, a FROM input"},
    ]
    run = project.run(steps, ROWS)
    assert run.table().column("a").null_count == sum(
        row["price"] is None or row["price"] <= 2 or row["title"] is None for row in ROWS.to_pylist()
    )


@pytest.mark.parametrize(
    "condition",
    ["price > (SELECT avg(price) FROM input)", "max(price) > 3", "row_number() OVER () < 5", "price > 1; DROP TABLE x",
     "nope > 1", "price >", "'a'"],
)  # fmt: skip
def test_a_condition_that_is_not_about_one_row_is_a_fault(project: Any, condition: str) -> None:
    step = {"op": "map", "prompt": "{{ title }}", "output": {"a": "string"}, "model": "chat", "where": condition}
    with pytest.raises(gdo.Faults, match=r"pipeline\.yaml:\d+:\d+: "):
        project.run([step], ROWS)


def test_a_where_that_no_row_meets_asks_nothing(project: Any, prompted: Step, calls: Calls) -> None:
    run = project.run([{**prompted, "model": "chat", "where": "id < 0"}], ROWS)
    assert calls(run) == 0
    assert run.table().num_rows == 24
    assert run.table().column("kind").to_pylist() == ROWS.column("kind").to_pylist()


def test_a_where_over_a_column_of_another_type_wants_another_name(project: Any) -> None:
    step = {"op": "map", "prompt": "{{ title }}", "output": {"price": "string"}, "model": "chat", "where": "id > 1"}
    with pytest.raises(gdo.Faults, match="into"):
        project.run([step], ROWS)


# Graphs


def test_two_steps_read_one_source_and_each_has_its_sink(project: Any, style: str) -> None:
    steps = [
        asked({"op": "map", "id": "left", "prompt": "L {{ id }}", "output": {"a": "string"}}, style),
        asked({"op": "filter", "id": "right", "from": "source", "prompt": "R {{ id }}"}, style),
        asked({"op": "reduce", "id": "deep", "from": "left", "by": ["kind"], "prompt": "{{ rows }}", "output": {"s": "string"}}, style),  # noqa: E501
    ]  # fmt: skip
    sinks = [
        {"path": "left.parquet", "from": "left"},
        {"path": "right.csv", "from": "right"},
        {"path": "deep.jsonl", "from": "deep"},
        {"path": "raw.parquet", "from": "source"},
    ]
    for size in (3, 2048):
        run = project.run(steps, ROWS, sinks=sinks, options={"batch_rows": size})
        assert run.table(0).num_rows == 24
        assert run.table(1).column_names == ROWS.column_names
        assert run.table(2).column("kind").to_pylist() == ["b", "a", None, "c"]
        assert run.table(3).equals(ROWS)


def test_a_shared_step_is_asked_once(project: Any, calls: Calls) -> None:
    steps = [
        {"op": "map", "id": "base", "prompt": "{{ id }}", "output": {"a": "string"}, "model": "chat"},
        {"op": "sql", "id": "one", "query": "SELECT id FROM input"},
        {"op": "sql", "id": "two", "from": "base", "query": "SELECT a FROM input ORDER BY a"},
    ]
    sinks = [{"path": "1.parquet", "from": "one"}, {"path": "2.parquet", "from": "two"}]
    run = project.run(steps, ROWS, sinks=sinks, options={"cache": False})
    assert calls(run) == 24
    assert run.report["base"]["rows_in"] == 24


def test_shared_steps_over_a_shared_source(project: Any) -> None:
    steps = [
        {"op": "map", "id": "base", "prompt": "{{ id }}", "output": {"a": "string"}, "model": "chat"},
        {"op": "reduce", "id": "one", "by": ["kind"], "prompt": "{{ rows }}", "output": {"s": "string"}, "model": "chat"},
        {"op": "sql", "id": "two", "from": "base", "query": "SELECT count(*) AS n FROM input"},
        {"op": "sql", "id": "three", "from": "source", "query": "SELECT max(id) AS m FROM input"},
        {"op": "sql", "id": "four", "from": "one", "query": "SELECT count(*) AS g FROM input"},
    ]  # fmt: skip
    names = ["one", "two", "three", "four"]
    run = project.run(steps, ROWS, sinks=[{"path": f"{name}.parquet", "from": name} for name in names])
    assert run.table(0).num_rows == 4
    assert [run.table(i).to_pylist() for i in (1, 2, 3)] == [[{"n": 24}], [{"m": 23}], [{"g": 4}]]


def test_a_graph_has_named_sources(project: Any) -> None:
    sources = {
        "shop": project.source(ROWS, "shop.parquet"),
        "depot": project.source(pa.table({"n": [1, 2]}), "depot.parquet"),
    }
    steps = [
        {"op": "map", "from": "depot", "id": "a", "prompt": "{{ n }}", "output": {"x": "string"}, "model": "chat"},
        {"op": "filter", "from": "shop", "id": "b", "prompt": "{{ title }}", "model": "chat"},
    ]
    sinks = [{"path": "a.parquet", "from": "a"}, {"path": "b.parquet", "from": "b"}]
    run = project.run(steps, sources=sources, sinks=sinks)
    assert run.table(0).column("n").to_pylist() == [1, 2]
    assert run.table(1).schema.names == ROWS.column_names


def test_a_condition_moves_ahead_and_the_table_stays_the_same(project: Any, style: str, calls: Calls) -> None:
    ask = asked({"op": "map", "prompt": "{{ id }}", "output": {"a": "string"}}, style)
    steps = [ask, {"op": "sql", "query": "SELECT * FROM input WHERE price > 2"}]
    moved = project.run(steps, ROWS)
    table = moved.table()
    kept = project.run([ask, {"op": "sql", "query": "SELECT * FROM input WHERE price > 2 ORDER BY id"}], ROWS)
    assert table.equals(kept.table())
    assert calls(moved) == 15
    assert calls(kept) == 9  # the others were paid for by the run before


def test_a_pipeline_without_a_sink_leaves_its_rows_in_the_run_folder(project: Any) -> None:
    path = project.write([asked(SAME["map"][0], "chat")], ROWS)
    path.write_text(path.read_text(encoding="utf-8").replace("sink:\n  path: result.parquet\n", ""), encoding="utf-8")
    run = gdo.run(path, runner=project.runner)
    assert run.table().num_rows == 24
    assert list(run.folder.glob("result*.parquet"))

"""Each rule by a pair of plan texts, and by running both plans: the same rows, and no more calls."""

from pathlib import Path

import pytest

from gdo.desk import Desk
from gdo.engine import RUNNERS
from gdo.ledger import Ledger
from gdo.optimize import RULES, optimize
from gdo.optimize.columns import read_needed_columns
from gdo.optimize.conditions import conditions_first
from gdo.optimize.fields import SAMPLE, least_varied_first
from gdo.runners.duckdb import DuckDBRunner

PRODUCTS = "title,price,brand,note\n" + "".join(f"t{i % 7},{i % 5},b{i % 3},n{i}\n" for i in range(60))
START = "models: {local: {backend: fake}}\nsource: {path: many.csv}\nsink: {path: out.parquet}\nsteps:\n"


@pytest.fixture
def many(project):
    project.write("many.csv", PRODUCTS)
    return project


class Silent:
    def errors(self, step, failures):
        pass

    def calls(self, calls):
        pass


def carried_out(plan, folder: Path):
    import pyarrow.parquet

    ledger = Ledger(Silent())
    with Desk(plan.models, plan.folder, ledger, None) as desk:
        DuckDBRunner(desk, folder / "spill.duckdb", "run", 1000).run(plan)
    rows = pyarrow.parquet.read_table(folder / "out.parquet").to_pylist()
    return rows, sum(count.calls for count in ledger.steps.values())


def steps(*lines):
    return START + "".join(f"  - {line}\n" for line in lines)


MAP = '{op: map, prompt: "{{ title }} {{ note }}", output: {x: string}}'

MOVES = {
    "past a map": ([MAP, "{op: sql, query: SELECT * FROM input WHERE price > 2}"], ["sql", "map"]),
    "past two": (
        [
            MAP,
            '{op: clean, column: brand, prompt: "{{ brand }}"}',
            "{op: sql, query: SELECT * FROM input WHERE price > 2}",
        ],
        ["sql", "map", "clean"],
    ),
    "past a filter": (
        ['{op: filter, prompt: "{{ title }}{{ note }}?"}', "{op: sql, query: SELECT * FROM input WHERE price > 2}"],
        ["sql", "filter"],
    ),
}
MOVES["past a map with a condition"] = (
    [
        '{op: map, prompt: "{{ title }} {{ note }}", output: {x: string}, where: price < 4}',
        "{op: sql, query: SELECT * FROM input WHERE price > 2}",
    ],
    ["sql", "map"],
)

STAYS = {
    "behind what it reads": [MAP, "{op: sql, query: SELECT * FROM input WHERE x LIKE '%1%'}"],
    "behind what it reads in another case": [MAP, "{op: sql, query: SELECT * FROM input WHERE X LIKE '%1%'}"],
    "behind a column that was cleaned": [
        '{op: clean, column: brand, prompt: "{{ brand }}"}',
        "{op: sql, query: SELECT * FROM input WHERE brand = 'b1'}",
    ],
    "behind a step that fails the run": [
        MAP.replace("output", "on_error: fail, output"),
        "{op: sql, query: SELECT * FROM input WHERE price > 2}",
    ],
    "behind a step that makes rows": [
        '{op: expand, prompt: "{{ note }}", output: {part: string}}',
        "{op: sql, query: SELECT * FROM input WHERE price > 2}",
    ],
    "with a limit": [MAP, "{op: sql, query: SELECT * FROM input WHERE price > 2 LIMIT 3}"],
    "with an order": [MAP, "{op: sql, query: SELECT * FROM input WHERE price > 2 ORDER BY note}"],
    "with a subquery": [MAP, "{op: sql, query: SELECT * FROM input WHERE price > (SELECT avg(price) FROM input)}"],
    "with fewer columns": [MAP, "{op: sql, query: 'SELECT title, x FROM input WHERE price > 2'}"],
    "with a window": [
        MAP,
        "{op: sql, query: SELECT * FROM input QUALIFY row_number() OVER (PARTITION BY brand ORDER BY note) = 1}",
    ],
    "behind a group": [
        '{op: reduce, by: [brand], prompt: "{% for row in rows %}{{ row.title }}{% endfor %}", output: {x: string}}',
        "{op: sql, query: SELECT * FROM input WHERE brand = 'b1'}",
    ],
}


@pytest.mark.parametrize("name", MOVES)
def test_a_condition_moves_ahead_and_the_rows_stay_the_same(many, name):
    lines, order = MOVES[name]
    before = many.load(steps(*lines)).plan(rewritten=False)
    after = conditions_first(before)
    assert [node.id for node in after.nodes] == sorted([node.id for node in after.nodes], key=order.index)
    first, calls = carried_out(before, many.folder)
    second, fewer = carried_out(optimize(before), many.folder)
    assert first == second
    assert fewer < calls


@pytest.mark.parametrize("name", STAYS)
def test_a_condition_stays_where_moving_would_change_something(many, name):
    before = many.load(steps(*STAYS[name])).plan(rewritten=False)
    assert conditions_first(before).text() == before.text()
    first, calls = carried_out(before, many.folder)
    second, same = carried_out(optimize(before), many.folder)
    assert sorted(map(repr, first)) == sorted(map(repr, second))
    assert calls == same


def test_the_plan_texts_before_and_after_a_move(many):
    before = many.load(steps(MAP, "{op: sql, query: SELECT * FROM input WHERE price > 2}")).plan(rewritten=False)
    assert before.text() == "\n".join(
        [
            "source = path: many.csv",
            'map = map(prompt: {{ title }} {{ note }}, output: {"x": "string"}) <- source',
            "sql = sql(query: SELECT * FROM input WHERE price > 2) <- map",
            "out.parquet <- sql",
        ]
    )
    assert conditions_first(before).text() == "\n".join(
        [
            "source = path: many.csv",
            "sql = sql(query: SELECT * FROM input WHERE price > 2) <- source",
            'map = map(prompt: {{ title }} {{ note }}, output: {"x": "string"}) <- sql',
            "out.parquet <- map",
        ]
    )


def test_a_condition_stays_behind_a_step_that_others_read(many):
    text = steps(MAP.replace("op: map", "op: map, id: mapped"), "{op: sql, query: SELECT * FROM input WHERE price > 2}")
    text = text.replace("sink: {path: out.parquet}", "sinks: [{path: out.parquet}, {path: all.parquet, from: mapped}]")
    before = many.load(text).plan(rewritten=False)
    assert conditions_first(before).text() == before.text()


def test_only_the_columns_that_are_needed_are_read(many):
    text = steps(
        '{op: map, prompt: "{{ title }}", output: {x: string}, where: price > 1}',
        "{op: sql, query: 'SELECT x, brand FROM input'}",
    )
    before = many.load(text).plan(rewritten=False)
    after = read_needed_columns(before)
    assert after.text().splitlines()[0] == "source = path: many.csv [title, price, brand]"
    assert after.text().splitlines()[1:] == before.text().splitlines()[1:]
    assert carried_out(before, many.folder) == carried_out(after, many.folder)


@pytest.mark.parametrize(
    ("lines", "columns"),
    [
        ([MAP], ("title", "price", "brand", "note")),
        (["{op: sql, query: SELECT count(*) AS n FROM input}"], ("title",)),
        (["{op: sql, query: SELECT TITLE FROM input}"], ("title",)),
        (["{op: sql, query: SELECT t FROM input AS t}"], ("title", "price", "brand", "note")),
        (["{op: sql, query: SELECT input FROM input}"], ("title", "price", "brand", "note")),
        (["{op: sql, query: 'SELECT #2 AS second FROM input'}"], ("title", "price", "brand", "note")),
        (["{op: sql, query: SELECT title FROM (FROM input)}"], ("title", "price", "brand", "note")),
        (["{op: sql, query: SELECT COLUMNS('t.*') FROM input}"], ("title", "price", "brand", "note")),
        (
            [
                '{op: map, prompt: "{{ title }}", output: {x: string}, where: PRICE > 1}',
                "{op: sql, query: SELECT x FROM input}",
            ],
            ("title", "price"),
        ),
        (
            [
                '{op: reduce, by: [brand], prompt: "{% for row in rows %}{{ row.title }}{% endfor %}", output: {x: string}}'
            ],
            ("title", "brand"),
        ),
        (['{op: reduce, by: [brand], prompt: "{{ rows }}", output: {x: string}}'], ("title", "price", "brand", "note")),
    ],
)
def test_what_is_read_is_what_the_result_needs(many, lines, columns):
    before = many.load(steps(*lines)).plan(rewritten=False)
    after = optimize(before)
    assert after.sources[0].columns == columns
    assert carried_out(before, many.folder)[0] == carried_out(after, many.folder)[0]


def test_rewriting_twice_changes_nothing_more(many):
    plan = many.load(steps(MAP, "{op: sql, query: SELECT * FROM input WHERE price > 2}")).plan()
    assert optimize(plan).text() == plan.text()


def test_every_rule_says_why_it_is_sound():
    assert all("Sound because" in (rule.__doc__ or "") for rule in RULES)
    assert RUNNERS[0] == "duckdb"


OPEN = "udp: open\nprompt: '{{ fields }}'\ninputs: [note, title, brand]\noutput: {x: string}\n"


def inputs(plan):
    return {node.id: node.op.free_inputs for node in plan.nodes}


def test_fields_are_rendered_in_the_order_that_shares_the_longest_prefix(many):
    many.write("open.yaml", OPEN)
    before = many.load(steps("{op: map, udp: open.yaml}")).plan(rewritten=False)
    after = least_varied_first(before)
    assert (inputs(before), inputs(after)) == (
        {"map": ("note", "title", "brand")},
        {"map": ("brand", "title", "note")},
    )
    assert after.nodes[0].op.compiled.render({"note": 1, "title": 2, "brand": 3}) == "brand: 3\ntitle: 2\nnote: 1"
    assert carried_out(before, many.folder)[1] == carried_out(after, many.folder)[1] == 60


def test_the_order_of_fields_stays_when_rows_are_added(many):
    many.write("open.yaml", OPEN)
    text = steps("{op: map, udp: open.yaml}")
    rows = "title,price,brand,note\n" + "".join(f"t{i % 9},1,b{i % 3},n{i}\n" for i in range(SAMPLE))
    many.write("many.csv", rows)
    before = inputs(many.load(text).plan())
    many.write("many.csv", rows + "".join(f"u{i},1,c{i},n0\n" for i in range(9000)))
    assert inputs(many.load(text).plan()) == before


def test_columns_that_a_step_writes_come_last_among_fields(many):
    many.write("open.yaml", OPEN)
    text = steps('{op: clean, column: brand, prompt: "{{ brand }}"}', "{op: map, udp: open.yaml}")
    assert inputs(many.load(text).plan())["map"] == ("title", "note", "brand")


def test_fields_of_a_table_from_python_are_ordered_and_those_of_a_stream_are_not(many):
    import pyarrow as pa

    from gdo import load

    many.write("open.yaml", OPEN)
    many.write("pipeline.yaml", steps("{op: map, udp: open.yaml}"))
    table = pa.table({"note": ["a", "b", "c", "d"], "title": ["a", "b", "a", "b"], "brand": ["x"] * 4})
    path = many.folder / "pipeline.yaml"
    assert inputs(load(path, source=table).plan())["map"] == ("brand", "title", "note")
    assert inputs(load(path, source=table.to_reader()).plan())["map"] == ("note", "title", "brand")

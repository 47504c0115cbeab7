"""What an estimate says, held against what a run then does."""

import pytest

from gdo.estimate import Estimate, estimate

ROWS = "title,brand,price\n" + "".join(f"t{i % 12},b{i % 3},{i % 6}\n" for i in range(60))
START = (
    "models:\n  local: {backend: fake}\n  paid: {backend: fake, price: {prompt: 2, completion: 10}}\n"
    "source: {path: many.csv}\nsink: {path: out.csv}\nsteps:\n"
)
MAP = '{op: map, prompt: "{{ title }}", output: {x: string}}'


@pytest.fixture
def many(project):
    project.write("many.csv", ROWS)
    return project


def steps(*lines):
    return START + "".join(f"  - {line}\n" for line in lines)


EXACT = {
    "distinct inputs": [MAP],
    "two columns": ['{op: map, prompt: "{{ title }} {{ price }}", output: {x: string}}'],
    "no column": ['{op: map, prompt: "a poem", output: {x: string}}'],
    "a condition": [MAP[:-1] + ", where: price > 3}"],
    "rows cut before": ["{op: sql, query: SELECT * FROM input WHERE price > 3}", MAP],
    "a query over all rows": ["{op: sql, query: 'SELECT brand AS title, count(*) AS n FROM input GROUP BY 1'}", MAP],
    "groups": [
        '{op: reduce, by: [brand], prompt: "{% for r in rows %}{{ r.title }} {% endfor %}", output: {x: string}}'
    ],
    "after groups": [
        '{op: reduce, by: [brand], prompt: "{% for r in rows %}{{ r.title }} {% endfor %}", output: {x: string}}',
        '{op: map, prompt: "{{ brand }}", output: {y: string}}',
    ],
    "two steps": [MAP, '{op: map, prompt: "{{ brand }}", output: {y: string}}'],
}
AT_MOST = {
    "what a model wrote": [MAP, '{op: map, prompt: "{{ x }}", output: {y: string}}'],
    "rows that a model drops": ['{op: filter, prompt: "{{ title }}?"}', '{op: map, prompt: "{{ brand }}", output: {y: string}}'],
    "a condition on what a model wrote": [MAP, '{op: map, prompt: "{{ brand }}", where: "x > \'m\'", output: {y: string}}'],
    "a query over what a model wrote": [
        MAP, "{op: sql, query: \"SELECT * FROM input WHERE x > 'm'\"}", '{op: map, prompt: "{{ brand }}", output: {y: string}}'
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_calls_that_depend_on_the_source_alone_are_told_exactly(many, name):
    pipeline = many.load(steps(*EXACT[name]))
    told = estimate(pipeline.plan())
    ledger = pipeline.run().ledger
    assert all(part.exact for part in told)
    assert {part.step: part.calls for part in told[:-1]} == {
        part.step: ledger.steps[part.step].calls for part in told[:-1]
    }


@pytest.mark.parametrize("name", AT_MOST)
def test_calls_that_depend_on_answers_are_told_at_most(many, name):
    pipeline = many.load(steps(*AT_MOST[name]))
    told = estimate(pipeline.plan())
    ledger = pipeline.run().ledger
    assert not told[-1].exact
    assert "at most about" in str(told[-1])
    assert all(ledger.steps[part.step].calls <= part.calls for part in told[:-1])
    assert told[-1].calls == sum(part.calls for part in told[:-1])


def test_a_limit_counts_the_first_rows_only(many):
    pipeline = many.load(steps(MAP))
    assert estimate(pipeline.plan(limit=5))[0].calls == 5


def test_scored_labels_count_a_call_a_field_and_their_calibration(many):
    text = steps('{op: map, prompt: "{{ brand }}", output: {a: boolean, b: {labels: [x, y]}, c: string}}')
    told = estimate(many.load(text.replace("backend: fake}", "backend: fake, style: plain}", 1)).plan())
    assert told[0].calls == 3 * 3 + 2 * 3
    ledger = many.load(text.replace("backend: fake}", "backend: fake, style: plain}", 1)).run().ledger
    assert ledger.steps["map"].calls == told[0].calls


def test_a_price_gives_a_cost_and_a_total(many):
    line = '{op: map, model: paid, prompt: "{{ brand }}", output: {x: string}, max_tokens: 100}'
    first, total = estimate(many.load(steps(line)).plan())
    assert first.cost == pytest.approx((first.prompt_tokens * 2 + 3 * 100 * 10) / 1e6)
    assert total.cost == first.cost
    assert "by the model's price" in str(total)
    assert Estimate("a", 1, 2).cost is None


def test_a_stream_that_is_read_once_is_left_for_the_run(many):
    import pyarrow as pa

    from gdo import load

    many.write("pipeline.yaml", steps(MAP))
    reader = pa.table({"title": ["a", "a"]}).to_reader()
    pipeline = load(many.folder / "pipeline.yaml", source=reader)
    assert [part.step for part in estimate(pipeline.plan())] == ["total"]
    assert pipeline.run().table().num_rows == 2

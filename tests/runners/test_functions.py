"""`gdo.register`: prompts as functions of DuckDB, called by DuckDB itself."""

import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

import gdo
from gdo.model import Request

Con = duckdb.DuckDBPyConnection
BRAND = {
    "udp": "standardize_brand",
    "prompt": "Title: {{ title }}\nBrand: {{ brand }}",
    "output": {"brand": "string"},
    "examples": [{"in": {"brand": "NIKE", "title": "Air"}, "out": {"brand": "Nike"}}],
}
SIZE = {"udp": "size", "prompt": "Size of {{ row['net weight'] }}", "output": {"value": "number", "since": "date"}}


def answers(request: Request) -> str:
    """What the model of these tests says: the prompt itself, or something of the kind that is wanted."""
    text = request.body
    assert request.head.answer is not None
    if "broken" in text:
        return "no JSON at all"
    said: dict[str, object] = {}
    for part in request.head.answer.fields:
        word = getattr(part.type, "word", "labels")
        values = {"string": text, "boolean": "yes" in text, "number": float(len(text)), "integer": len(text)}
        said[part.name] = {**values, "date": "2024-05-01", "labels": "blue" if "sea" in text else "red"}.get(word, [text])
    return json.dumps(said)


@pytest.fixture
def con() -> Iterator[Con]:
    with duckdb.connect() as made:
        yield made


@pytest.fixture
def udps(tmp_path: Path) -> Path:
    folder = tmp_path / "udps"
    folder.mkdir()
    for udp in (BRAND, SIZE):
        (folder / f"{udp['udp']}.yaml").write_text(yaml.safe_dump(udp, sort_keys=False), encoding="utf-8")
    return folder


@pytest.fixture
def register(con: Con, tmp_path: Path) -> Callable[..., Any]:
    """Register with the model of these tests; UDPs and options as they come."""

    def made(*udps: Any, **options: Any) -> Any:
        model = {"backend": "fake", "answer": f"{__name__.rpartition('.')[2]}:answers", **options.pop("fake", {})}
        return gdo.register(con, udps, models={"m": model}, folder=tmp_path, **options)

    return made


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def one(con: Con, query: str) -> Any:
    rows = con.sql(query).fetchall()
    assert len(rows) == 1
    return rows[0][0] if len(rows[0]) == 1 else rows[0]


def calls(functions: Any, name: str = "prompt") -> int:
    return int(functions.report[name]["calls"])


# Types


def test_a_udp_of_one_field_gives_its_bare_type(con: Con, register: Any, udps: Path) -> None:
    register(udps)
    assert one(con, "SELECT standardize_brand('nike', 'Air')") == "Title: Air\nBrand: nike"
    assert one(con, "SELECT typeof(standardize_brand('nike', 'Air'))") == "VARCHAR"


def test_a_udp_of_several_fields_gives_a_struct(con: Con, register: Any, udps: Path) -> None:
    register(udps)
    assert one(con, "SELECT size('7 kg').value") == len("Size of 7 kg")
    assert one(con, "SELECT typeof(size('7 kg'))") == "STRUCT(\"value\" DOUBLE, since DATE)"


def test_a_udps_arguments_are_in_the_order_of_its_first_example(con: Con, register: Any, udps: Path) -> None:
    register(udps)
    with pytest.raises(duckdb.BinderException, match="standardize_brand"):
        con.sql("SELECT standardize_brand('nike')")


@pytest.mark.parametrize(
    ("schema", "kind"),
    [
        ("integer", "BIGINT"),
        ("list[string]", "VARCHAR[]"),
        ("{labels: [red, blue]}", "VARCHAR"),
        ("{brand: string}", "VARCHAR"),
        ("brand: string, size: number, when: date", 'STRUCT(brand VARCHAR, size DOUBLE, "when" DATE)'),
        ("{sizes: list[number], of: {a: boolean}}", 'STRUCT(sizes DOUBLE[], "of" STRUCT(a BOOLEAN))'),
    ],
)
def test_a_prompt_with_a_schema_has_its_type(con: Con, schema: str, kind: str, tmp_path: Path) -> None:
    gdo.register(con, model="fake", folder=tmp_path)
    query = f"SELECT prompt('{{{{ t }}}}', {{t: 'x'}}, '{schema}') AS a, typeof(a)"
    value, found = one(con, query)
    assert found == kind
    assert value is not None
    result = gdo.sql(con, query)
    assert result.fetchall() == [(value, kind)]


def test_numbers_dates_and_lists_stand_in_a_prompt_as_in_a_pipeline(con: Con, register: Any, tmp_path: Path) -> None:
    con.execute(
        "CREATE TABLE t AS SELECT 1.50::DECIMAL(9,2) AS d, 0.1::DOUBLE AS f, DATE '2024-01-02' AS day, [1, NULL] AS l, "
        "{a: 'x', b: 2} AS s, true AS b, TIMESTAMP '2024-01-02 03:04:05' AS moment, 'x'::ENUM('x') AS e, uuid '"
        "00000000-0000-0000-0000-000000000001' AS u, 5::HUGEINT AS h, TIME '01:02:03' AS clock, NULL::INTEGER AS nothing"
    ).fetchall()
    names = [row[0] for row in con.sql("DESCRIBE t").fetchall()]
    template = "|".join(f"{{{{ {name} }}}}" for name in names)
    pipeline = tmp_path / "p.yaml"
    fake = {"backend": "fake", "answer": f"{__name__.rpartition('.')[2]}:answers"}
    step = {"op": "map", "model": "m", "prompt": template, "output": {"answer": "string"}}
    pipeline.write_text(yaml.safe_dump({"models": {"m": fake}, "source": {"path": "no"}, "steps": [step]}))
    run = gdo.run(pipeline, source=con.table("t"))
    functions = register()
    packed = ", ".join(f"{name}: {name}" for name in names)
    made, whole = f"SELECT prompt('{template}', {{{packed}}}) FROM t", f"SELECT prompt('{template}', row) FROM t AS row"
    for query in (made, whole):
        assert one(con, query) == run.table()["answer"][0].as_py()
        assert gdo.sql(con, query).fetchall() == [(run.table()["answer"][0].as_py(),)]
    assert functions.report["prompt"]["calls"] == 0  # the pipeline's replies are in the cache
    assert functions.report["prompt"]["cached"] >= 1


def test_functions_and_pipelines_share_the_cache(con: Con, register: Any, udps: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("brand,title\nnike,Air\nlego,Town\n", encoding="utf-8")
    fake = {"backend": "fake", "answer": f"{__name__.rpartition('.')[2]}:answers"}
    steps = [
        {"op": "map", "udp": "standardize_brand", "into": "said"},
        {"op": "filter", "prompt": "Is it a toy, yes or no? {{ title }}"},
        {"op": "classify", "text": "{{ title }}", "labels": ["red", "blue"]},
    ]
    pipeline = tmp_path / "p.yaml"
    steps = [{**step, "model": "m"} for step in steps]
    pipeline.write_text(yaml.safe_dump({"models": {"m": fake}, "source": {"path": "in.csv"}, "steps": steps}))
    gdo.run(pipeline)
    functions = register(udps)
    where = "WHERE ask_bool('Is it a toy, yes or no? {{ t }}', {t: title})"
    shown = "standardize_brand(brand, title), classify(title, ['red', 'blue'])"
    con.sql(f"SELECT {shown} FROM '{tmp_path}/in.csv' {where}").fetchall()
    assert {name: facts["calls"] for name, facts in functions.report.items()} == dict.fromkeys(
        ("standardize_brand", "classify", "ask_bool"), 0
    )


# Null


def test_null_gives_null_without_a_call(con: Con, register: Any, udps: Path) -> None:
    functions = register(udps)
    for call in (
        "standardize_brand(NULL, 'Air')", "size(NULL)", "prompt('{{ t }}', NULL)", "prompt('{{ t }}', {t: NULL})",
        "prompt(NULL, {t: 'x'})", "ask_bool('{{ t }}', {t: NULL})", "classify(NULL, ['a', 'b'])", "classify('x', NULL)",
        "prompt('{{ t }}', {t: NULL}, 'integer')", "prompt('{{ t }}', NULL::STRUCT(t VARCHAR))",
    ):  # fmt: skip
        assert one(con, f"SELECT {call}") is None, call
        assert gdo.sql(con, f"SELECT {call}").fetchall() == [(None,)], call
    assert sum(facts["calls"] for facts in functions.report.values()) == 0


def test_a_struct_with_some_values_is_asked_as_a_row_is(con: Con, register: Any) -> None:
    register()
    assert one(con, "SELECT prompt('{{ a }}-{{ b }}', {a: 'x', b: NULL})") == "x-"


# Calls


def test_each_distinct_prompt_is_asked_once_also_over_several_chunks(con: Con, register: Any) -> None:
    functions = register()
    con.sql("SELECT prompt('{{ t }}', {t: i % 50}) FROM range(10_000) r(i)").fetchall()
    assert calls(functions) == 50


def test_a_budget_ends_a_query_and_what_was_paid_for_is_kept(con: Con, register: Any, tmp_path: Path) -> None:
    functions = register(max_calls=5)
    with pytest.raises(duckdb.Error, match="the budget of 5 calls is spent"):
        con.sql("SELECT prompt('{{ t }}', {t: i}) FROM range(20) r(i)").fetchall()
    assert calls(functions) == 5
    again = register()
    con.sql("SELECT prompt('{{ t }}', {t: i}) FROM range(20) r(i)").fetchall()
    assert calls(again) == 15


def test_one_prompt_may_differ_from_row_to_row(con: Con, register: Any) -> None:
    register()
    rows = con.sql("SELECT prompt(t, {x: 1}) FROM (VALUES ('a {{ x }}'), ('b {{ x }}'), (NULL)) v(t)").fetchall()
    assert rows == [("a 1",), ("b 1",), (None,)]
    labels = con.sql("SELECT classify('by the sea', l) FROM (VALUES (['red', 'blue']), (['blue', 'other'])) v(l)")
    assert labels.fetchall() == [("blue",), ("blue",)]


# Errors


def test_an_error_gives_null_and_a_row_of_errors(con: Con, register: Any) -> None:
    functions = register(retries=0)
    rows = con.sql("SELECT prompt('{{ t }}', {t: t}, 'integer') FROM (VALUES ('fine'), ('broken one')) v(t)").fetchall()
    assert rows == [(4,), (None,)]
    (error,) = functions.errors().to_pylist()
    assert (error["step"], error["reason"], error["prompt"]) == ("prompt", "invalid", "[user]\nbroken one")
    assert 'input {"t": "broken one"}' in error["detail"]
    functions.close()
    kept = pa.parquet.read_table(functions.folder / "errors.parquet").to_pylist()
    assert kept == [error]
    facts = json.loads((functions.folder / "run.json").read_text())
    assert (facts["pipeline"], facts["steps"]["prompt"]["errors"]) == ("SQL", 1)


def test_a_template_that_fails_on_a_row_gives_null_and_names_the_row(con: Con, register: Any) -> None:
    functions = register()
    rows = con.sql("SELECT prompt('{{ 10 // n }}', {n: n}) FROM (VALUES (5), (0)) v(n)").fetchall()
    assert rows == [("2",), (None,)]
    (error,) = functions.errors().to_pylist()
    assert error["reason"] == "template"
    assert 'input {"n": 0}' in error["detail"]


def test_on_error_fail_names_the_input_and_the_reason_and_the_next_query_asks_again(con: Con, register: Any) -> None:
    functions = register(on_error="fail", retries=0)
    with pytest.raises(duckdb.Error, match=r'"t": "broken".*invalid'):
        con.sql("SELECT prompt('{{ t }}', {t: 'broken'}, 'integer')").fetchall()
    assert one(con, "SELECT prompt('{{ t }}', {t: 'fine'})") == "fine"
    with pytest.raises(gdo.RunFailed, match=r'step \'prompt\', input {"t": "broken"}: invalid'):
        gdo.sql(con, "SELECT prompt('{{ t }}', {t: t}, 'integer') FROM (VALUES ('broken'), ('b'), ('c')) v(t)")
    assert gdo.sql(con, "SELECT prompt('{{ t }}', {t: 'b'})").fetchall() == [("b",)]
    texts = "SELECT if(i % 9 = 0, 'broken', 'b') || i AS t FROM range(900) r(i)"
    many = f"SELECT prompt('{{{{ t }}}}', {{t: t}}, 'integer') FROM ({texts})"
    with pytest.raises(gdo.RunFailed, match=r'input {"t": "broken\d+"}: invalid'):
        gdo.sql(con, many)
    assert len(gdo.sql(con, f"{many} WHERE t NOT LIKE 'broken%'")) == 800, "those that were not asked then are asked now"
    assert functions.report["prompt"]["errors"] == 0


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("prompt('{{ t', {t: 1})", "template"),
        ("prompt('{{ other }}', {t: 1})", "reads 'other', which its struct does not have"),
        ("prompt('{{ t }}', {t: 1}, 'whole')", "unknown type 'whole'"),
        ("prompt('{{ t }}', {t: 1}, '{a: ')", "the schema '{a: ' is not YAML"),
        ("prompt('{{ t }}', {t: 1}, '')", "declares no fields"),
        ("prompt('{{ t }}', 'text')", "argument 2 is a string, not a struct"),
        ("classify('x', ['a', 'A'])", "the label 'A' stands twice"),
        ("classify('x', [])", "labels"),
        ("classify('x', 'a')", "its labels are no list"),
    ],
)
def test_what_is_wrong_with_a_call_is_told_by_both_ways(con: Con, register: Any, call: str, said: str) -> None:
    functions = register()
    with pytest.raises(duckdb.Error) as plain:
        con.sql(f"SELECT {call}").fetchall()
    with pytest.raises(gdo.Faults) as told:
        gdo.sql(con, f"SELECT {call}")
    assert said in str(plain.value)
    assert said in str(told.value)
    assert not any(facts["calls"] for facts in functions.report.values())


# Registering


def test_registering_asks_nothing_and_leaves_nothing(register: Any, udps: Path, tmp_path: Path) -> None:
    functions = register(udps)
    assert (functions.report, functions.errors().num_rows, functions.folder) == ({}, 0, None)
    assert not (tmp_path / ".gdo").exists()
    assert repr(functions) == "<gdo functions prompt, ask_bool, classify, size, standardize_brand>"


def test_registering_again_replaces_functions_and_lets_the_old_ones_go(con: Con, register: Any, udps: Path) -> None:
    first = register(udps)
    con.sql("SELECT prompt('{{ t }}', {t: 1})").fetchall()
    second = register(udps)
    assert (first.folder / "run.json").exists()
    con.sql("SELECT prompt('{{ t }}', {t: 2})").fetchall()
    assert (calls(first), calls(second)) == (1, 1)


def test_registering_more_keeps_what_was_there(con: Con, register: Any, udps: Path, tmp_path: Path) -> None:
    register(udps / "size.yaml")
    gdo.register(con, udps / "standardize_brand.yaml", model="fake", folder=tmp_path)
    assert one(con, "SELECT size('7 kg').value") == len("Size of 7 kg")
    assert str(one(con, "SELECT standardize_brand('nike', 'Air')")).startswith("fake-")
    both = gdo.sql(con, "SELECT size('7 kg').value, standardize_brand('nike', 'Air')")
    assert both.fetchall() == con.sql("SELECT size('7 kg').value, standardize_brand('nike', 'Air')").fetchall()


def test_the_functions_are_there_on_every_cursor(con: Con, register: Any, udps: Path) -> None:
    register(udps)
    with con.cursor() as cursor:
        assert one(cursor, "SELECT prompt('{{ t }}', {t: 1})") == "1"
        assert gdo.sql(cursor, "SELECT prompt('{{ t }}', {t: 12}, 'integer')").fetchall() == [(2,)]
        assert one(cursor, "SELECT prompt('{{ t }}', {t: 12}, 'integer')") == 2


def test_a_cursor_outlives_the_connection_that_registered(tmp_path: Path) -> None:
    made = duckdb.connect()
    with made.cursor() as cursor:
        gdo.register(made, model="fake", folder=tmp_path, cache=False)
        del made
        gc.collect()
        said = one(cursor, "SELECT prompt('{{ t }}', {t: 1})")
        assert gdo.sql(cursor, "SELECT prompt('{{ t }}', {t: 1})").fetchall() == [(said,)]


def test_after_closing_the_next_question_opens_a_folder_of_its_own(con: Con, register: Any) -> None:
    with register() as functions:
        one(con, "SELECT prompt('{{ t }}', {t: 1})")
    first = functions.folder
    one(con, "SELECT prompt('{{ t }}', {t: 2})")
    assert functions.folder != first
    functions.close()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"udps": ["nowhere/"]}, "udps: no folder 'nowhere/'"),
        ({"udps": ["standardize_brnd"]}, "udps: no UDP named 'standardize_brnd' (did you mean 'standardize_brand'?)"),
        ({"udps": ["no.yaml"]}, "udps: no UDP file 'no.yaml'"),
        ({"udps": [], "model": "locl"}, "model: no model named 'locl' (did you mean 'local'?)"),
        ({"udps": [], "models": {"a": {"backend": "fke"}}}, "models: a: unknown backend 'fke' (did you mean 'fake'?)"),
        ({"udps": [], "models": {"a": {"backend": "fake", "anser": "x"}}}, "unknown key 'anser' (did you mean 'answer'?)"),
        ({"udps": [], "max_call": 3}, "gdo.register: unknown option 'max_call' (did you mean 'max_calls'?)"),
        ({"udps": [], "on_error": "reject"}, "gdo.register: 'on_error' cannot be 'reject'"),
        ({"udps": [], "temperature": "hot"}, "gdo.register: 'temperature' cannot be 'hot' (it must be a number)"),
        ({"udps": [], "max_calls": -3}, "gdo.register: 'max_calls' cannot be -3 (it must be at least 0)"),
        ({"udps": [], "cache": "maybe"}, "gdo.register: 'cache' cannot be 'maybe' (it must be true or false)"),
    ],
)
def test_what_is_wrong_with_a_registration_is_told(con: Con, tmp_path: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(gdo.Faults) as told:
        gdo.register(con, **given, folder=tmp_path)
    assert said in str(told.value)


def test_every_fault_of_every_file_is_told_at_once(con: Con, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("udp: a\nprompt: '{{ x'\noutput: {y: text}\n")
    (tmp_path / "b.yaml").write_text("udp: b\nprompt: '{{ x }}'\noutput: {y: txt}\n")
    with pytest.raises(gdo.Faults) as told:
        gdo.register(con, [tmp_path], folder=tmp_path)
    assert [finding.where.rpartition("/")[2].split(":")[0] for finding in told.value.findings] == ["a.yaml", "b.yaml"]


def test_a_udp_may_not_take_the_name_of_a_function_that_is_there(con: Con, tmp_path: Path) -> None:
    (tmp_path / "lower.yaml").write_text("udp: lower\nprompt: '{{ x }}'\noutput: {y: string}\n")
    (tmp_path / "classify.yaml").write_text("udp: classify\nprompt: '{{ x }}'\noutput: {y: string}\n")
    with pytest.raises(gdo.Faults, match="udps: two functions are called 'classify'"):
        gdo.register(con, [tmp_path / "classify.yaml"], folder=tmp_path)
    with pytest.raises(gdo.Faults, match="'lower' is a function of this database already"):
        gdo.register(con, [tmp_path / "lower.yaml"], folder=tmp_path)
    assert one(con, "SELECT lower('ABC')") == "abc"


def test_a_connection_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(gdo.Faults, match="a str is no connection of DuckDB's"):
        gdo.register("db.duckdb")  # type: ignore[arg-type]


def test_a_database_that_is_only_read_has_functions_too(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    with duckdb.connect(str(path)) as made:
        made.execute("CREATE TABLE t AS SELECT 'x' AS a").fetchall()
    with duckdb.connect(str(path), read_only=True) as con:
        gdo.register(con, model="fake", folder=tmp_path)
        plain = con.sql("SELECT prompt('{{ a }}', t) FROM t").fetchall()
        assert gdo.sql(con, "SELECT prompt('{{ a }}', t) FROM t").fetchall() == plain
    with duckdb.connect(str(path)) as con:  # nothing of it stays in the file
        assert con.sql("SELECT count(*) FROM duckdb_functions() WHERE function_name = 'prompt'").fetchall() == [(0,)]


@pytest.mark.model
def test_the_bundled_model_labels_in_sql_as_in_a_pipeline(con: Con, tmp_path: Path) -> None:
    names = ["Vanilla Ice Cream", "Chicken Noodle Soup", "Orange Juice"]
    labels = ["drink", "frozen dessert", "soup"]
    con.execute("CREATE TABLE t AS SELECT unnest(?) AS name", [names]).fetchall()
    query = f"SELECT name, classify(name, {labels}) AS label FROM t"
    with gdo.register(con, folder=tmp_path) as functions:
        found = dict(gdo.sql(con, query).fetchall())
        assert dict(con.sql(query).fetchall()) == found
        assert functions.report["classify"]["errors"] == 0
    step = {"op": "classify", "text": "{{ name }}", "labels": labels}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"source": {"path": "none.csv"}, "steps": [step]}))
    run = gdo.run(tmp_path / "p.yaml", source=con.table("t"))
    assert dict(zip(run.table()["name"].to_pylist(), run.table()["label"].to_pylist(), strict=True)) == found
    assert run.report["classify"]["calls"] == 0  # all in the cache
    assert set(found.values()) <= set(labels)

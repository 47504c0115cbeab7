# ruff: noqa: E501 (a table of bad files, a line each)
"""What is wrong with a file is told with its place, in words for a stranger."""

import re

import duckdb
import pytest

import gdo

JARGON = ("Traceback", "Input should", "errors.pydantic", "ValidationError", "should be a valid", "instance of", "list[str]", "dict[str", "type=", "nonetype", "examplespec")  # fmt: skip
PLACE = re.compile(r"^[\w./-]+\.ya?ml:\d+:\d+: \S")

START = "models: {local: {backend: fake}}\nsource: {path: products.csv}\nsink: {path: out.parquet}\nsteps:\n"
"""Four lines; a step stands on line 5 and its keys begin at column 5 or 6."""


def step(text):
    return f"{START}  - {text}\n"


MAP = '{op: map, prompt: "{{ title }}", output: {x: string}, '

BAD = {
    # name: (file, line:column, phrases)
    "unknown key of a step": (step('{op: map, promt: "{{ title }}", output: {x: string}}'), "5:15", ["unknown key 'promt'", "did you mean 'prompt'?"]),
    "unknown key of the file": (START.replace("sink:", "snk:") + "  - {op: sql, query: FROM input}\n", "3:1", ["unknown key 'snk'", "did you mean 'sink"]),
    "unknown key of a source": (START.replace("path: p", "pth: p") + "  - {op: sql, query: SELECT 1 AS a FROM input}\n", "2:10", ["unknown key 'pth'", "did you mean 'path'?"]),
    "unknown key of an example": (step(MAP + "examples: [{in: {title: a}, ot: b, out: c}]}"), "5:87", ["unknown key 'ot'", "did you mean 'out'?"]),
    "unknown operator": (step('{op: clasify, text: "{{ title }}", labels: [a]}'), "5:6", ["unknown operator 'clasify'", "did you mean 'classify'?"]),
    "no operator": (step('{prompt: "{{ title }}"}'), "5:5", ["`op`", "classify"]),
    "a step that is a word": (step("map"), "5:5", ["`op`"]),
    "unknown backend": (START.replace("fake", "fke") + "  - {op: sql, query: SELECT * FROM input}\n", "1:18", ["unknown backend 'fke'", "did you mean 'fake'?"]),
    "no backend": (START.replace("backend: fake", "url: x") + "  - {op: sql, query: SELECT * FROM input}\n", "1:10", ["needs a `backend`"]),
    "unknown option of a backend": (START.replace("fake}", "fake, latency: 1}") + "  - {op: sql, query: SELECT * FROM input}\n", "1:33", ["unknown key 'latency'", "did you mean 'latency_s'?"]),
    "no source": (START.replace("source: {path: products.csv}", "description: x") + "  - {op: sql, query: SELECT * FROM input}\n", "1:1", ["needs a `source`"]),
    "no steps": ("source: {path: products.csv}\nsink: {path: out.parquet}\n", "1:1", ["needs `steps`"]),
    "empty steps": ("source: {path: products.csv}\nsteps: []\n", "2:1", ["needs `steps`"]),
    "an empty file": ("", "1:1", ["a pipeline is a mapping"]),
    "a list for a file": ("- op: map\n", "1:1", ["a pipeline is a mapping"]),
    "wrong path": (START.replace("products.csv", "product.csv") + "  - {op: sql, query: SELECT * FROM input}\n", "2:1", ["no such file 'product.csv'", "did you mean 'products.csv'?"]),
    "a glob of nothing": (START.replace("products.csv", "'*.jsonl'") + "  - {op: sql, query: SELECT * FROM input}\n", "2:1", ["no file matches '*.jsonl'"]),
    "a folder for a file": (START.replace("products.csv", "sub") + "  - {op: sql, query: SELECT * FROM input}\n", "2:1", ["'sub' is a folder", "*.parquet"]),
    "a source of unknown kind": (START.replace("products.csv", "notes.txt") + "  - {op: sql, query: SELECT * FROM input}\n", "2:1", ["unknown kind", "format:"]),
    "path and sql": (START.replace("path: products.csv", "path: products.csv, sql: SELECT 1") + "  - {op: sql, query: SELECT * FROM input}\n", "2:1", ["`path` stands alone"]),
    "a source that is a word": (START.replace("{path: products.csv}", "products.csv") + "  - {op: sql, query: SELECT * FROM input}\n", "2:1", ["source", "products.csv"]),
    "missing column": (step('{op: map, prompt: "{{ titel }}", output: {x: string}}'), "5:15", ["no column 'titel'", "did you mean 'title'?"]),
    "missing column to clean": (step('{op: clean, column: brnd, prompt: "{{ brand }}"}'), "5:17", ["no column 'brnd'", "did you mean 'brand'?"]),
    "missing column of a group": (step('{op: reduce, by: [brnd], prompt: "{{ rows }}", output: {x: string}}'), "5:23", ["no column 'brnd'", "did you mean 'brand'?"]),
    "a bad label in an example": (step('{op: classify, text: "{{ title }}", labels: [shoe, hat], examples: [{in: {title: a}, out: shoes}]}'), "5:90", ["does not fit", "'shoes' is none of the labels shoe, hat"]),
    "an example of the wrong type": (step('{op: map, prompt: "{{ title }}", output: {n: integer}, examples: [{in: {title: a}, out: many}]}'), "5:88", ["does not fit", "'many' is not a"]),
    "an example without an input": (step('{op: classify, text: "{{ title }}", labels: [a, b], examples: [{in: {titl: x}, out: a}]}'), "5:69", ["the example has no 'title'", "did you mean 'titl'?"]),
    "a template that is no template": (step('{op: map, prompt: "{{ title ", output: {x: string}}'), "5:15", ["template:"]),
    "a filter that is not there": (step('{op: map, prompt: "{{ title|uper }}", output: {x: string}}'), "5:15", ["No filter named 'uper'"]),
    "a template that includes": (step("{op: map, prompt: \"{% include 'x' %}\", output: {x: string}}"), "5:15", ["cannot include"]),
    "an empty prompt": (step('{op: map, prompt: "", output: {x: string}}'), "5:15", ["the prompt is empty"]),
    "a blank prompt": (step('{op: map, prompt: "  ", output: {x: string}}'), "5:15", ["the prompt is empty"]),
    "udp and prompt": (step('{op: map, udp: brand, prompt: "{{ title }}", output: {x: string}}'), "5:5", ["`udp` or `prompt`, not both"]),
    "neither udp nor prompt": (step("{op: map, output: {x: string}}"), "5:5", ["needs `udp` or `prompt`"]),
    "unknown udp": (step("{op: map, udp: my_brnd}"), "5:15", ["no UDP named 'my_brnd'", "did you mean 'my_brand'?"]),
    "no udp file": (step("{op: map, udp: udps/none.yaml}"), "5:15", ["no UDP file 'udps/none.yaml'"]),
    "unknown model": (step(MAP + "model: locl}"), "5:59", ["no model named 'locl'", "did you mean 'local'?"]),
    "from nowhere": (step(MAP + "from: sorce}"), "5:59", ["no step or source 'sorce'", "did you mean 'source'?"]),
    "an id twice": (step(MAP + "id: a}") + "  - {op: sql, id: a, query: SELECT * FROM input}\n", "6:15", ["the id 'a' is taken"]),
    "an id with a blank": (step(MAP + "id: a b}"), "5:59", ["'id' cannot be 'a b'"]),
    "a sink of unknown kind": (START.replace("out.parquet", "out.xlsx") + "  - {op: sql, query: SELECT * FROM input}\n", "3:1", ["'out.xlsx' is of an unknown kind", ".parquet"]),
    "a sink without a table": (START.replace("path: out.parquet", "database: a.duckdb") + "  - {op: sql, query: SELECT * FROM input}\n", "3:1", ["`database` and `table` go together"]),
    "two sinks at one path": (START.replace("sink: {path: out.parquet}", "sinks: [{path: a.csv}, {path: a.csv}]") + "  - {op: sql, query: SELECT * FROM input}\n", "3:24", ["'a.csv' is written twice"]),
    "sink and sinks": (START.replace("sink: {path: out.parquet}", "sink: {path: a.csv}\nsinks: [{path: b.csv}]") + "  - {op: sql, query: SELECT * FROM input}\n", "4:1", ["`sink` and `sinks`"]),
    "a sink from nowhere": (START.replace("out.parquet", "out.csv, from: sql2") + "  - {op: sql, id: sql1, query: SELECT * FROM input}\n", "3:23", ["no step or source 'sql2'", "did you mean 'sql1'?"]),
    "a bad where": (step(MAP + 'where: "price >"}'), "5:59", ["syntax error"]),
    "a where over a column that is not there": (step(MAP + 'where: "prise > 3"}'), "5:59", ["prise"]),
    "a where over many rows": (step(MAP + 'where: "count(*) > 1"}'), "5:59", ["aggregate"]),
    "a where with a query": (step(MAP + 'where: "price > (SELECT avg(price) FROM input)"}'), "5:59", ["row"]),
    "a where that is no condition": (step(MAP + "where: '[price]'}"), "5:59", ["neither true nor false"]),
    "a bad query": (step("{op: sql, query: SELEC title FROM input}"), "5:15", ["not a query"]),
    "a query over a column that is not there": (step("{op: sql, query: SELECT titel FROM input}"), "5:15", ["no column 'titel'", "did you mean 'title'?"]),
    "two statements": (step("{op: sql, query: SELECT 1 FROM input; SELECT 2 FROM input}"), "5:15", ["2 statements"]),
    "a statement that is no query": (step("{op: sql, query: DROP TABLE input}"), "5:15", ["not a query"]),
    "no python function": (step("{op: python, function: nowhere:f, writes: {x: string}}"), "5:18", ["'nowhere:f' cannot be imported"]),
    "a function without a module": (step("{op: python, function: len, writes: {x: string}}"), "5:18", ["'len' names no function", "module:name"]),
    "a bad type": (step('{op: map, prompt: "{{ title }}", output: {x: strin}}'), "5:47", ["unknown type 'strin'", "did you mean 'string'?"]),
    "an output that is a word": (step('{op: map, prompt: "{{ title }}", output: string}'), "5:38", ["output"]),
    "no output": (step('{op: map, prompt: "{{ title }}"}'), "5:5", ["'output' is missing"]),
    "labels that are one word": (step('{op: classify, text: "{{ title }}", labels: red}'), "5:41", ["labels"]),
    "labels twice": (step('{op: classify, text: "{{ title }}", labels: [red, Red]}'), "5:", ["stands twice"]),
    "no labels": (step('{op: classify, text: "{{ title }}", labels: []}'), "5:41", ["one or more words"]),
    "retries below zero": (step(MAP + "retries: -1}"), "5:59", ["'retries' cannot be -1"]),
    "on_error maybe": (step(MAP + "on_error: maybe}"), "5:59", ["'on_error' cannot be 'maybe'", "'keep', 'reject' or 'fail'"]),
    "a hot temperature": (step(MAP + "temperature: hot}"), "5:59", ["'temperature' cannot be 'hot'"]),
    "an unset environment variable": (START.replace("products.csv", "'${env:GDO_TEST_UNSET}'") + "  - {op: sql, query: SELECT * FROM input}\n", "2:10", ["${env:GDO_TEST_UNSET} is not set"]),
    "an unset variable": (step(MAP + "max_tokens: '${var:many}'}"), "5:59", ["${var:many} is not set"]),
    "variables that are lists": (START.replace("source:", "vars: {a: [1]}\nsource:") + "  - {op: sql, query: SELECT * FROM input}\n", "2:8", ["a"]),
    "where changes a type": (step('{op: map, prompt: "{{ title }}", output: {price: string}, where: "price > 3"}'), "5:5", ["'price'", "int64", "into"]),
    "a filter that is no question": (step("{op: filter, udp: my_brand}"), "5:18", ["one boolean"]),
    "a group that reads past its keys": (step('{op: reduce, by: [brand], prompt: "{{ title }}", output: {x: string}}'), "5:18", ["'title' is not in `by`"]),
    "a template in braces": (step("{op: map, prompt: {{ title }}, output: {x: string}}"), "5:", ["needs quotes"]),
    "a tab": (START + "\t- {op: map}\n", "5:1", ["not tabs"]),
    "fields without inputs": (step('{op: map, prompt: "{{ fields }}", output: {x: string}}'), "5:15", ["no column 'fields'"]),
    "a column called like a function": (step('{op: map, prompt: "{{ range }}", output: {x: string}}'), "5:15", ["no column 'range'"]),
}  # fmt: skip


@pytest.fixture
def place(project, monkeypatch):
    monkeypatch.delenv("GDO_TEST_UNSET", raising=False)
    (project.folder / "sub").mkdir()
    project.write("notes.txt", "x")
    project.write("udps/my_brand.yaml", 'udp: my_brand\nprompt: "{{ brand }}"\noutput: {brand: string}\n')
    return project


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_told_with_its_place_and_without_jargon(place, name):
    text, where, phrases = BAD[name]
    faults = place.faults(text)
    told = [fault for fault in faults if fault.startswith(f"pipeline.yaml:{where}") and all(phrase in fault for phrase in phrases)]
    assert told, faults
    assert not [word for word in JARGON if any(word in fault for fault in faults)], faults
    assert all(PLACE.match(fault) for fault in faults), faults


@pytest.mark.parametrize("name", BAD)
def test_one_mistake_is_one_fault(place, name):
    text, _, _ = BAD[name]
    assert len(place.faults(text)) == 1, place.faults(text)


def test_several_faults_of_a_file_are_told_at_once_in_their_order(place):
    faults = place.faults("""\
        nme: x
        models: {big: {backend: endpint}}
        source: {path: products.csv, fromat: csv}
        sink: {path: out.xlsx}
        steps:
          - {op: mapp}
          - {op: map, prompt: "{{ title ", output: {x: strin}, retries: 99}
          - {op: classify, text: "{{ title", labels: [a, A]}
          - {op: sql, query: SELEC}
        """)
    lines = [int(fault.split(":")[1]) for fault in faults]
    assert lines == sorted(lines)
    assert set(lines) == {1, 2, 3, 4, 6, 7, 8, 9}


def test_missing_files_columns_and_models_are_told_at_once(place):
    faults = place.faults("""\
        sources: {a: {path: products.csv}, b: {path: none.csv}}
        steps:
          - {op: map, from: a, prompt: "{{ titel }}", output: {x: string}, model: locl}
          - {op: clean, from: a, column: brnd, prompt: "{{ brand }}", model: fake, where: "prise > 1"}
        """)
    assert len(faults) == 5


def test_faults_of_form_and_of_columns_are_told_at_once(place):
    faults = place.faults("""\
        source: {path: products.csv}
        steps:
          - {op: map, id: one, prompt: "{{ titel }}", output: {x: string}, model: fake}
          - {op: map, from: source, promt: "{{ title }}", output: {x: string}}
        """)
    assert len(faults) == 2, faults


def test_a_fault_of_one_step_is_not_told_again_of_those_that_read_it(place):
    faults = place.faults("""\
        source: {path: products.csv}
        sink: {path: out.csv, from: one}
        steps:
          - {op: map, id: one, promt: "{{ title }}", output: {x: string}}
          - {op: map, from: one, model: fake, prompt: "{{ title }}", output: {y: string}}
        """)
    assert len(faults) == 1, faults


@pytest.mark.parametrize(
    "query",
    [
        "SELECT *, price * 100 AS price FROM input",
        "SELECT *, price * 100 AS PRICE FROM input",
        "SELECT title AS x, price AS x FROM input",
        "SELECT a.*, b.* FROM input a JOIN input b USING (title) ORDER BY 1",
    ],
)
def test_a_query_that_gives_two_columns_of_one_name_is_a_fault(place, query):
    (fault,) = place.faults(step(f"{{op: sql, query: '{query}'}}"))
    assert fault.startswith("pipeline.yaml:5:15: the query gives two columns called '"), fault


def test_a_condition_is_told_in_the_users_own_words(place):
    (fault,) = place.faults(step(MAP + "where: 'price > 3 AND'}"))
    assert 'near "AND"' in fault


def test_a_wrong_model_is_told_once_and_not_as_missing(place):
    faults = place.faults(START.replace("backend: fake", "backend: fake, latency_s: many") + '  - {op: map, model: local, prompt: "{{ title }}", output: {x: string}}\n')
    assert len(faults) == 1, faults
    assert "latency_s" in faults[0]


def test_a_group_cannot_be_known_by_the_name_of_its_rows(place):
    place.write("rows.csv", "rows,title\n1,a\n")
    text = START.replace("products.csv", "rows.csv")
    (fault,) = place.faults(text + '  - {op: reduce, by: [rows], prompt: "{{ rows }}", output: {x: string}}\n')
    assert "'rows' is the group itself" in fault


def test_a_quote_that_is_never_closed_is_told_where_it_opens(place):
    (fault,) = place.faults(START + '  - op: map\n    prompt: "{{ title }}\n    output: {x: string}\n')
    assert fault.startswith("pipeline.yaml:6:13: not YAML")


def test_a_row_read_by_a_point_is_told_how_columns_are_read(place):
    (fault,) = place.faults(step('{op: map, prompt: "{{ row.boddy }}", output: {x: string}}'))
    assert 'row["name"]' in fault


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("id,body\n1,a\n2,b,c\n", "line 3 of products.csv has 3 fields, its header 2"),
        ("id,body\n1,a,x\n2,b,c\n", "line 2 of products.csv has 3 fields, its header 2"),
        ("id,body\n1,a\n2\n3,c\n", "line 3 of products.csv has 1 fields, its header 2"),
        ("", "the file is empty"),
    ],
)
def test_a_ragged_or_empty_file_is_told_by_its_line(place, text, what):
    place.write("products.csv", text)
    (fault,) = place.faults(START + "  - {op: sql, query: SELECT * FROM input}\n")
    assert fault == f"pipeline.yaml:2:10: cannot be read: {what}"


def test_a_file_that_is_no_utf8_is_told(place):
    (place.folder / "products.csv").write_bytes("id,body\n1,Grüße\n".encode("latin-1"))
    (fault,) = place.faults(START + "  - {op: sql, query: SELECT * FROM input}\n")
    assert "not utf-8" in fault


@pytest.mark.parametrize("other", ["./out.csv", "sub/../out.csv"])
def test_a_file_that_is_written_twice_is_told_however_it_is_spelt(place, other):
    text = START.replace("sink: {path: out.parquet}", f"sinks: [{{path: out.csv}}, {{path: {other}}}]")
    assert "sinks" in text, text
    (fault,) = place.faults(text + "  - {op: sql, query: SELECT * FROM input}\n")
    assert "written twice" in fault


def test_a_name_that_no_example_has_is_told_once_and_at_the_template(place):
    faults = place.faults(
        step(
            '{op: classify, text: "{{ titel }}", labels: [a, b],'
            " examples: [{in: {title: x}, out: a}, {in: {title: y}, out: b}]}"
        )
    )
    assert faults == [
        "pipeline.yaml:5:20: the prompt reads 'titel', which its examples do not have (did you mean 'title'?)"
    ]


def test_the_faults_of_a_udp_stand_in_its_own_file(place):
    place.write("udps/bad.yaml", 'udp: bad\nprompt: "{{ a"\noutput: {x: strin}\nexampels: []\n')
    place.write("udps/worse.yaml", 'udp: worse\nprompt: "{{ a }}"\noutput: {x: strin}\nexamples: [{in: {b: 1}, out: c}]\n')
    faults = place.faults(step("{op: map, udp: bad}") + "  - {op: map, udp: worse}\n")
    places = [fault.partition(" ")[0] for fault in faults]
    assert "udps/bad.yaml:4:1:" in places
    assert "udps/worse.yaml:3:10:" in places
    assert "udps/worse.yaml:4:13:" in places


def test_a_secret_is_in_no_message(place, monkeypatch):
    monkeypatch.setenv("GDO_TEST_SECRET", "hunter2")
    for text in (
        START.replace("{backend: fake}", "'${env:GDO_TEST_SECRET}'") + "  - {op: sql, query: SELECT * FROM input}\n",
        START.replace("sink: {path: out.parquet}", "sink: ['${env:GDO_TEST_SECRET}']") + "  - {op: sql, query: SELECT * FROM input}\n",
        step(MAP + "retries: '${env:GDO_TEST_SECRET}'}"),
        step(MAP + "on_error: '${env:GDO_TEST_SECRET}'}"),
        step(MAP + "model: '${env:GDO_TEST_SECRET}'}"),
        START.replace("products.csv", "'${env:GDO_TEST_SECRET}'") + "  - {op: sql, query: SELECT * FROM input}\n",
        START.replace("backend: fake", "backend: endpoint, url: 'http://x:${env:GDO_TEST_SECRET}@y/v1'") + "  - {op: sql, query: SELECT * FROM input}\n",
    ):  # fmt: skip
        assert "hunter2" not in "\n".join(place.faults(text))


def test_a_database_without_the_table_is_told(place):
    with duckdb.connect(str(place.folder / "shop.duckdb")) as connection:
        connection.execute("CREATE TABLE products AS SELECT 1 AS a")
    text = START.replace("{path: products.csv}", "{database: shop.duckdb, table: product}")
    (fault,) = place.faults(text + "  - {op: sql, query: SELECT * FROM input}\n")
    assert fault.startswith("pipeline.yaml:2:10: cannot be read:")
    assert "products" in fault


@pytest.mark.parametrize("name", ["shop.duckdb", "shp.duckdb"])
def test_a_database_that_is_none_is_told(place, name):
    place.write("shop.duckdb", "no database")
    (fault,) = place.faults(START.replace("{path: products.csv}", f"{{database: {name}, table: t}}") + "  - {op: sql, query: SELECT * FROM input}\n")
    assert fault.startswith("pipeline.yaml:2:10:")
    assert "is not a DuckDB database" in fault or "did you mean 'shop.duckdb'?" in fault


def test_out_takes_the_place_of_one_sink_only(place):
    two = place.load(START.replace("sink: {path: out.parquet}", "sinks: [{path: a.csv}, {path: b.csv}]") + "  - {op: sql, query: SELECT * FROM input}\n")
    with pytest.raises(gdo.Faults, match="2 sinks"):
        two.run(gdo.Options(out=place.folder / "c.csv"))
    one = place.load(step("{op: sql, query: SELECT * FROM input}"))
    with pytest.raises(gdo.Faults, match=r"--out: .*unknown kind"):
        one.run(gdo.Options(out=place.folder / "c.docx"))

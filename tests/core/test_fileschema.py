# ruff: noqa: E501 (a text in one piece)
import json

import jsonschema
import pytest
import yaml

from gdo.document import parse_document
from gdo.fileschema import pipeline_schema

GOOD = """\
name: all
vars: {n: 3}
models: {m: {backend: endpoint, url: "${env:LLM_URL}", concurrency: "${var:n}"}, f: {backend: fake}}
sources: {a: {path: x.csv}, b: {sql: SELECT 1}}
steps:
  - {op: map, id: one, from: a, prompt: "{{ t }}", output: {x: string, y: {labels: [a, b], nullable: true}}, where: t > 1, retries: "${var:n}"}
  - {op: clean, column: t, udp: brand, keep_original: true, on_error: reject, model: m, temperature: 0.5}
  - {op: filter, prompt: "{{ t }}?", confidence: true}
  - {op: classify, text: "{{ t }}", labels: {a: the first, b: the second}, examples: [{in: {t: x}, out: a}]}
  - {op: classify, text: "{{ t }}", labels: [no, yes], into: z}
  - {op: extract, text: "{{ t }}", attributes: {size: number}}
  - {op: expand, prompt: "{{ t }}", output: {part: string}}
  - {op: reduce, by: [z], prompt: "{{ rows }}", output: {s: string}}
  - {op: sql, query: SELECT * FROM input}
  - {op: python, function: "m:f", writes: {q: integer}}
sinks: [{path: a.csv, from: one}, {database: d.duckdb, table: t}]
"""

BAD = [
    "steps: [{op: mapp}]",
    "steps: [{prompt: x}]",
    "steps: [{op: map, promt: x}]",
    "stepz: []",
    "steps: [{op: map, retries: -1}]",
    "steps: [{op: map, on_error: maybe}]",
    "models: {m: {backend: fke}}",
    "models: {m: {url: x}}",
    "source: x.csv",
    "source: {pth: x}",
    "steps: [{op: sql}]",
    "sinks: {path: x}",
]


@pytest.fixture(scope="module")
def checker():
    schema = json.loads(json.dumps(pipeline_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_an_editor_accepts_a_file_of_every_operator(checker):
    checker.validate(parse_document(GOOD).data)


@pytest.mark.parametrize("text", BAD)
def test_an_editor_marks_what_gdo_refuses(checker, text):
    assert not checker.is_valid(yaml.safe_load(text))


def test_every_operator_and_key_is_described(checker):
    from gdo.op import Operator

    for kind in Operator.kinds.values():
        branch = checker.schema["$defs"][f"op-{kind.kind}"]
        undescribed = [name for name, held in branch["properties"].items() if "description" not in held]
        assert undescribed == []

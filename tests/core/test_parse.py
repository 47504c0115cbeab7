# ruff: noqa: PT017 (either outcome is right)
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.parse import parse_line, parse_reply
from gdo.scalars import AnswerFault
from gdo.schema import Field, Labels, ListOf, Record, Scalar

NAME = Record((Field("name", Scalar("string")),))
PAIR = Record((Field("name", Scalar("string")), Field("n", Scalar("integer"))))
WANTED = {"name": "Nike", "n": 3}


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Nike", "n": 3}',
        '  {"name": "Nike", "n": 3}\n',
        '```json\n{"name": "Nike", "n": 3}\n```',
        '```\n{"name": "Nike", "n": 3}```',
        '```json\n{"name": "Nike", "n": 3}',
        'Sure! Here it is:\n{"name": "Nike", "n": 3}\nAnything else?',
        '{"name": "Nike", "n": 3,}',
        '{"name": "Nike", "n": "3"}',
        '<think>{"name": "Puma", "n": 1}? No.</think>\n{"name": "Nike", "n": 3}',
        '<think>\nlong\n</think>```json\n{"name": "Nike", "n": 3}\n```',
        '{"name": "Nike", "n": 3} {"name": "Puma", "n": 4}',
        '{"n": 3.0, "name": " Nike ", "why": {"not": "asked"}}',
        'In {braces} first: {"name": "Nike", "n": 3}',
        '\ufeff{"name": "Nike", "n": 3}',
        'As [1] says: {"name": "Nike", "n": 3}',
        '{"n": 3, "name": "Nike", "list": [1, 2,], "more": {"a": 1,},}',
    ],
)
def test_the_answer_is_found_in_what_models_write_around_it(text):
    assert parse_reply(text, PAIR) == WANTED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "I cannot do that.",
        '{"name": "Nike", "n"',
        '{"name": "Ni',
        "{",
        "[",
        "}",
        "```json\n```",
        "<think>hm",
        "<think>{}</think>",
        "null",
        "[]",
        '{"name": "Nike"}',
        '{"name": "Nike", "n": null}',
        "{'name': 'Nike', 'n': 3}",
        '{"name": ["a"], "n": 3}',
        "NaN",
        '{"name": "a", "n": NaN}',
        '{"name": "a", "n": 1e999}',
    ],
)
def test_what_holds_no_whole_answer_is_a_fault(text):
    with pytest.raises(AnswerFault):
        parse_reply(text, PAIR)


@pytest.mark.parametrize(
    "text",
    ["Nike", '"Nike"', '{"name": "Nike"}', "```\nNike\n```", "<think>x</think> Nike", '["Nike"][0] {"name": "Nike"}'],
)
def test_a_bare_value_is_enough_for_one_field(text):
    assert parse_reply(text, NAME) == {"name": "Nike"}


def test_a_cut_list_is_not_taken_for_a_shorter_one():
    answer = Record((Field("items", ListOf(Record((Field("x", Scalar("integer")),)))),))
    with pytest.raises(AnswerFault):
        parse_reply('{"items": [{"x": 1}, {"x": 2}, {"x"', answer)
    with pytest.raises(AnswerFault):
        parse_reply('{"tags": ["a", "b"], "other": "c', Record((Field("tags", ListOf(Scalar("string"))), *PAIR.fields)))


@pytest.mark.parametrize("text", ['{"name": "a, }", "n": 1}', '{"name": "[x,]", "n": 1}'])
def test_a_comma_within_a_text_is_left_alone(text):
    assert parse_reply(text, PAIR) == json.loads(text)


@pytest.mark.parametrize("text", ['{"n": %s}', 'Sure: {"n": %s}', '{"n": "%s"}', "%s"])
def test_a_number_of_thousands_of_digits_is_a_fault(text):
    with pytest.raises(AnswerFault):
        parse_reply(text % ("1" * 5000), Record((Field("n", Scalar("integer")),)))


def test_half_a_character_is_a_fault_or_is_replaced():
    try:
        found = parse_reply('{"name": "smile \\ud83d"}', NAME)
    except AnswerFault:
        return
    assert found["name"].encode()


@given(st.text(max_size=200))
def test_any_text_gives_an_answer_or_a_fault(text):
    for answer in (NAME, PAIR, Record((Field("l", ListOf(Scalar("number"))),))):
        try:
            assert parse_reply(text, answer).keys() == set(answer.names)
        except AnswerFault as fault:
            assert str(fault)


@given(st.text(alphabet='{}[]",:1aeE\\u `\n<think>', max_size=60))
def test_any_heap_of_brackets_gives_an_answer_or_a_fault(text):
    try:
        parse_reply(text, PAIR)
    except AnswerFault as fault:
        assert len(str(fault)) < 1000


@pytest.mark.parametrize(
    "made",
    [
        "'x' * 10_000_000",
        "'{' * 300_000",
        "'[' * 300_000",
        "'{\"a\": ' * 200_000",
        "'<think>' * 500_000",
        "'```' * 300_000",
        "'{\"name\": \"' + 'y' * 10_000_000",
        "',' + ' ' * 500_000",
    ],
)
def test_a_reply_of_megabytes_is_read_in_seconds(made):
    code = (
        "from gdo.parse import parse_reply\nfrom gdo.schema import *\nfrom gdo.scalars import AnswerFault\n"
        "answer = Record((Field('name', Scalar('string')), Field('n', Scalar('integer'))))\n"
        f"try:\n    parse_reply({made}, answer)\nexcept AnswerFault:\n    print('fault')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=20)
    assert (done.stdout.strip(), done.stderr) == ("fault", "")


@pytest.mark.parametrize(
    ("kind", "line", "value"),
    [
        (Scalar("string"), " Nike ", "Nike"),
        (Scalar("string"), "12", "12"),
        (Scalar("integer"), "12", 12),
        (Scalar("boolean"), "yes", True),
        (Scalar("boolean"), " No.", False),
        (Labels(("a", "b")), '"A"', "a"),
        (ListOf(Scalar("integer")), "[1,2]", [1, 2]),
        (Scalar("number"), "1.5", 1.5),
        (Labels(("no", "yes")), "no", "no"),
    ],
)
def test_a_line_is_bare_text_or_a_json_value(kind, line, value):
    assert parse_line(line, Record((Field("it", kind),))) == {"it": value}


@pytest.mark.parametrize("line", ["null", "none", "", " "])
def test_a_nullable_line_may_say_nothing(line):
    assert parse_line(line, Record((Field("it", Scalar("string"), nullable=True),))) == {"it": None}


@pytest.mark.parametrize(("kind", "line"), [("string", ""), ("integer", "many"), ("date", "soon")])
def test_a_line_that_does_not_fit_is_a_fault(kind, line):
    with pytest.raises(AnswerFault):
        parse_line(line, Record((Field("it", Scalar(kind)),)))

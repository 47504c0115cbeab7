"""The grammar is read by a small translator to a regular expression: it has no recursion, so it is one."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.grammar import MAX_CHARS, MAX_ITEMS, grammar
from gdo.schema import Field, Labels, ListOf, Record, Scalar

_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


def pattern(text):
    """A GBNF grammar without recursion as a regular expression."""
    rules = dict(line.split(" ::= ", 1) for line in text.strip().splitlines())

    def translated(expression):
        out = []
        for token in re.findall(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\{[0-9,]*\}|[a-z]+|\s+|[()|?]', expression):
            if token.startswith('"'):
                literal = re.sub(r"\\(.)", lambda m: _ESCAPES[m[0]], token[1:-1])
                out.append(re.escape(literal))
            elif token[0].isalpha():
                out.append(f"(?:{translated(rules[token])})")
            elif token == "(":  # noqa: S105
                out.append("(?:")
            elif not token.isspace():
                out.append(token)
        return "".join(out)

    return re.compile(translated(rules["root"]))


@given(data=st.data())
def test_every_compact_json_of_a_type_is_a_sentence(types, data):
    answer = data.draw(types.RECORDS)
    text = types.as_json(data.draw(types.values(answer)))
    assert pattern(grammar(answer)).fullmatch(text), (grammar(answer), text)


@given(data=st.data())
def test_no_layout_is_a_sentence(types, data):
    answer = data.draw(types.RECORDS)
    text = types.as_json(data.draw(types.values(answer)))
    assert not pattern(grammar(answer)).fullmatch(text.replace("{", "{ ", 1))


def test_a_plain_answer_stands_behind_a_space_and_ends_its_line():
    whole = grammar(Record((Field("ok", Scalar("boolean"), nullable=True),)), plain=True)
    found = pattern(whole)
    assert found.fullmatch(" true\n")
    assert found.fullmatch(" null\n")
    assert not found.fullmatch("true")


def test_a_text_and_a_list_end_by_themselves():
    text, listed = pattern(grammar(Scalar("string"))), pattern(grammar(ListOf(Scalar("boolean"))))
    assert text.fullmatch('"' + "a" * MAX_CHARS + '"')
    assert not text.fullmatch('"' + "a" * (MAX_CHARS + 1) + '"')
    assert listed.fullmatch("[" + ",".join(["true"] * MAX_ITEMS) + "]")
    assert not listed.fullmatch("[" + ",".join(["true"] * (MAX_ITEMS + 1)) + "]")


@pytest.mark.parametrize("text", ['"a', 'a"', '"a"b"', '"a\nb"', '"\\x"'])
def test_a_text_that_is_no_json_is_no_sentence(text):
    assert not pattern(grammar(Scalar("string"))).fullmatch(text)


@pytest.mark.parametrize("text", ["01", "1.", "+1", ".5", "-", "1e5"])
def test_a_number_that_is_no_json_is_no_sentence(text):
    assert not pattern(grammar(Scalar("number"))).fullmatch(text)


def test_only_labels_are_sentences():
    found = pattern(grammar(Labels(("red", 'the "big" one', "a\\b", "a\nb", "rosé"))))
    assert [
        bool(found.fullmatch(text)) for text in ('"red"', '"the \\"big\\" one"', '"a\\\\b"', '"a\\nb"', '"rosé"')
    ] == [True] * 5
    assert not found.fullmatch('"green"')


def test_null_is_a_sentence_where_it_is_allowed():
    answer = Record((Field("a", Scalar("integer"), nullable=True), Field("b", Scalar("integer"))))
    assert pattern(grammar(answer)).fullmatch('{"a":null,"b":1}')
    assert not pattern(grammar(answer)).fullmatch('{"a":1,"b":null}')


EVERYTHING = Record(
    (
        Field('a "quoted" \\ name', Scalar("string")),
        Field("rosé", Scalar("integer"), nullable=True),
        Field("n", Scalar("number")),
        Field("d", Scalar("date")),
        Field("t", Scalar("timestamp")),
        Field("l", Labels(('the "big" one', "a\\b", "tab\there", "line\nbreak", "\u4e2d", "\x7f", "]", "[^a]"))),
        Field("many", ListOf(Record((Field("x", ListOf(Scalar("boolean"))), Field("type", Labels(("u", "v"))))))),
    )
)


@pytest.mark.model
@pytest.mark.parametrize("answer", [EVERYTHING, EVERYTHING.fields[-1].type, Scalar("timestamp"), Labels(("yes", "no"))])
def test_the_engine_takes_the_grammar_and_its_answer_fits(answer, tmp_path):
    import asyncio

    from gdo.model import Head, Request, Sampling
    from gdo.models.local import Local
    from gdo.parse import parse_reply

    whole = answer if isinstance(answer, Record) else Record((Field("it", answer),))

    async def asked():
        model = Local(backend="local", slots=1, context=1024).build(tmp_path)
        await model.start(lambda _: None)
        head = Head("plain", text="Answer in JSON.\n\n", answer=whole)
        request = Request(head, "A red box, seen on 2024-01-02.\nJSON:", Sampling(max_tokens=700), constrained=True)
        replies = []

        async def done(_, reply):
            replies.append(reply)

        await model.generate([request], done)
        await model.close()
        return replies[0]

    reply = asyncio.run(asked())
    assert reply.error is None
    text = reply.text.removeprefix(" ")
    assert pattern(grammar(answer if len(whole.fields) == 1 else whole)).fullmatch(text), text
    if "d" not in whole.names:
        assert parse_reply(text, whole).keys() == set(whole.names)

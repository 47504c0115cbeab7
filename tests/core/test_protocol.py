import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.model import Head, Message, Request, Sampling, told_schema
from gdo.protocol import Bodies, completion, refusal
from gdo.schema import Field, Record, Scalar

ANSWER = Record((Field("a", Scalar("string")),))
HEAD = Head("chat", (Message("system", 'Be "brief".'), Message("user", "x"), Message("assistant", "y")), answer=ANSWER)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, st.lists(TEXTS, max_size=2), st.booleans(), st.booleans())
def test_a_body_put_together_from_bytes_is_the_json_that_it_stands_for(text, turns, constrained, structured):
    said = tuple(Message("user", turn) for turn in turns)
    request = Request(HEAD, text, Sampling(max_tokens=7), constrained, turns=said)
    body = json.loads(Bodies("m", structured=structured).of(request))
    messages = [(turn["role"], turn["content"]) for turn in body["messages"]]
    expected = [(turn.role, turn.content) for turn in request.messages()]
    if constrained and not structured:
        assert "JSON Schema" in messages[0][1]
        expected[0] = (expected[0][0], expected[0][1] + "\n\n" + told_schema(ANSWER))
    assert messages == expected
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 7)
    assert ("response_format" in body) == (constrained and structured)


@given(TEXTS, TEXTS)
def test_a_plain_body_holds_the_whole_prompt(shared, text):
    head = Head("plain", text=shared, answer=ANSWER)
    body = json.loads(Bodies("", structured=True).of(Request(head, text, Sampling(stop=("\n",)))))
    assert body["prompt"] == shared + text
    assert body["stop"] == ["\n"]
    assert "model" not in body
    assert "messages" not in body


def test_bodies_of_two_prompts_in_turn_are_not_mixed_up():
    bodies = Bodies("m", structured=True)
    other = Head("chat", (Message("system", "Other."),), answer=ANSWER)
    one, two = (Request(head, "row", Sampling(), constrained=True) for head in (HEAD, other))
    alone = [Bodies("m", structured=True).of(request) for request in (one, two)]
    assert [bodies.of(request) for request in (one, two, one, two)] == alone * 2
    assert Bodies("m", structured=False).of(one) != alone[0]


def test_a_temperature_sends_a_seed():
    body = json.loads(Bodies("m", structured=True).of(Request(HEAD, "row", Sampling(temperature=0.5, seed=3))))
    assert (body["temperature"], body["seed"]) == (0.5, 3)


def test_a_completion_is_its_text_and_usage():
    raw = b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 3, "completion_tokens": null}}'
    reply = completion(raw, plain=False)
    assert (reply.text, reply.usage.prompt_tokens, reply.usage.completion_tokens) == ("x", 3, 0)
    assert completion(b'{"choices": [{"text": " y"}]}', plain=True).text == " y"


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"choices": []}', b'{"choices": [{"message": {"content": 5}}]}'])
def test_what_is_no_completion_is_told(raw):
    with pytest.raises(ValueError, match=r".*"):
        completion(raw, plain=False)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"error": {"message": " no "}}', "no"),
        (b'{"error": "flat"}', "flat"),
        (b"<html>", "<html>"),
        (b"\xff", "\ufffd"),
    ],
)
def test_a_refusal_is_read_in_any_shape(raw, said):
    assert refusal(raw) == said


@pytest.mark.parametrize(
    ("said", "gone"),
    [
        ("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.", {"max_tokens"}),
        ("Unsupported value: 'temperature' does not support 0.0 with this model.", {"temperature"}),
        ("this text was refused", set()),
    ],
)
def test_what_a_server_does_not_take_is_left_out_of_all_that_follow(said, gone):
    bodies = Bodies("m", structured=True)
    request = Request(HEAD, "row", Sampling(), constrained=True)
    before = bodies.of(request)
    assert bodies.yields(before, said) == bool(gone)
    after = bodies.of(request)
    assert json.loads(before).keys() - json.loads(after).keys() == gone
    assert bodies.yields(before, said) == bool(gone)  # what was on its way is sent again too
    assert not bodies.yields(after, said)


@pytest.mark.parametrize(
    "said",
    [
        "response_format json_schema is not supported",
        "This model does not support structured output",
        "failed to parse grammar",
        "No endpoints found that can handle the requested parameters",
    ],
)
def test_a_refusal_that_speaks_of_the_schema_is_tried_without_it(said):
    bodies = Bodies("m", structured=True)
    request = Request(HEAD, "row", Sampling(), constrained=True)
    sent = bodies.of(request)
    bodies.answered(sent, bare=False)
    assert bodies.may_be_schema(sent, said)
    assert not bodies.may_be_schema(sent, "this text was refused")
    bare = bodies.of(request, bare=True)
    assert b"response_format" not in bare
    assert not bodies.may_be_schema(bare, said)
    assert bodies.of(request) == sent  # until a bare one was answered
    bodies.answered(bare, bare=True)
    assert bodies.of(request) == bare


def test_any_refusal_may_be_about_the_schema_until_one_was_taken():
    bodies = Bodies("m", structured=True)
    sent = bodies.of(Request(HEAD, "row", Sampling(), constrained=True))
    assert bodies.may_be_schema(sent, "Bad Request")
    assert not bodies.may_be_schema(sent, "Internal Server Error", certain=True)
    bodies.answered(sent, bare=False)
    assert not bodies.may_be_schema(sent, "Bad Request")


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (
            {
                "content": [
                    {"type": "thinking", "thinking": "hm"},
                    {"type": "text", "text": "a"},
                    {"type": "text", "text": "b"},
                ]
            },
            "ab",
        ),
        ({"tool_calls": []}, ""),
        ({"content": None, "reasoning_content": "hm"}, ""),
    ],
)
def test_a_message_in_parts_is_its_text(message, text):
    raw = json.dumps({"choices": [{"message": message}]}).encode()
    assert completion(raw, plain=False).text == text


@pytest.mark.parametrize(
    ("choice", "ended"),
    [
        ({"message": {"content": "x"}, "finish_reason": "stop"}, ""),
        ({"message": {"content": "x"}}, ""),
        ({"message": {"content": "x"}, "finish_reason": "length"}, "length"),
        ({"message": {"content": None, "refusal": "I cannot"}, "finish_reason": "stop"}, "refusal: I cannot"),
    ],
)
def test_a_reply_that_had_no_proper_end_says_so(choice, ended):
    assert completion(json.dumps({"choices": [choice]}).encode(), plain=False).ended == ended


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 10**30, "completion_tokens": -5}, (0, 0)),
        ({"total_tokens": 7}, (7, 0)),
        ({"prompt_tokens": "12"}, (0, 0)),
        ({"prompt_tokens": True, "completion_tokens": True}, (0, 0)),
        ("many", (0, 0)),
        ([1], (0, 0)),
        (None, (0, 0)),
    ],
)
def test_what_is_no_count_of_tokens_is_none(usage, counted):
    raw = json.dumps({"choices": [{"message": {"content": "x"}}], "usage": usage}).encode()
    assert completion(raw, plain=False).usage == counted

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.model import Head, Message, Request, Sampling
from gdo.protocol import Bodies, completion, refusal
from gdo.schema import Field, Record, Scalar

ANSWER = Record((Field("a", Scalar("string")),))
HEAD = Head("chat", (Message("system", 'Be "brief".'), Message("user", "x"), Message("assistant", "y")), answer=ANSWER)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, st.lists(TEXTS, max_size=2), st.booleans(), st.booleans())
def test_a_body_put_together_from_bytes_is_the_json_that_it_stands_for(text, turns, constrained, structured):
    said = tuple(Message("user", turn) for turn in turns)
    request = Request(HEAD, text, Sampling(max_tokens=7), constrained, turns=said)
    body = json.loads(Bodies("m").of(request, structured=structured))
    messages = [(turn["role"], turn["content"]) for turn in body["messages"]]
    expected = [(turn.role, turn.content) for turn in request.messages()]
    if constrained and not structured:
        assert "JSON Schema" in messages.pop(0)[1]
    assert messages == expected
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("m", 0.0, 7)
    assert ("response_format" in body) == (constrained and structured)


@given(TEXTS, TEXTS)
def test_a_plain_body_holds_the_whole_prompt(shared, text):
    head = Head("plain", text=shared, answer=ANSWER)
    body = json.loads(Bodies("").of(Request(head, text, Sampling(stop=("\n",))), structured=True))
    assert body["prompt"] == shared + text
    assert body["stop"] == ["\n"]
    assert "model" not in body
    assert "messages" not in body


def test_bodies_of_two_prompts_in_turn_are_not_mixed_up():
    bodies = Bodies("m")
    other = Head("chat", (Message("system", "Other."),), answer=ANSWER)
    one, two = (Request(head, "row", Sampling(), constrained=True) for head in (HEAD, other))
    alone = [Bodies("m").of(request, structured=True) for request in (one, two)]
    assert [bodies.of(request, structured=True) for request in (one, two, one, two)] == alone * 2
    assert bodies.of(one, structured=False) != alone[0]


def test_a_temperature_sends_a_seed():
    body = json.loads(Bodies("m").of(Request(HEAD, "row", Sampling(temperature=0.5, seed=3)), structured=True))
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
    [(b'{"error": {"message": " no "}}', "no"), (b'{"error": "flat"}', "flat"), (b"<html>", "<html>"), (b"\xff", "\ufffd")],
)
def test_a_refusal_is_read_in_any_shape(raw, said):
    assert refusal(raw) == said

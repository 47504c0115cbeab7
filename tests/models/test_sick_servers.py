"""`backend: endpoint` and servers that fail in part, for a while, or take other words than most."""

import json
import threading
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

import gdo
from gdo import patience

Ask = Callable[..., gdo.Run]
STEP = {"op": "map", "prompt": "{{ t }}", "output": {"a": "string"}, "model": "m"}
MANY = pa.table({"t": [f"row {i}" for i in range(200)]})


def said(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def refusing(server: Any, answer: Any, words: str, sent: Callable[[dict[str, Any]], bool]) -> None:
    """Have the server refuse each body of a kind in some words."""
    good = server.answer
    raw = json.dumps({"error": {"message": words}}).encode()
    server.answer = lambda n, body: answer(status=400, raw=raw) if sent(body) else good(n, body)


def test_what_was_paid_under_a_refused_schema_is_not_paid_again(ask: Ask, server: Any, answer: Any) -> None:
    refusing(server, answer, "response_format is not supported", lambda body: "response_format" in body)
    first = ask(MANY)
    sent = len(server.bodies)
    again = ask(MANY, max_calls=0)
    assert first.table() == again.table()
    assert len(server.bodies) == sent
    assert first.report["map"]["calls"] == 200


@pytest.mark.parametrize(
    ("words", "key"),
    [
        ("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead.", "max_tokens"),
        ("Unsupported value: 'temperature' does not support 0.0 with this model.", "temperature"),
    ],
)
def test_a_model_that_takes_other_parameters_is_asked_with_those(
    ask: Ask, server: Any, answer: Any, words: str, key: str
) -> None:
    refusing(server, answer, words, lambda body: key in body)
    assert ask(MANY, concurrency=8).errors().num_rows == 0
    assert sum(key in body for body in server.bodies) <= 8


@pytest.mark.parametrize(
    "sick", [{"status": 503}, {"status": 429}, {"status": 500}, {"status": 502}, {"raw": b"<html>"}]
)
def test_of_two_servers_the_sick_one_costs_no_row(
    ask: Ask, server: Any, other: Any, answer: Any, sick: dict[str, Any]
) -> None:
    other.answer = lambda *_: answer(**sick)
    run = ask(MANY, url=[other.url, server.url], concurrency=16, patience_s=60)
    assert run.errors().num_rows == 0
    assert run.table().column("a").null_count == 0
    assert len(other.bodies) <= 30


def test_a_server_that_is_well_again_is_asked_again(ask: Ask, server: Any, other: Any, answer: Any) -> None:
    good = other.answer
    other.answer = lambda n, body: answer(status=503) if n < 3 else good(n, body)
    server.late = other.late = {f"row {i}": 0.1 for i in range(200)}
    assert ask(MANY, url=[other.url, server.url], concurrency=16).errors().num_rows == 0
    assert len(other.bodies) > 20


@pytest.mark.parametrize("status", [500, 502, 504])
def test_an_outage_of_some_seconds_costs_no_row(ask: Ask, server: Any, answer: Any, status: int) -> None:
    good, began = server.answer, list[float]()

    def of(number: int, body: dict[str, Any]) -> Any:
        if number == 50:
            began.append(server.times[-1])
        out = began and server.times[-1] - began[0] < 4
        return answer(status=status) if out else good(number, body)

    server.answer = of
    run = ask(MANY, concurrency=16, attempts=2, patience_s=60)
    assert run.errors().num_rows == 0


def test_a_row_that_fails_alone_is_an_error_at_its_last_attempt(ask: Ask, server: Any, answer: Any) -> None:
    good = server.answer
    server.answer = lambda n, body: answer(status=502) if said(body) == "row 199" else good(n, body)
    run = ask(MANY, attempts=2, patience_s=60)
    assert run.errors().column("row_key").to_pylist() == [199]
    assert run.errors().column("attempts").to_pylist() == [2]


def test_a_server_that_wants_to_be_left_alone_for_longer_than_patience_ends_the_run_at_its_end(
    ask: Ask, server: Any, answer: Any
) -> None:
    good = server.answer
    server.answer = lambda n, body: good(n, body) if n < 50 else answer(status=429, headers={"Retry-After": "3600"})
    with pytest.raises(gdo.RunFailed, match=r"HTTP 429: as told, and asks for 3,600 s of rest, and so for 1 s"):
        ask(MANY, concurrency=8, patience_s=1)
    assert len(server.bodies) <= 50 + 2 * 8


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the user is told while a run waits."""
    found: list[str] = []
    monkeypatch.setattr(patience.Patience, "tell", property(lambda _: found.append, lambda *_: None), raising=False)
    return found


def test_what_is_waited_for_is_told(
    ask: Ask, server: Any, answer: Any, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_QUIET_S", 0.2)
    good = server.answer
    server.answer = lambda n, body: answer(status=429) if n < 4 else good(n, body)
    ask(pa.table({"t": ["row 0"]}), patience_s=30)
    assert told == ["waiting up to 30 s for a server: HTTP 429: as told"]


@pytest.mark.parametrize("status", [301, 402, 405])
def test_a_refusal_of_everything_ends_the_run(ask: Ask, server: Any, answer: Any, status: int) -> None:
    server.answer = lambda *_: answer(status=status, headers={"Location": "https://elsewhere/v1"})
    with pytest.raises(gdo.ModelUnready, match=f"refuses what is asked: HTTP {status}"):
        ask(MANY, concurrency=4)
    assert len(server.bodies) <= 8


@pytest.mark.parametrize("status", [403, 404])
def test_a_row_that_is_forbidden_alone_does_not_end_the_next_run(
    ask: Ask, server: Any, answer: Any, status: int
) -> None:
    good = server.answer
    server.answer = lambda n, body: answer(status=status) if said(body) == "row 7" else good(n, body)
    for _ in range(2):  # the second one asks for that row and for no other
        assert ask(MANY).errors().column("row_key").to_pylist() == [7]
    assert len(server.bodies) == 201


def test_tokens_that_a_server_does_not_count_are_reckoned_so_that_a_budget_holds(
    ask: Ask, server: Any, answer: Any
) -> None:
    server.answer = lambda *_: answer(raw=b'{"choices": [{"message": {"content": "{\\"a\\": \\"x\\"}"}}]}')
    with pytest.raises(gdo.BudgetSpent):
        ask(MANY, max_tokens=1000, concurrency=4)
    assert len(server.bodies) < 60


def finished(reason: str, content: object, **message: object) -> bytes:
    choice = {"message": {"content": content, **message}, "finish_reason": reason}
    return json.dumps({"choices": [choice]}).encode()


def test_a_text_that_was_cut_off_is_no_answer(ask: Ask, server: Any, answer: Any) -> None:
    server.answer = lambda *_: answer(raw=finished("length", "The long story of the"))
    (error,) = ask(MANY.slice(0, 1)).errors().to_pylist()
    assert error["reason"] == "invalid"
    assert "cut off" in error["detail"]
    assert "raise `max_tokens`" in error["detail"]


def test_json_that_is_whole_is_an_answer_wherever_the_reply_was_cut(ask: Ask, server: Any, answer: Any) -> None:
    server.answer = lambda *_: answer(raw=finished("length", '{"a": "x"} and the reason for'))
    assert ask(MANY.slice(0, 1)).table().column("a").to_pylist() == ["x"]


@pytest.mark.parametrize(
    ("reason", "message", "told"),
    [
        ("length", {"reasoning_content": "hm"}, "ended with length: its 256 tokens"),
        ("content_filter", {}, "ended with content_filter"),
        ("stop", {"refusal": "I cannot"}, "ended with refusal: I cannot"),
    ],
)
def test_an_empty_reply_says_how_it_ended_also_from_the_cache(
    ask: Ask, server: Any, answer: Any, reason: str, message: dict[str, Any], told: str
) -> None:
    server.answer = lambda *_: answer(raw=finished(reason, None, **message))
    for _ in range(2):
        (error,) = ask(MANY.slice(0, 1), step={**STEP, "retries": 0}).errors().to_pylist()
        assert told in error["detail"]
    assert len(server.bodies) == 1


def test_the_attempts_of_all_calls_are_the_requests_that_were_sent(ask: Ask, server: Any, answer: Any) -> None:
    good, seen = server.answer, dict[str, int]()

    def flaky(number: int, body: dict[str, Any]) -> Any:
        asked = json.dumps(body["messages"])
        seen[asked] = seen.get(asked, 0) + 1
        if number % 7 == 0 and seen[asked] == 1:
            return answer(status=500)
        return answer('{"a": 5') if number % 5 == 0 else good(number, body)

    server.answer = flaky
    run = ask(MANY)
    assert sum(run.calls().column("attempts").to_pylist()) == len(server.bodies)


def test_a_reply_in_parts_is_read(ask: Ask, server: Any, answer: Any) -> None:
    server.answer = lambda *_: answer([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": '{"a": "x"}'}])
    assert ask(MANY.slice(0, 2)).table().column("a").to_pylist() == ["x", "x"]


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ('Could be {"a": "green"}? No.\n</think>\n\n{"a": "red"}', "red"),
        ("Let me see ...\n</think>\n\nA red car", "A red car"),
        ('<THINKING>{"a": "green"}</THINKING>{"a": "red"}', "red"),
        ('[THINK]{"a": "green"}[/THINK]{"a": "red"}', "red"),
    ],
)
def test_what_a_model_thinks_first_is_not_its_answer(
    ask: Ask, server: Any, answer: Any, content: str, value: str
) -> None:
    server.answer = lambda *_: answer(content)
    assert ask(MANY.slice(0, 1)).table().column("a").to_pylist() == [value]


@pytest.mark.parametrize("url", ["http://x/v1?api-version=1", "http://x/v1/chat/completions", "http://x/v1/#a"])
def test_an_address_that_is_not_the_base_of_a_server_is_a_fault(ask: Ask, url: str) -> None:
    with pytest.raises(gdo.Faults, match=r"pipeline.yaml:\d+:\d+: .*ends with /v1"):
        ask(MANY, url=url)


@pytest.mark.parametrize(
    "text", ["Models emit <think> first.", "Open <think> and </think> close.", "The tag </think> ends it."]
)
def test_a_text_may_speak_of_tags(ask: Ask, server: Any, answer: Any, text: str) -> None:
    server.answer = lambda *_: answer(text)
    assert ask(MANY.slice(0, 1)).table().column("a").to_pylist() == [text]


@pytest.mark.parametrize("wrong", [{"status": 401}, {"status": 402}, {"status": 403}, {"status": 404}, {"status": 400}])
def test_of_two_servers_one_that_takes_nothing_costs_no_row(
    ask: Ask, server: Any, other: Any, answer: Any, wrong: dict[str, Any]
) -> None:
    other.answer = lambda *_: answer(**wrong)
    server.delay_s = 0.01
    run = ask(MANY, url=[other.url, server.url], concurrency=16)
    assert run.errors().num_rows == 0
    assert len(other.bodies) <= 40


def test_where_all_servers_take_nothing_the_run_ends(ask: Ask, server: Any, other: Any, answer: Any) -> None:
    server.answer = other.answer = lambda *_: answer(status=403)
    with pytest.raises(gdo.ModelUnready, match="refuses the key"):
        ask(MANY, url=[other.url, server.url], concurrency=8)


def test_a_first_row_that_is_put_off_for_long_holds_up_no_other(ask: Ask, server: Any, answer: Any) -> None:
    good = server.answer
    server.answer = lambda n, body: (
        answer(status=429, headers={"Retry-After": "3600"}) if said(body) == "row 0" else good(n, body)
    )
    server.held = {f"row {i}": 5 for i in range(1, 5)}
    run = ask(MANY, concurrency=8, patience_s=3)
    assert run.errors().column("row_key").to_pylist() == [0]
    assert "asks for 3,600 s of rest" in run.errors().column("detail")[0].as_py()
    assert server.times[-1] - server.times[0] < 30


def test_a_failing_row_is_not_held_longer_than_patience(ask: Ask, server: Any, answer: Any) -> None:
    good = server.answer
    server.answer = lambda n, body: (
        answer(status=500, headers={"Retry-After": "600"}) if said(body) == "row 7" else good(n, body)
    )
    run = ask(MANY, patience_s=1)
    assert run.errors().column("row_key").to_pylist() == [7]


@pytest.mark.parametrize("bad", [{"status": 503}, {"status": 429}])
def test_a_few_rows_that_a_server_never_takes_are_their_own_errors_also_the_next_time(
    ask: Ask, server: Any, answer: Any, bad: dict[str, Any]
) -> None:
    good, never = server.answer, {f"row {i}" for i in range(196, 200)}
    server.answer = lambda n, body: answer(**bad) if said(body) in never else good(n, body)
    for _ in range(2):
        run = ask(MANY, patience_s=1)
        assert run.errors().column("row_key").to_pylist() == [196, 197, 198, 199]


def test_a_server_that_goes_for_good_ends_a_run_of_one_request_at_a_time(ask: Ask, server: Any) -> None:
    good = server.answer

    def of(number: int, body: dict[str, Any]) -> Any:
        if number == 40:
            threading.Thread(target=server.leave, args=(None,)).start()
        return good(number, body)

    server.answer, server.delay_s = of, 0.01
    with pytest.raises(gdo.RunFailed, match="cannot connect"):
        ask(MANY, concurrency=1, patience_s=1)


def test_a_server_that_hangs_for_good_ends_the_run(ask: Ask, server: Any, answer: Any) -> None:
    good = server.answer
    server.late = {f"row {i}": 60 for i in range(50, 200)}
    server.answer = good
    with pytest.raises(gdo.RunFailed, match="no answer within"):
        ask(MANY, concurrency=32, timeout_s=0.3, attempts=2)


def test_a_refusal_of_one_row_that_speaks_of_schemas_keeps_the_schema_for_the_others(
    ask: Ask, server: Any, answer: Any
) -> None:
    good = server.answer
    raw = json.dumps({"error": {"message": "rejected by our strict safety policy"}}).encode()
    server.answer = lambda n, body: answer(status=400, raw=raw) if said(body) == "row 50" else good(n, body)
    run = ask(MANY, concurrency=4)
    assert run.errors().column("row_key").to_pylist() == [50]
    assert sum("response_format" not in body for body in server.bodies) == 1


@pytest.mark.parametrize("wrong", [{"status": 400}, {"status": 500}, {"cut": True}])
def test_two_servers_that_both_fail_everybody_are_no_slower_than_one(
    ask: Ask, server: Any, other: Any, answer: Any, wrong: dict[str, Any]
) -> None:
    server.answer = other.answer = lambda *_: answer(**wrong)
    run = ask(MANY.slice(0, 40), url=[other.url, server.url], concurrency=16, attempts=2)
    assert run.errors().num_rows == 40
    assert len(server.bodies) + len(other.bodies) <= 40 * 3


def test_of_two_servers_a_row_that_neither_takes_is_its_own_error_also_the_next_time(
    ask: Ask, server: Any, other: Any, answer: Any
) -> None:
    good, never = server.answer, {f"row {i}" for i in range(0, 200, 8)}
    server.answer = other.answer = lambda n, body: answer(status=400) if said(body) in never else good(n, body)
    for _ in range(2):
        assert ask(MANY, url=[other.url, server.url], concurrency=16).errors().num_rows == 25


def test_of_two_servers_one_that_begins_to_refuse_costs_no_row(ask: Ask, server: Any, other: Any, answer: Any) -> None:
    good = other.answer
    other.answer = lambda n, body: good(n, body) if n < 30 else answer(status=400)
    server.delay_s = 0.01
    assert ask(MANY, url=[other.url, server.url], concurrency=16).errors().num_rows == 0


def test_a_server_that_is_barred_is_told_once(ask: Ask, server: Any, other: Any, answer: Any, told: list[str]) -> None:
    other.answer = lambda *_: answer(status=401)
    ask(MANY, url=[other.url, server.url], concurrency=16)
    assert len(told) == 1
    assert f"{other.url} is asked no more: it refuses the key" in told[0]

"""`backend: endpoint` against a real server on the loopback address."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

import gdo

Write = Callable[..., Path]
KEY = "sk-verysecret-0123456789"
ROWS = pa.table({"t": [f"row {i}" for i in range(20)]})
STEP = {"op": "map", "prompt": "{{ t }}", "output": {"a": "string"}, "model": "m"}


def first(count: int, bad: Any, good: Callable[[int, dict[str, Any]], Any]) -> Callable[[int, dict[str, Any]], Any]:
    return lambda number, body: bad if number < count else good(number, body)


def test_every_row_is_answered_in_its_place(ask: Callable[..., gdo.Run], server: Any) -> None:
    run = ask()
    assert run.table().column("a").to_pylist() == [f"said row {i}" for i in range(20)]
    assert len(server.bodies) == 20
    assert run.report["map"]["prompt_tokens"] == 220
    assert run.report["map"]["completion_tokens"] == 60


def test_a_request_says_what_the_protocol_wants(ask: Callable[..., gdo.Run], server: Any) -> None:
    examples = [{"in": {"t": "x"}, "out": {"a": "y"}}]
    step = {**STEP, "system": "Be brief.", "examples": examples, "max_tokens": 17, "temperature": 0.5}
    ask(ROWS.slice(0, 1), step)
    body = server.bodies[0]
    assert server.paths == ["/v1/chat/completions"]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert server.headers[0]["Content-Type"] == "application/json"
    assert body["model"] == "tiny"
    assert (body["temperature"], body["max_tokens"]) == (0.5, 17)
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert [m["content"] for m in body["messages"]] == ["Be brief.", "x", '{"a":"y"}', "row 0"]
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"a": {"type": "string"}}
    assert schema["required"] == ["a"]


def test_a_server_may_be_spoken_to_by_plain_completion(ask: Callable[..., gdo.Run], server: Any, answer: Any) -> None:
    server.answer = lambda _, body: answer(f" said {body['prompt'].split()[1]}\n")
    run = ask(step={**STEP, "prompt": "Row: {{ t }}"}, style="plain")
    assert run.table().column("a")[0].as_py() == "said row"
    assert set(server.paths) == {"/v1/completions"}
    assert server.bodies[0]["stop"] == ["\n"]


def test_a_second_run_sends_nothing_even_to_another_address(
    ask: Callable[..., gdo.Run], server: Any, write: Write
) -> None:
    ask()
    models = {"m": {"backend": "endpoint", "url": "http://127.0.0.1:9/v1", "model": "tiny"}}
    run = gdo.run(write([STEP], models=models), source=ROWS)
    assert run.report["map"]["calls"] == 0
    assert len(server.bodies) == 20


@pytest.mark.parametrize(
    "headers", [{}, {"Retry-After": "0.1"}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, {"Retry-After": "soon"}]
)
def test_a_busy_server_is_asked_again(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, headers: dict[str, str]
) -> None:
    server.answer = first(2, answer(status=429, headers=headers), server.answer)
    run = ask(ROWS.slice(0, 4))
    assert run.errors().num_rows == 0
    assert len(server.bodies) == 6


@pytest.mark.parametrize("status", [500, 502, 503, 529, 408])
def test_a_server_that_fails_once_is_asked_again(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, status: int
) -> None:
    server.answer = first(1, answer(status=status, raw=b"<html>oops"), server.answer)
    assert ask(ROWS.slice(0, 1)).errors().num_rows == 0
    assert len(server.bodies) == 2


def test_a_server_that_fails_on_and_on_is_an_error_of_the_row(
    ask: Callable[..., gdo.Run], server: Any, answer: Any
) -> None:
    server.answer = lambda *_: answer(status=500)
    run = ask(ROWS.slice(0, 2), attempts=2)
    errors = run.errors().to_pylist()
    assert [e["reason"] for e in errors] == ["server"] * 2
    assert errors[0]["detail"] == "HTTP 500: as told"
    assert len(server.bodies) == 4


@pytest.mark.parametrize("status", [429, 503, 529])
def test_a_server_that_is_busy_for_all_ends_the_run_after_a_while(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, status: int
) -> None:
    server.answer = lambda *_: answer(status=status)
    with pytest.raises(gdo.ModelUnready, match=f"HTTP {status}: as told, and so for 0.5 s"):
        ask(patience_s=0.5, concurrency=4)


def test_a_row_that_finds_the_server_busy_while_others_are_answered_is_an_error_of_its_own(
    ask: Callable[..., gdo.Run], server: Any, answer: Any
) -> None:
    good = server.answer
    server.delay_s = 0.05
    server.answer = lambda n, body: answer(status=429) if body["messages"][-1]["content"] == "row 0" else good(n, body)
    rows = pa.table({"t": [f"row {i}" for i in range(60)]})
    run = ask(rows, patience_s=0.2, concurrency=2)
    assert run.errors().column("reason").to_pylist() == ["rate_limit"]
    assert run.table().column("a").null_count == 1


def test_a_server_that_allows_few_at_once_is_asked_by_few_and_answers_all(
    ask: Callable[..., gdo.Run], server: Any, answer: Any
) -> None:
    """It refuses whatever comes while three are being answered, and says nothing of when to come again."""
    good = server.answer

    def crowded(number: int, body: dict[str, Any]) -> Any:
        return answer(status=429) if server.open > 3 else good(number, body)

    server.answer, server.delay_s = crowded, 0.01
    rows = pa.table({"t": [f"row {i}" for i in range(300)]})
    run = ask(rows, concurrency=64, patience_s=60)
    assert run.errors().num_rows == 0
    assert run.table().column("a").to_pylist() == [f"said row {i}" for i in range(300)]
    assert len(server.bodies) < 3 * 300, "most requests found room"


def test_bursts_of_refusals_with_a_time_to_come_again_lose_no_row(
    ask: Callable[..., gdo.Run], server: Any, answer: Any
) -> None:
    good = server.answer

    def bursts(number: int, body: dict[str, Any]) -> Any:
        return answer(status=429, headers={"Retry-After": "0.2"}) if number % 40 < 20 else good(number, body)

    server.answer = bursts
    run = ask(pa.table({"t": [f"row {i}" for i in range(100)]}), concurrency=16)
    assert run.errors().num_rows == 0


def test_a_moment_to_come_again_is_kept_by_the_clock_of_the_server(
    ask: Callable[..., gdo.Run], server: Any, answer: Any
) -> None:
    """Which may go wrong by years."""
    headers = {"Retry-After": "Wed, 21 Oct 2015 07:28:02 GMT", "Date": "Wed, 21 Oct 2015 07:28:01 GMT"}
    server.answer = first(1, answer(status=429, headers=headers), server.answer)
    assert ask(ROWS.slice(0, 1)).errors().num_rows == 0
    assert 0.9 <= server.times[1] - server.times[0] < 10


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def through(serve: Serve, path: Callable[[str], Path], rows: pa.Table) -> gdo.Run:
    """A run against a server that does what it likes with each connection; it is closed when that returns."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def work() -> gdo.Run:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        run = await asyncio.to_thread(gdo.run, path(url), source=rows)
        server.close()
        await server.wait_closed()
        return run

    return asyncio.run(work())


@pytest.mark.parametrize("after", [1, 4])
def test_a_server_that_closes_its_connections_without_a_word_loses_no_row(write: Write, after: int) -> None:
    """As one does whose time for idle connections is short: the next request may be on its way already."""
    said = json.dumps({"choices": [{"message": {"content": '{"a": "x"}'}}]}).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(after):
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
            await writer.drain()

    model = {"backend": "endpoint", "model": "tiny", "concurrency": 8, "attempts": 1}
    rows = pa.table({"t": [f"row {i}" for i in range(400)]})
    run = through(serve, lambda url: write([STEP], models={"m": {**model, "url": url}}), rows)
    assert run.errors().num_rows == 0


def test_a_row_at_which_a_server_hangs_up_is_an_error_of_its_own(write: Write) -> None:
    said, sent = json.dumps({"choices": [{"message": {"content": '{"a": "x"}'}}]}).encode(), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            sent.append(await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])))
            if b'"row 77"' in sent[-1]:
                return
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))

    model = {"backend": "endpoint", "model": "tiny", "concurrency": 8, "attempts": 3}
    rows = pa.table({"t": [f"row {i}" for i in range(200)]})
    run = through(serve, lambda url: write([STEP], models={"m": {**model, "url": url}}), rows)
    (error,) = run.errors().to_pylist()
    assert (error["row_key"], error["reason"]) == (77, "connection")
    tries = sum(b'"row 77"' in body for body in sent)
    assert error["attempts"] == tries
    assert 3 <= tries <= 4, "a used connection may have been closed before it"
    assert len(sent) == 199 + tries


def test_a_refusal_of_one_row_holds_up_no_other(ask: Callable[..., gdo.Run], server: Any, answer: Any) -> None:
    good, refused = server.answer, []

    def once(number: int, body: dict[str, Any]) -> Any:
        if body["messages"][-1]["content"] == "row 100" and not refused:
            refused.append(time.monotonic())
            return answer(status=429, headers={"Retry-After": "1"})
        return good(number, body)

    server.answer, server.delay_s = once, 0.005
    run = ask(pa.table({"t": [f"row {i}" for i in range(300)]}), concurrency=8)
    assert run.errors().num_rows == 0
    again = server.times[-1]  # the row that was refused comes back last
    assert again - refused[0] >= 0.9, "as late as it was asked to"
    assert sum(stamp > refused[0] for stamp in server.times[:-1]) > 100, "the others were asked in the meantime"


@pytest.mark.parametrize("raw", [b'{"choices": [{"mess', b"<html>a gateway</html>", b""])
def test_an_answer_that_is_no_completion_is_asked_for_again(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, raw: bytes
) -> None:
    server.answer = first(2, answer(raw=raw), server.answer)
    assert ask(ROWS.slice(0, 2)).errors().num_rows == 0
    assert len(server.bodies) == 4


def test_a_server_that_goes_away_and_comes_back_loses_no_row(ask: Callable[..., gdo.Run], server: Any) -> None:
    server.delay_s = 0.01
    threading.Timer(0.3, server.leave, [1.0]).start()
    rows = pa.table({"t": [f"row {i}" for i in range(400)]})
    run = ask(rows, concurrency=4, patience_s=30)
    assert server.left
    assert run.errors().num_rows == 0
    assert run.table().column("a").to_pylist() == [f"said row {i}" for i in range(400)]


def test_a_server_that_goes_away_for_good_ends_the_run_and_keeps_its_replies(
    ask: Callable[..., gdo.Run], server: Any
) -> None:
    server.delay_s = 0.01
    threading.Timer(0.3, server.leave, [None]).start()
    rows = pa.table({"t": [f"row {i}" for i in range(400)]})
    with pytest.raises(gdo.RunFailed, match=r"cannot connect: .*for 0\.5 s"):
        ask(rows, concurrency=4, patience_s=0.5)
    answered = len(server.bodies)
    server.come_back()
    run = ask(rows, concurrency=4)
    assert run.errors().num_rows == 0
    assert run.report["map"]["cached"] >= answered - 4


def test_several_urls_share_the_rows_and_one_may_be_away(ask: Callable[..., gdo.Run], server: Any) -> None:
    other = type(server)()
    try:
        server.delay_s = other.delay_s = 0.005
        run = ask(pa.table({"t": [f"row {i}" for i in range(100)]}), url=[server.url, other.url], concurrency=8)
        assert run.errors().num_rows == 0
        assert len(server.bodies) + len(other.bodies) == 100
        assert min(len(server.bodies), len(other.bodies)) >= 25
    finally:
        other.close()
    rows = pa.table({"t": [f"again {i}" for i in range(100)]})
    run = ask(rows, url=[server.url, other.url], concurrency=8)
    assert run.errors().num_rows == 0


def test_requests_per_minute_are_kept(ask: Callable[..., gdo.Run], server: Any) -> None:
    started = time.monotonic()
    ask(ROWS, requests_per_minute=600)  # ten a second, a second's worth at once
    assert time.monotonic() - started >= 0.9
    stamps = sorted(server.times)
    assert stamps[-1] - stamps[0] >= 0.8


def test_tokens_per_minute_are_kept_by_what_was_really_used(ask: Callable[..., gdo.Run], server: Any) -> None:
    ask(
        pa.table({"t": [f"row {i}" for i in range(60)]}), tokens_per_minute=60 * 14 * 30
    )  # 14 tokens a call: 30 a second
    stamps = sorted(server.times)
    assert 0.3 <= stamps[-1] - stamps[0] <= 10


def test_a_hung_request_is_given_up_and_the_others_are_answered(
    ask: Callable[..., gdo.Run], server: Any, answer: Any
) -> None:
    good = server.answer
    server.hang = "row 3"
    server.answer = good
    run = ask(timeout_s=0.3, attempts=2)
    assert run.errors().column("reason").to_pylist() == ["timeout"]
    assert run.errors().column("row_key").to_pylist() == [3]


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\n", b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"choices":']
)
def test_a_server_that_falls_silent_anywhere_in_its_answer_is_given_up(write: Write, said: bytes) -> None:
    calls = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        calls.append(time.monotonic())
        writer.write(said)
        while await reader.read(1000):  # until the client has had enough
            pass

    model = {"backend": "endpoint", "model": "tiny", "timeout_s": 0.5, "attempts": 2}
    run = through(serve, lambda url: write([STEP], models={"m": {**model, "url": url}}), ROWS.slice(0, 4))
    assert run.errors().column("reason").to_pylist() == ["timeout"] * 4
    assert run.errors().column("attempts").to_pylist() == [2] * 4
    assert len(calls) == 8


def test_a_cut_connection_is_tried_again(ask: Callable[..., gdo.Run], server: Any, answer: Any) -> None:
    server.answer = first(2, answer(cut=True), server.answer)
    assert ask(ROWS.slice(0, 2)).errors().num_rows == 0


def test_a_server_that_was_never_reached_ends_the_run_with_its_place(ask: Callable[..., gdo.Run]) -> None:
    with pytest.raises(gdo.ModelUnready, match=r"127\.0\.0\.1:9.*is the server up"):
        ask(ROWS.slice(0, 2), url="http://127.0.0.1:9/v1", attempts=1)


def test_a_slow_server_is_a_timeout(ask: Callable[..., gdo.Run], server: Any) -> None:
    server.delay_s = 1.0
    run = ask(ROWS.slice(0, 1), timeout_s=0.1, attempts=1)
    assert run.errors().column("reason").to_pylist() == ["timeout"]


@pytest.mark.parametrize(("status", "word"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "'tiny'")])
def test_a_server_that_will_answer_nobody_stops_the_run_at_once(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, status: int, word: str
) -> None:
    server.answer = lambda *_: answer(status=status)
    rows = pa.table({"t": [f"row {i}" for i in range(2000)]})
    with pytest.raises(gdo.ModelUnready, match=word) as caught:
        ask(rows, concurrency=4)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_status == 2
    assert len(server.bodies) <= 8


@pytest.mark.parametrize(
    "said", ["The model `tiny` does not exist", "model 'tiny' not found, try pulling it first", "Unknown model: tiny"]
)
def test_a_model_that_the_server_does_not_know_stops_the_run_at_once_whatever_the_status(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, said: str
) -> None:
    server.answer = lambda *_: answer(status=400, raw=json.dumps({"error": {"message": said}}).encode())
    with pytest.raises(gdo.ModelUnready, match="does not know the model 'tiny'"):
        ask(pa.table({"t": [f"row {i}" for i in range(2000)]}), concurrency=4)
    assert len(server.bodies) <= 8


@pytest.mark.parametrize("status", [403, 404, 410, 413, 451])
def test_one_row_that_is_forbidden_while_others_are_answered_is_its_own_error(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, status: int
) -> None:
    good = server.answer
    server.answer = lambda n, body: (
        answer(status=status) if body["messages"][-1]["content"] == "row 77" else good(n, body)
    )
    run = ask(pa.table({"t": [f"row {i}" for i in range(200)]}), concurrency=8)
    assert run.errors().column("row_key").to_pylist() == [77]
    assert run.table().column("a").null_count == 1


@pytest.mark.parametrize("status", [403, 404])
def test_a_first_row_that_is_forbidden_waits_for_what_becomes_of_the_others(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, status: int
) -> None:
    good = server.answer
    server.answer = lambda n, body: (
        answer(status=status) if body["messages"][-1]["content"] == "row 0" else good(n, body)
    )
    server.held = {"row 0": 4}
    server.late = {f"row {i}": 0.3 for i in range(1, 40)}
    run = ask(pa.table({"t": [f"row {i}" for i in range(40)]}), concurrency=8)
    assert run.errors().column("row_key").to_pylist() == [0]
    assert run.table().column("a").null_count == 1


def test_a_key_that_is_withdrawn_ends_the_run_when_many_rows_are_forbidden_on_end(
    ask: Callable[..., gdo.Run], server: Any, answer: Any
) -> None:
    good = server.answer
    server.answer = lambda n, body: answer(status=403) if n >= 50 else good(n, body)
    with pytest.raises(gdo.RunFailed, match="refuses the key"):
        ask(pa.table({"t": [f"row {i}" for i in range(2000)]}), concurrency=8)
    assert len(server.bodies) <= 50 + 20 + 2 * 8


def test_the_tables_tell_how_many_requests_a_row_took(ask: Callable[..., gdo.Run], server: Any, answer: Any) -> None:
    good, seen = server.answer, dict[str, int]()

    def flaky(number: int, body: dict[str, Any]) -> Any:
        asked = body["messages"][0]["content"]
        seen[asked] = seen.get(asked, 0) + 1
        if asked == "row 1" and seen[asked] <= 2:
            return answer(status=429)
        if asked == "row 2":
            return answer(status=500) if seen[asked] == 1 else answer('{"a": "half')
        return answer(status=500) if asked == "row 3" else good(number, body)

    server.answer = flaky
    run = ask(ROWS.slice(0, 5), attempts=3)
    errors = {error["row_key"]: (error["reason"], error["attempts"]) for error in run.errors().to_pylist()}
    assert errors == {2: ("unparsable", 3), 3: ("server", 3)}
    assert seen == {"row 0": 1, "row 1": 3, "row 2": 3, "row 3": 3, "row 4": 1}
    assert sorted(run.calls().column("attempts").to_pylist()) == [1, 1, 1, 2, 3, 3]  # "row 2" was two calls


@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_server_that_refuses_schemas_is_told_them_in_the_prompt(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, concurrency: int
) -> None:
    good = server.answer

    def refusing(number: int, body: dict[str, Any]) -> Any:
        if "response_format" in body:
            return answer(status=400, raw=b'{"error": {"message": "response_format is not supported"}}')
        return good(number, body)

    server.answer = refusing
    server.delay_s = 0.01
    run = ask(concurrency=concurrency)
    assert run.errors().to_pylist() == []
    assert "JSON Schema" in json.dumps(server.bodies[-1]["messages"])
    assert '\\"a\\"' in json.dumps(server.bodies[-1]["messages"])
    assert len(server.bodies) <= 20 + concurrency


def test_a_server_may_be_told_schemas_from_the_start(ask: Callable[..., gdo.Run], server: Any) -> None:
    assert ask(structured=False).errors().num_rows == 0
    assert not any("response_format" in body for body in server.bodies)
    assert all("JSON Schema" in json.dumps(body["messages"]) for body in server.bodies)


def test_half_a_json_is_asked_again_with_the_fault_named(ask: Callable[..., gdo.Run], server: Any, answer: Any) -> None:
    server.answer = lambda _, body: answer('{"a": "mended"}' if len(body["messages"]) > 1 else '{"a": "half')
    run = ask(ROWS.slice(0, 3))
    assert run.table().column("a").to_pylist() == ["mended"] * 3
    again = [body["messages"] for body in server.bodies if len(body["messages"]) > 1]
    assert len(again) == 3
    assert [turn["role"] for turn in again[0]] == ["user", "assistant", "user"]
    assert again[0][1]["content"] == '{"a": "half'
    assert "JSON" in again[0][2]["content"]


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ('{"n": "many", "b": true}', "invalid", "the field 'n': 'many' is not a number"),
        ('{"n": 1.5, "b": true}', "invalid", "the field 'n': 1.5 is not a whole number"),
        ('{"n": 1, "b": [true]}', "invalid", "the field 'b': [True] is not true or false"),
        ('{"n": 1}', "invalid", "the field 'b' is missing"),
        ('{"n": null, "b": true}', "invalid", "the field 'n' is null"),
        ('[1, true]', "invalid", "is not an object with the fields n, b"),
        ('{"n": 1, "b": tr', "unparsable", "no JSON object"),
        ("", "unparsable", "the reply is empty"),
        ("I would rather not.", "unparsable", "no JSON object"),
    ],
)  # fmt: skip
def test_an_answer_that_does_not_fit_is_asked_again_and_then_an_error_of_its_row_alone(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, text: str, reason: str, detail: str
) -> None:
    server.answer = lambda _, body: answer(text if "row 3" in json.dumps(body) else '{"n": 1, "b": true}')
    run = ask(step={**STEP, "output": {"n": "integer", "b": "boolean"}, "retries": 2})
    assert run.table().column("n").to_pylist() == [None if i == 3 else 1 for i in range(20)]
    (error,) = run.errors().to_pylist()
    assert (error["row_key"], error["reason"], error["raw_reply"], error["attempts"]) == (3, reason, text, 3)
    assert detail in error["detail"]
    assert len(server.bodies) == 22


def test_a_label_outside_the_set_is_asked_again_and_then_an_error(
    ask: Callable[..., gdo.Run], server: Any, answer: Any
) -> None:
    server.answer = lambda *_: answer('{"label": "green"}')
    step = {"op": "classify", "text": "{{ t }}", "labels": ["red", "blue"], "model": "m", "retries": 1}
    run = ask(ROWS.slice(0, 1), step)
    error = run.errors().to_pylist()[0]
    assert (error["reason"], error["attempts"], error["raw_reply"]) == ("invalid", 2, '{"label": "green"}')
    assert "'green' is none of the labels red, blue" in error["detail"]
    assert "'green' is none of the labels red, blue" in server.bodies[1]["messages"][-1]["content"]


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"a": "x"}\n```',
        'Sure!\n{"a": "x",}',
        '<think>{"a": "no"}</think>{"a": "x"}',
        '"x"',
        '{"a": "x"} done',
    ],
)
def test_wrapping_around_an_answer_is_forgiven(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, text: str
) -> None:
    server.answer = lambda *_: answer(text)
    assert ask(ROWS.slice(0, 1)).table().column("a").to_pylist() == ["x"]
    assert len(server.bodies) == 1


@pytest.mark.parametrize("content", [None, 5, [], [{"type": "image", "url": "x"}], {"a": 1}, ""])
def test_a_reply_that_holds_no_text_is_an_error_of_its_row(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, content: object
) -> None:
    server.answer = lambda *_: answer(content)
    run = ask(ROWS.slice(0, 2))
    assert run.errors().num_rows == 2
    assert run.table().column("a").null_count == 2


@pytest.mark.parametrize(
    "raw",
    [b"", b"<html>login</html>", b"[]", b"null", b"{}", b'{"choices": []}', b'{"choices": [{}]}', b"\xff\xfe",
     b'{"choices": [{"message": null}]}', b'{"error": "x"}'],
)  # fmt: skip
def test_an_answer_that_is_no_completion_is_an_error_of_its_row(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, raw: bytes
) -> None:
    server.answer = lambda *_: answer(raw=raw)
    run = ask(ROWS.slice(0, 2))
    assert set(run.errors().column("reason").to_pylist()) == {"server"}


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"error": null}', b'{"error": "flat"}', b'{"message": "other"}', b"\xff"]
)
def test_a_refusal_of_any_shape_is_an_error_of_its_row(
    ask: Callable[..., gdo.Run], server: Any, answer: Any, raw: bytes
) -> None:
    server.answer = lambda *_: answer(status=422, raw=raw)
    run = ask(ROWS.slice(0, 2))
    assert set(run.errors().column("reason").to_pylist()) == {"refused"}
    assert all(detail.startswith("HTTP 422") for detail in run.errors().column("detail").to_pylist())


def test_a_body_of_ten_megabytes_is_refused_and_the_next_row_is_answered(
    ask: Callable[..., gdo.Run], server: Any, answer: Any
) -> None:
    good = server.answer
    server.answer = lambda n, body: (
        answer("x" * 10_000_000) if body["messages"][-1]["content"] == "row 0" else good(n, body)
    )
    run = ask(ROWS.slice(0, 2))
    assert run.table().column("a").to_pylist() == [None, "said row 1"]
    assert run.errors().column("reason").to_pylist() == ["refused"]
    assert "MB" in run.errors().column("detail")[0].as_py()


def test_a_prompt_over_the_context_has_its_own_word(ask: Callable[..., gdo.Run], server: Any, answer: Any) -> None:
    raw = b'{"error": {"message": "This model\'s maximum context length is 4096 tokens."}}'
    server.answer = lambda *_: answer(status=400, raw=raw)
    assert ask(ROWS.slice(0, 1)).errors().column("reason").to_pylist() == ["context"]


@pytest.mark.parametrize("status", [200, 400, 401, 404, 500])
def test_the_key_is_in_no_message_and_no_file_even_when_the_server_says_it(
    ask: Callable[..., gdo.Run],
    server: Any,
    answer: Any,
    status: int,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    said = f"Incorrect API key provided: {KEY}. header Authorization: Bearer {KEY}"
    raw = json.dumps({"error": {"message": said}}).encode()
    good = server.answer
    server.answer = lambda n, body: good(n, body) if status == 200 else answer(status=status, raw=raw)
    text = ""
    try:
        ask(ROWS.slice(0, 2), attempts=1)
    except gdo.GdoError as error:
        text = str(error)
    assert KEY not in text
    assert KEY not in "".join(capfd.readouterr())
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    for path in tmp_path.rglob("errors.parquet"):
        assert KEY not in str(pyarrow.parquet.read_table(path).to_pylist())


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY} ", "schlüssel", "", "a\nb"])
def test_a_key_of_any_shape_ends_in_no_traceback(
    ask: Callable[..., gdo.Run], monkeypatch: pytest.MonkeyPatch, key: str, server: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    try:
        run = ask(ROWS.slice(0, 1))
    except gdo.GdoError as error:
        assert "OPENAI_API_KEY" in str(error)  # noqa: PT017
        return
    assert run.table().num_rows == 1
    if key.strip() == KEY:
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_a_key_comes_from_the_variable_that_the_file_names(
    ask: Callable[..., gdo.Run], server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "other")
    ask(ROWS.slice(0, 1), key_env="OTHER_KEY")
    assert server.headers[0]["Authorization"] == "Bearer other"


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "http://user:pw@x/v1", "http://"])
def test_a_url_that_cannot_be_one_is_a_fault(ask: Callable[..., gdo.Run], url: str) -> None:
    with pytest.raises(gdo.Faults, match=r"pipeline\.yaml:\d+:\d+: .*url") as caught:
        ask(url=url)
    assert "pw" not in str(caught.value).replace("gdo", "")

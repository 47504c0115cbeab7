"""Posts against a server of raw bytes on the loopback address: every shape that an HTTP answer may have."""

import asyncio
import contextlib
import gzip

import pytest

from gdo.wire import LONGEST_REPLY, Answer, Away, Broken, Stale, Wires

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


class Raw:
    """Says the next of some bytes to each request; an empty one ends the connection, and `close` ends it after each."""

    def __init__(self, *said, close=False, slowly=False):
        self.said = list(said)
        self.close = close
        self.slowly = slowly
        self.heard = []
        self.connections = 0
        self.open = set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.wires = Wires("key", 5.0)
        self.wire = self.wires.to(f"{self.url}/v1/chat/completions?x=1")
        return self

    async def __aexit__(self, *_):
        await self.wires.close()
        self.server.close()
        if self.open:
            await asyncio.wait(self.open, timeout=10)

    async def serve(self, reader, writer):
        self.connections += 1
        self.open.add(asyncio.current_task())
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]) if b"ength:" in head else 0
                self.heard.append((head, await reader.readexactly(length)))
                said = self.said.pop(0) if len(self.said) > 1 else self.said[0]
                for piece in [said[i : i + 1] for i in range(len(said))] if self.slowly else [said]:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
                if self.close or not said:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def ask(raw, times=1):
    """The answers, or what was raised in place of one."""

    async def work():
        found = []
        async with raw:
            for _ in range(times):
                try:
                    found.append(await raw.wire.post(b'{"a": 1}'))
                except (Away, Broken, Stale) as error:
                    found.append(error)
        return found

    return asyncio.run(work())


def test_a_request_is_whole_and_the_connection_is_used_again():
    raw = Raw(OK)
    assert ask(raw, 3) == [Answer(200, b"hi")] * 3
    assert raw.connections == 1
    head, body = raw.heard[0]
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/chat/completions?x=1 HTTP/1.1"
    assert f"Host: {raw.url[7:]}" in lines
    assert "Authorization: Bearer key" in lines
    assert "Content-Type: application/json" in lines
    assert "Content-Length: 8" in lines
    assert body == b'{"a": 1}'


@pytest.mark.parametrize(
    ("said", "close"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi", True),
        (b"HTTP/1.0 200 OK\r\n\r\nhi", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", True),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length:2\r\n\r\nhi", False),
        (b"HTTP/1.1 200 \r\nContent-Length: 2\r\nX: " + b"x" * 5000 + b"\r\n\r\nhi", False),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 22\r\n\r\n" + gzip.compress(b"hi", mtime=0), False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("slowly", [False, True])
def test_an_answer_of_any_shape_is_read_whole(said, close, slowly):
    assert ask(Raw(said, close=close, slowly=slowly), 3) == [Answer(200, b"hi")] * 3


@pytest.mark.parametrize("said", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
def test_an_answer_without_a_body_is_one(said):
    assert [answer.raw for answer in ask(Raw(said), 2)] == [b"", b""]


def test_a_refusal_says_when_to_come_again():
    said = b"HTTP/1.1 429 Too Many\r\nretry-after: 7\r\nContent-Length: 4\r\n\r\nbusy"
    assert ask(Raw(said)) == [Answer(429, b"busy", 7.0)]


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhi",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nhi",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200",
        b"",
    ],
)
@pytest.mark.parametrize("slowly", [False, True])
def test_an_answer_that_breaks_off_or_is_no_http_is_told_in_one_line(said, slowly):
    (error,) = ask(Raw(said, close=True, slowly=slowly))
    assert isinstance(error, Broken)
    assert str(error)
    assert "\n" not in str(error)


def test_a_used_connection_that_the_server_let_go_is_no_fault_and_the_next_one_is_new():
    async def work():
        async with Raw(OK, b"", OK) as raw:
            assert await raw.wire.post(b"{}") == Answer(200, b"hi")
            with pytest.raises(Stale):
                await raw.wire.post(b"{}")
            assert await raw.wire.post(b"{}", anew=True) == Answer(200, b"hi")
            assert raw.connections == 2

    asyncio.run(work())


def test_a_connection_that_is_known_to_be_closed_is_not_used():
    async def work():
        async with Raw(OK, close=True) as raw:
            for _ in range(3):
                assert await raw.wire.post(b"{}") == Answer(200, b"hi")
                await asyncio.sleep(0.05)
            assert raw.connections == 3

    asyncio.run(work())


def test_of_an_answer_that_is_too_long_only_the_beginning_is_read():
    size = 10 * LONGEST_REPLY
    answers = ask(Raw(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size, OK), 2)
    assert LONGEST_REPLY < len(answers[0].raw) < 2 * LONGEST_REPLY
    assert answers[1] == Answer(200, b"hi")


def test_a_server_that_sends_its_clients_elsewhere_is_followed():
    async def work():
        async with Raw(OK) as there, Raw(b"HTTP/1.1 307 Moved\r\nLocation: %s/other\r\nContent-Length: 0\r\n\r\n") as here:
            here.said = [here.said[0] % there.url.encode()]
            assert await here.wire.post(b'{"a": 1}') == Answer(200, b"hi")
            assert there.heard[0][0].startswith(b"POST /other ")
            assert there.heard[0][1] == b'{"a": 1}'
            assert b"Bearer key" not in there.heard[0][0], "the key is for the server that was named"

    asyncio.run(work())


def test_where_nobody_listens_that_is_told():
    async def work():
        wires = Wires("", 5.0)
        with pytest.raises(Away, match=r"^cannot connect: "):
            await wires.to("http://127.0.0.1:9/v1").post(b"{}")
        await wires.close()

    asyncio.run(work())


def test_many_at_once_have_a_connection_each_and_no_more():
    async def work():
        async with Raw(OK) as raw:
            for _ in range(3):
                answers = await asyncio.gather(*(raw.wire.post(b"{}") for _ in range(20)))
                assert answers == [Answer(200, b"hi")] * 20
            assert raw.connections <= 20

    asyncio.run(work())

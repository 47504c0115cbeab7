"""A chat server on this machine that answers at once, or as late as it is told: what the benchmarks ask.

    python benchmarks/loopback.py [--latency-ms MS] [--slow-every N --slow-s S]

It prints its URL and serves until its standard input closes. An answer fits the JSON Schema that is asked for, and
depends on the last message alone. `GET /count` tells how many calls it had, `GET /last` the body of the last one.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import zlib
from collections.abc import Iterator

import orjson
import uvloop


def answered(body: dict[str, object]) -> str:
    """What is said to a request: text, or a record of its schema."""
    messages = body["messages"]
    assert isinstance(messages, list)
    number = zlib.crc32(messages[-1]["content"].encode())
    wanted = body.get("response_format")
    if not isinstance(wanted, dict):
        return f"answer {number}"
    fields = wanted["json_schema"]["schema"]["properties"]
    return orjson.dumps({name: _value(part, number) for name, part in fields.items()}).decode()


def _value(part: dict[str, object], number: int) -> object:
    match part.get("type"):
        case "integer":
            return number
        case "number":
            return number / 16
        case "boolean":
            return bool(number % 2)
    labels = part.get("enum")
    return labels[number % len(labels)] if isinstance(labels, list) else f"value {number}"


class Wire(asyncio.Protocol):
    """One connection, kept alive."""

    calls = 0
    last = b""
    latency_s = 0.0
    slow_every = 0
    slow_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            place = head.find(b"content-length:")
            size = int(head[place + 15 :].split(b"\r\n", 1)[0]) if place >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + size], self.buffer[end + 4 + size :]
            self.request(head, body)

    def request(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"get /"):
            self.reply(str(Wire.calls).encode() if b"/count" in head.split(b"\r\n")[0] else Wire.last)
            return
        Wire.calls += 1
        Wire.last = body
        content = answered(orjson.loads(body))
        said = {
            "choices": [{"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": len(body) // 4, "completion_tokens": 8},
        }
        late = Wire.slow_s if Wire.slow_every and Wire.calls % Wire.slow_every == 0 else Wire.latency_s
        if late:
            asyncio.get_running_loop().call_later(late, self.reply, orjson.dumps(said))
        else:
            self.reply(orjson.dumps(said))

    def reply(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)  # type: ignore[attr-defined]


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Wire, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


@contextlib.contextmanager
def running(*options: object) -> Iterator[str]:
    """The URL of a server in its own process."""
    command = [sys.executable, __file__, *map(str, options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        assert process.stdin is not None
        process.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--slow-every", type=int, default=0)
    parser.add_argument("--slow-s", type=float, default=2.0)
    options = parser.parse_args()
    Wire.latency_s, Wire.slow_every, Wire.slow_s = options.latency_ms / 1000, options.slow_every, options.slow_s
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())  # asyncio's own loop is late by half a millisecond


if __name__ == "__main__":
    main()

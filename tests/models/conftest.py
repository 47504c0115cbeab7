"""Small projects for the backends' tests, and a server on the loopback address."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from aiohttp import web

import gdo

Write = Callable[..., Path]
KEY = "sk-verysecret-0123456789"
ROWS = pa.table({"t": [f"row {i}" for i in range(20)]})
STEP = {"op": "map", "prompt": "{{ t }}", "output": {"a": "string"}, "model": "m"}


@dataclass
class Answer:
    """What the server sends back: a completion of `text`, or `raw` with a status."""

    text: object = ""
    status: int = 200
    raw: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


def echo(number: int, body: dict[str, Any]) -> Answer:
    """Says what it was asked, as the record of one field `a`."""
    asked = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return Answer(json.dumps({"a": f"said {asked}"}))


def later(seconds: float, work: Callable[[], None]) -> None:
    """Do it after a while, on a thread that holds up no end."""
    timer = threading.Timer(seconds, work)
    timer.daemon = True
    timer.start()


class Server:
    """An OpenAI-compatible server whose answers a test decides; it keeps what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.answer: Callable[[int, dict[str, Any]], Answer] = echo
        self.times: list[float] = []
        self.delay_s = 0.0
        self.open = 0
        self.hang = ""
        self.late: dict[str, float] = {}
        self.held: dict[str, int] = {}
        """What is not answered before so many requests have come; a minute at most."""
        self.left = False
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        assert self._ready.wait(30)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._open())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        left = asyncio.all_tasks(self._loop)  # answers that nobody waits for any more
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _open(self) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        await self._listen()

    async def _listen(self) -> None:
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    def leave(self, back_after_s: float | None) -> None:
        """Refuse connections and cut those that are open, for some seconds or for good."""
        asyncio.run_coroutine_threadsafe(self._leave(), self._loop).result()
        if back_after_s is not None:
            later(back_after_s, self.come_back)

    async def _leave(self) -> None:
        self.left = True
        await self._site.stop()
        for connection in list(self._runner.server.connections if self._runner.server else ()):
            if connection.transport is not None:
                connection.transport.abort()

    def come_back(self) -> None:
        """Listen again, at the same port."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = len(self.bodies)
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self.paths.append(request.path)
        self.times.append(time.monotonic())
        self.open += 1
        try:
            if self.hang and self.hang in json.dumps(body):
                await asyncio.sleep(3600)
            answer = self.answer(number, body)
            asked = body["messages"][-1]["content"] if "messages" in body else ""
            for _ in range(6000):
                if len(self.bodies) >= self.held.get(asked, 0):
                    break
                await asyncio.sleep(0.01)
            if self.delay_s or asked in self.late:
                await asyncio.sleep(self.late.get(asked, self.delay_s))
        finally:
            self.open -= 1
        if answer.cut:
            response = web.StreamResponse(headers={"Content-Length": "1000"})
            await response.prepare(request)
            await response.write(b'{"choices": [')
            assert request.transport is not None
            request.transport.abort()
            return response
        if answer.raw is not None or answer.status != 200:
            raw = answer.raw if answer.raw is not None else b'{"error": {"message": "as told"}}'
            return web.Response(status=answer.status, body=raw, headers=answer.headers)
        plain = request.path.endswith("/completions") and "chat" not in request.path
        choice = {"text": answer.text} if plain else {"message": {"role": "assistant", "content": answer.text}}
        usage = {"prompt_tokens": 11, "completion_tokens": 3}
        return web.json_response({"choices": [choice], "usage": usage}, headers=answer.headers)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


@pytest.fixture
def other() -> Iterator[Server]:
    """A second server of the same model."""
    found = Server()
    yield found
    found.close()


@pytest.fixture
def ask(write: Write, server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., gdo.Run]:
    """Run one step over rows against the server; keys of the model and of the step as they come."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def run(rows: pa.Table = ROWS, step: dict[str, Any] | None = None, **model: Any) -> gdo.Run:
        run = {key: model.pop(key) for key in ("max_calls", "max_tokens") if key in model}
        options = {"backend": "endpoint", "url": server.url, "model": "tiny", "attempts": 3, "patience_s": 5, **model}
        return gdo.run(write([step or STEP], models={"m": options}), source=rows, **run)

    return run


@pytest.fixture
def answer() -> type[Answer]:
    return Answer


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a pipeline file of some steps; other outer keys as they come."""

    def written(steps: list[dict[str, Any]], **outer: Any) -> Path:
        path = tmp_path / "pipeline.yaml"
        spec = {"models": {"m": {"backend": "fake"}}, **outer, "steps": steps}
        path.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    return written

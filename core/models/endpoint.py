"""`backend: endpoint`: any OpenAI-compatible server by URL (vLLM, llama.cpp, Ollama, a hosted one), over aiohttp."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson
from pydantic import Field, field_validator

from gdo.backend import Backend
from gdo.errors import ModelUnready
from gdo.model import Capabilities, ErrorKind, Reply, ReplyError, Request, Style, Usage, told_schema
from gdo.window import Window

_Json = dict[str, Any]
_LONGEST_REPLY = 4 << 20
_BUSY = {408, 409, 425, 429, 500, 502, 503, 504, 529}


class Endpoint(Backend, kind="endpoint"):
    """A server that speaks the OpenAI protocol. The key comes from the environment, never from the file."""

    url: str = Field(description="Up to and with /v1, for example http://localhost:8000/v1")
    model: str = Field(default="", description="The model's name at the server")
    key_env: str = Field(default="OPENAI_API_KEY", description="The environment variable that holds the key")
    concurrency: int = Field(default=64, ge=1, le=4096, description="Requests at once")
    style: Literal["chat", "plain"] = Field(
        default="chat", description="chat completions, or plain ones for a base model"
    )
    structured: bool = Field(default=True, description="Ask the server to hold replies to the JSON Schema")
    connect_timeout_s: float = Field(default=10.0, gt=0, description="Seconds to connect")
    timeout_s: float = Field(default=300.0, gt=0, description="Seconds for a whole call")
    attempts: int = Field(default=6, ge=1, le=50, description="Tries of a call while the server is busy or away")

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).netloc:
            raise ValueError("not a URL | it begins with http:// or https:// and ends with /v1")
        if urlsplit(value).password or urlsplit(value).username:
            raise ValueError("a URL must not hold a password | put the key into the environment and name it in key_env")
        return value.rstrip("/")

    def build(self, folder: Path) -> "EndpointModel":
        """The model; nothing is sent before the first request."""
        key = os.environ.get(self.key_env, "").strip()
        if not key.isprintable() or not key.isascii():
            raise ModelUnready(
                f"endpoint: the key in {self.key_env} holds characters that no header may (set it again)"
            )
        return EndpointModel(self, key)


class EndpointModel:
    """A client of one server."""

    def __init__(self, options: Endpoint, key: str) -> None:
        self._options = options
        self._key = key
        self._window = Window(options.concurrency)
        self._session: Any = None  # aiohttp.ClientSession; the library is imported when a model starts
        self._structured = options.structured
        self._reached = False

    @property
    def identity(self) -> str:
        """The model's name: the same model at another address gives the same answers. Without a name, the address."""
        return f"endpoint/{self._options.model or self._options.url}/{self._options.style}"

    @property
    def style(self) -> Style:
        """As the options say."""
        return self._options.style

    @property
    def capabilities(self) -> Capabilities:
        """Schemas, until the server refuses one."""
        return Capabilities(schema=self._structured and self.style == "chat", seeds=True)

    @property
    def concurrency(self) -> int:
        """Requests at once."""
        return self._options.concurrency

    async def start(self, tell: Callable[[str], None]) -> None:
        """Open the pool of connections."""
        import aiohttp

        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        timeout = aiohttp.ClientTimeout(total=self._options.timeout_s, sock_connect=self._options.connect_timeout_s)
        connector = aiohttp.TCPConnector(limit=self._options.concurrency, ttl_dns_cache=300)
        self._session = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)

    def generate(self, requests: Iterable[Request]) -> AsyncIterator[tuple[int, Reply]]:
        """Replies in the order of completion."""
        return self._window.replies(requests, self._call)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _call(self, request: Request) -> Reply:
        started = time.perf_counter()
        reply = Reply(error=ReplyError("connection", "not tried"))
        for attempt in range(self._options.attempts):
            reply, wait_s = await self._try(request)
            if wait_s is None:
                break
            if attempt + 1 < self._options.attempts:
                await asyncio.sleep(wait_s or min(30.0, 0.5 * 2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311
        error = reply.error
        if error is not None and error.kind == "connection" and not self._reached:
            error = ReplyError("connection", f"{error.message} (is the server up, and the URL right?)", fatal=True)
        return Reply(reply.text, reply.scores, reply.usage, time.perf_counter() - started, error)

    async def _try(self, request: Request) -> tuple[Reply, float | None]:
        """One try, and the seconds to wait before another one: None when it is settled, 0 when the server did not say."""
        import aiohttp

        path = "completions" if request.plain else "chat/completions"
        sent = self._body(request)
        try:
            async with self._session.post(f"{self._options.url}/{path}", data=sent) as answer:
                raw = await answer.content.read(_LONGEST_REPLY + 1)
                while len(raw) <= _LONGEST_REPLY and (more := await answer.content.read(_LONGEST_REPLY)):
                    raw += more
                self._reached = True
                if answer.status == 200:  # noqa: PLR2004 (HTTP's word for done)
                    return self._parsed(raw, plain=request.plain), None
                return self._refused(sent, answer.status, raw, answer.headers.get("Retry-After", ""))
        except TimeoutError:
            what = f"no answer within {self._options.timeout_s:g} s"
            return Reply(error=ReplyError("timeout", what)), 0.0
        except (aiohttp.ClientError, OSError) as error:
            what = f"{self._place}: {error or type(error).__name__}"
            return Reply(error=ReplyError("connection", what)), 0.0

    @property
    def _place(self) -> str:
        """The server in a message: no query of its URL, which may hold a key."""
        parts = urlsplit(self._options.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"

    def _body(self, request: Request) -> bytes:
        sampling = request.sampling
        body: _Json = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
        if self._options.model:
            body["model"] = self._options.model
        if sampling.temperature:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if request.plain:
            body["prompt"] = request.text()
            return orjson.dumps(body)
        body["messages"] = [{"role": turn.role, "content": turn.content} for turn in request.messages()]
        if request.constrained and request.head.answer and not self._structured:
            body["messages"].insert(0, {"role": "system", "content": told_schema(request.head.answer)})
        elif request.constrained and request.head.answer:
            schema = {"name": "answer", "strict": True, "schema": request.head.answer.json_schema()}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return orjson.dumps(body)

    def _refused(self, sent: bytes, status: int, raw: bytes, retry_after: str) -> tuple[Reply, float | None]:
        said = self._safe(_message(raw))[:500]
        if status in {401, 403}:
            hint = f"set {self._options.key_env}" if not self._key else f"check the key in {self._options.key_env}"
            what = f"{self._place} refuses the key: {said} ({hint})"
            return Reply(error=ReplyError("refused", what, fatal=True)), None
        if status == 404:  # noqa: PLR2004
            what = f"{self._place} does not know the model '{self._options.model}', or the path: {said}"
            return Reply(error=ReplyError("refused", what, fatal=True)), None
        if status in _BUSY:
            kind: ErrorKind = "rate_limit" if status == 429 else "server"  # noqa: PLR2004
            wait_s = min(float(retry_after), 120.0) if retry_after.replace(".", "", 1).isdigit() else 0.0
            return Reply(error=ReplyError(kind, f"HTTP {status}: {said}")), wait_s
        if b'"response_format"' in sent and any(word in said for word in ("response_format", "json_schema")):
            self._structured = False  # from now on the schema stands in the prompt
            return Reply(error=ReplyError("refused", said)), 0.001
        kind = "context" if "context" in said and ("length" in said or "exceed" in said) else "refused"
        return Reply(error=ReplyError(kind, f"HTTP {status}: {said}")), None

    def _parsed(self, raw: bytes, *, plain: bool) -> Reply:
        if len(raw) > _LONGEST_REPLY:
            return Reply(error=ReplyError("refused", f"the reply is longer than {_LONGEST_REPLY >> 20} MB"))
        try:
            answer = orjson.loads(raw)
            choice = answer["choices"][0]
            text = choice["text"] if plain else choice["message"]["content"]
            text = "" if text is None else text.strip("\0")  # anything but text fails here
            usage = answer.get("usage") or {}
            spent = Usage(int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0))
        except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError):
            return Reply(
                error=ReplyError("server", self._safe(f"the server's answer is no completion: {raw[:2000]!r}")[:300])
            )
        return Reply(text=text, usage=spent)

    def _safe(self, text: str) -> str:
        """A text without the key: some servers repeat it."""
        return text.replace(self._key, "***") if self._key else text


def _message(raw: bytes) -> str:
    try:
        error = orjson.loads(raw)["error"]
        said = error.get("message") if isinstance(error, dict) else error
    except (orjson.JSONDecodeError, LookupError, TypeError):
        said = raw[:300].decode(errors="replace")
    return str(said).strip()

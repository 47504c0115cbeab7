"""`backend: endpoint`: any OpenAI-compatible server by URL (vLLM, llama.cpp, Ollama, a hosted one), over aiohttp."""

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from gdo.backend import Backend
from gdo.errors import ModelUnready
from gdo.model import Capabilities, Done, ErrorKind, Reply, ReplyError, Request, Style, Usage
from gdo.patience import DENIALS, Next, Patience
from gdo.protocol import Bodies, completion, knows_not, refusal
from gdo.servers import Pace, Server, Servers, Throttle, Watch, checked_urls
from gdo.window import Window
from gdo.wire import LONGEST_REPLY, Answer, Away, Broken, Stale, Wires

_BUSY = {429, 503, 529}
_AGAIN = {408, 409, 425, 500, 502, 504}
_LONGEST_REST_S = 120.0
_LONG_S = 10.0
_NO_KEY, _BROKEN = 401, 500
_FOR_ALL = {301, 302, 303, _NO_KEY, 402, 403, 405, 410}
"""Refusals that are hardly ever about one request."""


class Endpoint(Backend, kind="endpoint"):
    """A server that speaks the OpenAI protocol. The key comes from the environment, never from the file."""

    url: str | list[str] = Field(description="Up to and with /v1, for example http://localhost:8000/v1; or several")
    model: str = Field(default="", description="The model's name at the server")
    key_env: str = Field(default="OPENAI_API_KEY", description="The environment variable that holds the key")
    concurrency: int = Field(default=64, ge=1, le=4096, description="Requests at once, over all URLs")
    requests_per_minute: int = Field(default=0, ge=0, description="At most so many calls a minute; 0 for no limit")
    tokens_per_minute: int = Field(default=0, ge=0, description="At most so many tokens a minute; 0 for no limit")
    style: Literal["chat", "plain"] = Field(
        default="chat", description="chat completions, or plain ones for a base model"
    )
    structured: bool = Field(default=True, description="Ask the server to hold replies to the JSON Schema")
    connect_timeout_s: float = Field(default=10.0, gt=0, description="Seconds to connect")
    timeout_s: float = Field(default=300.0, gt=0, description="Seconds for a whole call")
    attempts: int = Field(default=4, ge=1, le=50, description="Tries of a call that fails or is cut off")
    patience_s: float = Field(default=300.0, ge=0, description="Seconds to wait for a server that is busy or away")

    @field_validator("url")
    @classmethod
    def _is_url(cls, value: str | list[str]) -> str | list[str]:
        checked = checked_urls([value] if isinstance(value, str) else value)
        return checked[0] if isinstance(value, str) else checked

    @property
    def urls(self) -> tuple[str, ...]:
        """All of them."""
        return (self.url,) if isinstance(self.url, str) else tuple(self.url)

    def build(self, folder: Path) -> "EndpointModel":
        """The model; nothing is sent before the first request."""
        key = os.environ.get(self.key_env, "").strip()
        if not key.isprintable() or not key.isascii():
            raise ModelUnready(
                f"endpoint: the key in {self.key_env} holds characters that no header may (set it again)"
            )
        return EndpointModel(self, key)


class EndpointModel:
    """A client of one model, at one address or several."""

    def __init__(self, options: Endpoint, key: str) -> None:
        self._options = options
        self._key = key
        self._window = Window(options.concurrency)
        self._throttle = Throttle(options.concurrency)
        self._servers = Servers(options.urls)
        self._requests = Pace(options.requests_per_minute)
        self._tokens = Pace(options.tokens_per_minute)
        self._patience = Patience(self._servers, options.patience_s)
        self._watch = Watch(options.timeout_s)
        self._wires: Wires | None = None
        self._said = 64.0
        """Tokens of a reply, as they were lately: what a request is taken to use before it is answered."""
        self._bodies = Bodies(options.model, structured=options.structured)

    @property
    def identity(self) -> str:
        """The model's name: the same model at another address gives the same answers. Without a name, the address."""
        return f"endpoint/{self._options.model or self._options.urls[0]}/{self._options.style}"

    @property
    def style(self) -> Style:
        """As the options say."""
        return self._options.style

    @property
    def capabilities(self) -> Capabilities:
        """Schemas: where the server refuses one, it is told in words, under the same cache key."""
        return Capabilities(schema=self._options.structured and self.style == "chat", seeds=True)

    @property
    def concurrency(self) -> int:
        """Requests at once."""
        return self._options.concurrency

    async def start(self, tell: Callable[[str], None]) -> None:
        """Open the pool of connections."""
        self._patience.tell = tell
        self._wires = Wires(self._key, self._options.connect_timeout_s)
        for server in self._servers.all:
            server.chat = self._wires.to(f"{server.url}/chat/completions")
            server.plain = self._wires.to(f"{server.url}/completions")

    async def generate(self, requests: Iterable[Request], done: Done, order: int = 0) -> None:
        """Answer requests, a window of them at a time."""
        await self._window.run(requests, self._call, done, order)

    def stop(self) -> None:
        """Wait for no busy server, and try nothing again."""
        self._patience.stopping = True

    async def close(self) -> None:
        """Close the connections."""
        self._watch.close()
        if self._wires is not None:
            await self._wires.close()

    async def _call(self, request: Request) -> Reply:
        """One request, until it is answered or there is no more hope."""
        started = time.perf_counter()
        patience = self._patience
        since = 0.0
        sent = tries = waits = 0
        server: Server | None = None
        ways: set[Next] = set()
        reply = Reply()
        then: Next = "at once"
        while True:
            before = reply
            reply, then, server = await self._turn(request, server, then)
            sent += reply.tries if then != "away" else 0  # that one reached nobody
            if not reply.tries and before.error is not None:
                reply = before  # the run ended before another try; what the last one said is still why
            if then == "settled" or then in ways or patience.stopping:
                break  # what was being tried when the run began to end is not tried again
            if then in {"at once", "anew", "bare", "elsewhere"}:
                ways |= {then} & {"bare", "elsewhere"}
                continue
            since = since or patience.fails()
            tries += then == "again"
            if then == "again" and tries < self._options.attempts:
                await patience.again(reply, since, tries)
                continue
            if then == "again" and not patience.is_outage(reply, since):
                reply = patience.lost(reply, since)
                break
            waits += 1
            given_up = await patience.waited(reply, then, since, waits)
            if given_up is not None:
                reply = given_up
                break
        patience.failing -= since > 0
        return reply._replace(latency_s=time.perf_counter() - started, tries=max(sent, min(reply.tries, 1)))

    async def _turn(self, request: Request, failed: Server | None, how: Next) -> tuple[Reply, Next, Server | None]:
        """One try, in its turn, what is to become of the request, and the server if it failed."""
        sent = self._bodies.of(request, bare=how == "bare")
        await self._requests.take()
        await self._tokens.take(expected := len(sent) / 4 + self._said)
        server = await self._chosen(failed)
        if self._patience.stopping:
            self._throttle.leave()
            return Reply(error=ReplyError("connection", "not asked: the run was ending"), tries=0), "settled", None
        server.sending += 1
        sent_at = time.monotonic()
        call = self._watch.begin()
        try:
            reply, then = await self._try(server, sent, sent_at, request.plain, how)
        except asyncio.CancelledError:
            if not self._watch.end(call):
                raise
            call.uncancel()
            reply, then = Reply(error=ReplyError("timeout", f"no answer within {self._options.timeout_s:g} s")), "again"
        finally:
            self._watch.end(call)
            server.sending -= 1
            self._throttle.leave()
        self._learn(server, reply, then, sent_at, expected)
        if then == "settled" and reply.error is None:
            self._bodies.answered(sent, bare=how == "bare")
            if how == "elsewhere" and failed is not None and failed is not server:
                self._servers.failed(failed, sent_at)  # it refused what another one takes
        return reply, then, server if then in {"elsewhere", "busy", "away", "again"} else None

    async def _chosen(self, failed: Server | None) -> Server:
        """The server to ask, and room among the requests that are sent at once."""
        while True:
            server = await self._servers.choose(lambda: self._patience.stopping, failed)
            await self._throttle.enter()
            if server.awake or len(self._servers.all) == 1 or self._patience.stopping:
                return server
            self._throttle.leave()  # it came to rest in the meantime, and another one may be awake

    def _learn(self, server: Server, reply: Reply, then: Next, sent_at: float, expected: float) -> None:
        """What a try tells of the server, of how much it can take, and of how long replies are."""
        if then == "settled" and reply.error is None:
            self._throttle.answered()
            self._patience.answered(sent_at)
            server.answered(sent_at)
            self._said += (reply.usage.completion_tokens - self._said) / 32
            used = reply.usage.prompt_tokens + reply.usage.completion_tokens
            self._tokens.correct(used - expected if used else 0.0)
            return
        several = len(self._servers.all) > 1
        if then == "busy" and (not several or server.answered_at >= sent_at):
            self._throttle.refused(sent_at)
        elif then == "away":
            self._patience.away_since = self._patience.away_since or sent_at
        if several and then in {"busy", "away", "again"}:  # the others are asked in the meantime
            self._servers.failed(server, sent_at)

    async def _try(self, server: Server, sent: bytes, sent_at: float, plain: bool, how: Next) -> tuple[Reply, Next]:
        try:
            answer = await (server.plain if plain else server.chat).post(sent, anew=how in {"anew", "again"})
        except Away as error:
            return Reply(error=ReplyError("connection", f"{server.url}: {error}")), "away"
        except (Broken, Stale) as error:
            reply = Reply(error=ReplyError("connection", f"{server.url}: {error}"))
            return reply, "anew" if isinstance(error, Stale) else "again"
        server.reached = True
        if answer.status == 200:  # noqa: PLR2004 (HTTP's word for done)
            return self._parsed(answer.raw, len(sent), plain=plain)
        if answer.status in _BUSY | _AGAIN:
            return self._put_off(server, sent, sent_at, answer)
        return self._refused(server, sent, answer, how)

    def _put_off(self, server: Server, sent: bytes, sent_at: float, answer: Answer) -> tuple[Reply, Next]:
        """A refusal that may pass. Where others were answered in the meantime, only this request waits."""
        said = self._safe(refusal(answer.raw))[:500]
        if answer.status == _BROKEN and self._bodies.may_be_schema(sent, said, certain=True):
            return Reply(error=ReplyError("refused", said)), "bare"
        wait_s = min(answer.wait_s, _LONGEST_REST_S, self._options.patience_s)
        if server.answered_at < sent_at:
            server.rest(wait_s, sent_at)
        kind: ErrorKind = "rate_limit" if answer.status == 429 else "server"  # noqa: PLR2004
        asked = f", and asks for {answer.wait_s:,.0f} s of rest" if answer.wait_s > wait_s + _LONG_S else ""
        error = ReplyError(kind, f"HTTP {answer.status}: {said}{asked}", after_s=wait_s)
        return Reply(error=error), "busy" if answer.status in _BUSY else "again"

    def _refused(self, server: Server, sent: bytes, answer: Answer, how: Next) -> tuple[Reply, Next]:
        status, said = answer.status, self._safe(refusal(answer.raw))[:500]
        if self._bodies.yields(sent, said):
            return Reply(error=ReplyError("refused", said)), "at once"
        what = self._refuses_all(server, status, said)
        if what and self._servers.bar(server, lambda: self._patience.tell(f"{server.url} is asked no more: it {what}")):
            return Reply(error=ReplyError("refused", what)), "at once"
        if what:
            known = server.denied <= DENIALS and status != _NO_KEY
            return Reply(error=ReplyError("refused", f"{server.url} {what}", fatal=True, unless_known=known)), "settled"
        kind: ErrorKind = "context" if "context" in said and ("length" in said or "exceed" in said) else "refused"
        # Another server may take what one refuses; where it does, the first one is not well.
        then: Next = "settled" if len(self._servers.asked) == 1 else "elsewhere"
        if status not in _FOR_ALL and how != "elsewhere" and self._bodies.may_be_schema(sent, said):
            then = "bare"
        return Reply(error=ReplyError(kind, f"HTTP {status}: {said}")), then

    def _refuses_all(self, server: Server, status: int, said: str) -> str:
        """Why a server will answer no request at all; nothing where it may be about this one."""
        unknown = status == 404 or knows_not(said, self._options.model)  # noqa: PLR2004
        if status not in _FOR_ALL and not unknown:
            return ""
        server.denied += 1
        # One row may be forbidden on its own, where others are answered or may yet be; not so many on end.
        most = DENIALS if server.answered_at else min(DENIALS, server.sending - 1)
        if status != _NO_KEY and server.denied <= most:
            return ""
        if unknown:
            return f"does not know the model '{self._options.model}', or the path: {said}"
        if status not in {_NO_KEY, 403}:
            return f"refuses what is asked: HTTP {status}: {said}"
        hint = f"set {self._options.key_env}" if not self._key else f"check the key in {self._options.key_env}"
        return f"refuses the key: {said} ({hint})"

    def _parsed(self, raw: bytes, size: int, *, plain: bool) -> tuple[Reply, Next]:
        if len(raw) > LONGEST_REPLY:
            return Reply(error=ReplyError("refused", f"the reply is longer than {LONGEST_REPLY >> 20} MB")), "settled"
        try:
            reply = completion(raw, plain=plain)
        except ValueError:  # a body cut short by something between, or a gateway's page
            what = self._safe(f"the server's answer is no completion: {raw[:2000]!r}")[:300]
            return Reply(error=ReplyError("server", what)), "again"
        asked, answered = reply.usage  # of a server that does not count: a token has about four letters
        return reply._replace(usage=Usage(asked or size // 4, answered or len(reply.text) // 4)), "settled"

    def _safe(self, text: str) -> str:
        """A text without the key: some servers repeat it."""
        return text.replace(self._key, "***") if self._key else text

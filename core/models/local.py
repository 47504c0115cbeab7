"""`backend: local`: a GGUF model inside this process, by llama.cpp (package xllamacpp). The default.

A small model is asked in the plain style: few-shot completion, closed labels by log-probability, typed answers by a
compact grammar. An instruction-tuned file of one's own that brings a chat template is spoken to by it.
"""

import asyncio
import itertools
import json
import math
import os
import secrets
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from gdo import weights
from gdo.backend import Backend
from gdo.errors import ModelUnready
from gdo.grammar import grammar
from gdo.model import Capabilities, Done, ErrorKind, Reply, ReplyError, Request, Style, Usage
from gdo.window import Window

_BIAS = 100.0
_LIFT = 30.0
_Json = dict[str, Any]


class Local(Backend, kind="local"):
    """A bundled model by name, or any GGUF file by path."""

    model: str = Field(default="smollm2-135m", description="A bundled model's name, or a path to a .gguf file")
    style: Literal["auto", "plain", "chat"] = Field(
        default="auto", description="plain for bundled and base models, chat where the file brings a template"
    )
    slots: int = Field(default=8, ge=1, le=256, description="Requests at once")
    context: int = Field(default=2048, ge=64, description="Tokens of a prompt and its reply together")
    threads: int = Field(default=0, ge=0, description="Threads; 0 takes every core this process may use")
    gpu_layers: int = Field(default=0, ge=-1, description="Layers to put on a GPU; -1 takes all")

    def build(self, folder: Path) -> "LocalModel":
        """The model; its file is looked at when it starts."""
        return LocalModel(self, folder)

    def fault(self, folder: Path) -> str:
        """Whether the file is there and is a GGUF file."""
        try:
            if self.model not in weights.BUNDLED:
                weights.check_gguf(folder / Path(self.model).expanduser())
        except ModelUnready as error:
            return str(error)
        return ""

    @classmethod
    def ready(cls) -> str:
        """Why it cannot be used here."""
        try:
            import xllamacpp  # noqa: F401
        except ImportError as error:
            return f"the engine xllamacpp cannot be imported: {error}"
        return (
            ""
            if weights.find("smollm2-135m")
            else "ready after its first use fetches 93 MB (or now: gdo pull smollm2-135m)"
        )


class LocalModel:
    """The engine, its slots, and the file that it runs."""

    def __init__(self, options: Local, folder: Path) -> None:
        self._options = options
        self._bundled = options.model in weights.BUNDLED
        self._path = None if self._bundled else folder / Path(options.model).expanduser()
        self._window = Window(options.slots)
        # One token a request: a few slots suffice, and each must first read the prompt's shared head.
        self._scoring = Window(min(max(1, _cores() // 2), options.slots))
        self._threads: ThreadPoolExecutor | None = None
        self._server: Any = None  # the engine has no type stubs
        self._key = secrets.token_hex(16)
        self._tokenized: dict[str, list[int]] = {}
        self._identity: str | None = None

    @property
    def identity(self) -> str:
        """The digest of the weights, and what else decides an answer."""
        if self._identity is None:
            self._identity = f"local/{self._digest()}/{self.style}/{self._options.context}"
        return self._identity

    def _digest(self) -> str:
        if self._path is None:
            return weights.BUNDLED[self._options.model].sha256[:16]
        weights.check_gguf(self._path)
        return weights.sha256(self._path)[:16]

    @property
    def style(self) -> Style:
        """As the options say; else plain for bundled models and files without a chat template."""
        if self._options.style != "auto":
            return self._options.style
        return "plain" if self._path is None or not weights.has_chat_template(self._path) else "chat"

    @property
    def capabilities(self) -> Capabilities:
        """Grammars and log-probabilities."""
        return Capabilities(schema=True, logprobs=True, seeds=True)

    @property
    def concurrency(self) -> int:
        """Its slots."""
        return self._options.slots

    async def start(self, tell: Callable[[str], None]) -> None:
        """Fetch the weights if need be, and load them.

        Raises:
            ModelUnready: no weights, no engine, or a file that is no GGUF.
        """
        loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(self._options.slots, thread_name_prefix="gdo-local")
        self._server = await loop.run_in_executor(self._threads, self._load, tell)

    def _load(self, tell: Callable[[str], None]) -> object:
        path = self._path or weights.pull(self._options.model, tell)
        weights.check_gguf(path)
        try:
            import xllamacpp
        except ImportError as error:
            raise ModelUnready(
                f"local: the engine xllamacpp cannot be imported: {error} (pip install xllamacpp)"
            ) from None
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel = self._options.slots
        params.n_ctx = self._options.slots * self._options.context
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self._options.threads or _cores()
        params.n_gpu_layers = self._options.gpu_layers
        params.cpuparams.poll = params.cpuparams_batch.poll = 0  # no busy waiting: it stalls where cores are shared
        params.verbosity = -1
        params.cache_ram_mib = 0  # prefixes stay in the slots; copies of them beside cost more than they save
        params.api_keys = [self._key]  # the engine listens on the loopback address; nobody else may use it
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise ModelUnready(f"local: {path} cannot be loaded: {error} (is it a whole GGUF file?)") from None

    async def generate(self, requests: Iterable[Request], done: Done, order: int = 0) -> None:
        """Answer requests; all of one stream are scored, or all are written."""
        stream = iter(requests)
        first = next(stream, None)
        if first is not None:
            window = self._scoring if first.candidates else self._window
            await window.run(itertools.chain([first], stream), self._call, done, order)

    def stop(self) -> None:
        """Nothing is tried again here."""

    async def close(self) -> None:
        """Unload."""
        self._server = None
        if self._threads is not None:
            self._threads.shutdown()

    async def _call(self, request: Request) -> Reply:
        job = self._score if request.candidates else self._complete if request.plain else self._chat
        return await asyncio.get_running_loop().run_in_executor(self._threads, _timed, job, request)

    # The engine's calls block; each runs in a thread and releases the interpreter.

    def _complete(self, request: Request) -> Reply:
        job = {**_sampling(request), "prompt": request.text(), "stop": list(request.sampling.stop)}
        if request.constrained and request.head.answer:
            job["grammar"] = grammar(request.head.answer, plain=True)
            job["stop"] = ["\n"]  # a value ends where its line does
        return _reply(self._server.handle_completions(job), lambda choice: choice["text"])

    def _chat(self, request: Request) -> Reply:
        messages = [{"role": turn.role, "content": turn.content} for turn in request.messages()]
        job: _Json = {**_sampling(request), "messages": messages}
        if request.constrained and request.head.answer:
            job["grammar"] = grammar(request.head.answer)
        return _reply(self._server.handle_chat_completions(job), lambda choice: choice["message"]["content"] or "")

    def _score(self, request: Request) -> Reply:
        """The log-probability of each candidate among the candidates, down to the token that tells it apart."""
        tokens = self._tokens(request.candidates)
        scores = [0.0] * len(tokens)
        usage = Usage()
        open_nodes: list[tuple[int, list[int]]] = [(0, list(range(len(tokens))))]
        while open_nodes:
            depth, members = open_nodes.pop()
            branches: dict[int, list[int]] = {}
            for member in members:
                branches.setdefault(tokens[member][depth], []).append(member)
            if len(branches) > 1:
                found = self._branch(request, tokens[members[0]][:depth], list(branches))
                if isinstance(found, Reply):
                    return found
                logprobs, spent = found
                usage = Usage(usage.prompt_tokens + spent.prompt_tokens, usage.completion_tokens + 1)
                for token, under in branches.items():
                    for member in under:
                        scores[member] += logprobs[token]
            open_nodes += [(depth + 1, under) for under in branches.values() if len(under) > 1]
        return Reply(scores=tuple(scores), usage=usage)

    def _branch(
        self, request: Request, path: Sequence[int], options: Sequence[int]
    ) -> tuple[Mapping[int, float], Usage] | Reply:
        # The bias lifts the options over all other tokens, so that only they need to be told. The anchor is lifted
        # most: the engine tells nothing when it draws a token that is half a character, as options may be.
        biases = [*([token, _BIAS] for token in options), [self._anchor(options), _BIAS + _LIFT]]
        job = {
            "prompt": [request.text(), *path], "max_tokens": 1, "temperature": 1.0, "samplers": ["temperature"],
            "logprobs": len(biases), "post_sampling_probs": True, "cache_prompt": True, "logit_bias": biases,
        }  # fmt: skip
        answer = self._server.handle_completions(job)
        if "error" in answer:
            return _refused(answer)
        told = answer["choices"][0].get("logprobs") or {"content": []}
        if not told["content"]:
            return Reply(error=ReplyError("server", "the engine told no probabilities for this prompt"))
        found = {int(top["id"]): float(top["prob"]) for top in told["content"][0]["top_probs"]}
        total = sum(found.get(token, 0.0) for token in options) or 1.0
        logprobs = {token: math.log(max(found.get(token, 0.0) / total, 1e-30)) for token in options}
        return logprobs, _usage(answer)

    def _anchor(self, options: Sequence[int]) -> int:
        """A token that is a whole character and none of the options."""
        return next(token for letter in "xyzqjk" for token in self._tokenize(letter) if token not in options)

    def _tokens(self, candidates: tuple[str, ...]) -> list[list[int]]:
        # The line break tells a candidate from one that goes on after it ("dark" from "dark blue").
        return [self._tokenize(f"{text}\n") for text in candidates]

    def _tokenize(self, text: str) -> list[int]:
        if text in self._tokenized:
            return self._tokenized[text]
        data = json.dumps({"content": text, "add_special": False}).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._key}"}
        ask = urllib.request.Request(f"{self._server.listening_address}/tokenize", data, headers)  # noqa: S310 (loopback)
        with urllib.request.urlopen(ask, timeout=60) as answer:  # noqa: S310
            tokens: list[int] = json.load(answer)["tokens"]
        self._tokenized[text] = tokens
        return tokens


def _sampling(request: Request) -> _Json:
    sampling = request.sampling
    return {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature, "seed": sampling.seed,
            "cache_prompt": True}  # fmt: skip


def _timed(job: Callable[[Request], Reply], request: Request) -> Reply:
    started = time.perf_counter()
    reply = job(request)
    return Reply(reply.text, reply.scores, reply.usage, time.perf_counter() - started, reply.error)


def _reply(answer: _Json, text: Callable[[_Json], str]) -> Reply:
    if "error" in answer:
        return _refused(answer)
    return Reply(text=text(answer["choices"][0]), usage=_usage(answer))


def _usage(answer: _Json) -> Usage:
    usage = answer.get("usage") or {}
    return Usage(int(usage.get("prompt_tokens", 0)), int(usage.get("completion_tokens", 0)))


def _refused(answer: _Json) -> Reply:
    error = answer["error"]
    long = error.get("type") == "exceed_context_size_error"
    kind: ErrorKind = "context" if long else "refused"
    message = str(error.get("message", error))
    if long:
        message = (
            f"the prompt has {error.get('n_prompt_tokens', '?')} tokens, the context {error.get('n_ctx', '?')} "
            f"(shorten it, or give the model a larger `context:`)"
        )
    return Reply(error=ReplyError(kind, message))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

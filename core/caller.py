"""Requests to one model: looked up on disk, sent at most once, stored before they are used."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from gdo.cache import Cache
from gdo.errors import BudgetSpent, GdoError, ModelUnready, RunFailed, Stopped
from gdo.ledger import Call, Ledger
from gdo.model import Model, Reply, Request


class Disk:
    """The cache behind a thread of its own, so that the event loop never waits for the disk."""

    def __init__(self, cache: Cache | None) -> None:
        self.cache = cache
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gdo-cache")
        self._waiting: list[tuple[bytes, str, str, Reply, asyncio.Future[Reply]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """The replies that are stored."""
        if self.cache is None or not keys:
            return {}
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.cache.get, keys)

    def put(self, key: bytes, model: str, step: str, reply: Reply, future: "asyncio.Future[Reply]") -> None:
        """Store a reply, then hand it on: `future` gets it when it is on disk."""
        if self.cache is None:
            future.set_result(reply)
            return
        self._waiting.append((key, model, step, reply, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write(self.cache))

    async def _write(self, cache: Cache) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await loop.run_in_executor(self._thread, cache.put, [row[:4] for row in batch])
            except RunFailed as error:
                for *_, future in batch:
                    _fail(future, error)
                continue
            for *_, reply, future in batch:
                if not future.done():
                    future.set_result(reply)

    async def idle(self) -> None:
        """Wait until all that was put is stored."""
        if self._writer is not None:
            await self._writer

    async def close(self) -> None:
        """Finish what is being written."""
        await self.idle()
        if self.cache is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.cache.close)
        self._thread.shutdown()


class Caller:
    """One model of a run.

    The same request is sent once, however many batches and steps want it at the same time.
    """

    def __init__(
        self, name: str, model: Model, disk: Disk, ledger: Ledger, tell: Callable[[str], None] = lambda _: None
    ) -> None:
        self.name = name
        self._tell = tell
        self.model = model
        self.stopping = False
        self.cause: GdoError = Stopped("stopped")
        """Why nothing more is sent, once `stopping` is set."""
        self._disk = disk
        self._ledger = ledger
        self._flying: dict[bytes, asyncio.Future[Reply]] = {}
        self._started: asyncio.Task[None] | None = None

    def halt(self, cause: GdoError) -> None:
        """Send nothing more; whoever still wants a reply gets the cause."""
        if not self.stopping:
            self.cause = cause
            self.stopping = True

    async def replies(self, step: str, requests: Sequence[Request], attempt: int = 1) -> list[Reply]:
        """The replies in the order of the requests; a request that failed gives a reply with an error.

        Raises:
            BudgetSpent, Stopped: the run may not send what is missing.
            ModelUnready: the model cannot answer any request.
        """
        loop = asyncio.get_running_loop()
        wanted: dict[bytes, asyncio.Future[Reply]] = {}
        mine: dict[bytes, Request] = {}
        keys = [request.key(self.model.identity) for request in requests]
        for key, request in zip(keys, requests, strict=True):
            if key not in wanted:
                if key not in self._flying:
                    self._flying[key] = loop.create_future()
                    mine[key] = request
                wanted[key] = self._flying[key]
        try:
            await self._settle(step, mine, attempt)
        except GdoError as error:
            for key in mine:
                _fail(self._flying[key], error)
            raise
        finally:
            for key in mine:
                _fail(self._flying.pop(key), Stopped("interrupted"))
        shared = [Call(step, self.name, 0, 0, 0.0, cached=True, attempt=attempt)] * (len(wanted) - len(mine))
        self._ledger.called(shared)
        found = dict(zip(wanted, await asyncio.gather(*wanted.values()), strict=True))
        return [found[key] for key in keys]

    async def _settle(self, step: str, mine: dict[bytes, Request], attempt: int) -> None:
        stored = await self._disk.get(list(mine))
        for key, reply in stored.items():
            self._flying[key].set_result(reply)
        self._ledger.called([self._call(step, reply, attempt, cached=True) for reply in stored.values()])
        missing = {key: request for key, request in mine.items() if key not in stored}
        if missing:
            await self._start()
            await self._send(step, missing, attempt)

    async def _send(self, step: str, missing: dict[bytes, Request], attempt: int) -> None:
        keys = list(missing)
        withheld: list[GdoError] = []

        def allowed() -> Iterator[Request]:
            for request in missing.values():
                if self.stopping:
                    withheld.append(self.cause)
                    return
                if not self._ledger.may_call():
                    withheld.append(BudgetSpent("the budget is spent"))
                    return
                yield request

        async for index, reply in self.model.generate(allowed()):
            self._ledger.called([self._call(step, reply, attempt, cached=False)])
            if reply.error is not None and reply.error.fatal:
                self.halt(ModelUnready(f"model '{self.name}': {reply.error.message}"))
                withheld.insert(0, self.cause)
            elif reply.error is not None:
                self._flying[keys[index]].set_result(reply)
            else:
                self._disk.put(keys[index], self.model.identity, step, reply, self._flying[keys[index]])
        if withheld:
            # Replies that did come are on their way to the disk; wait for them before the run ends.
            await self._disk.idle()
            raise withheld[0]
        await asyncio.wait([self._flying[key] for key in keys])

    async def _start(self) -> None:
        if self._started is None:
            self._started = asyncio.create_task(self.model.start(self._tell))
        await asyncio.shield(self._started)

    def _call(self, step: str, reply: Reply, attempt: int, *, cached: bool) -> Call:
        usage = reply.usage
        error = reply.error.kind if reply.error else ""
        latency = 0.0 if cached else reply.latency_s
        return Call(step, self.name, usage.prompt_tokens, usage.completion_tokens, latency, cached, attempt, error)

    async def close(self) -> None:
        """Let the model go, if it was ever started."""
        if self._started is not None and self._started.done() and not self._started.exception():
            await self.model.close()


def _fail(future: "asyncio.Future[Reply]", error: GdoError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: whoever else waits for it gets it too

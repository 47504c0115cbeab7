"""Requests to one model: looked up on disk, sent at most once, stored before they are used."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from gdo.cache import CHECKPOINT_EVERY, Store, Stored
from gdo.errors import BudgetSpent, GdoError, ModelUnready, RunFailed, Stopped
from gdo.ledger import Call, Ledger
from gdo.model import Model, Reply, ReplyError, Request, cache_keys

REMEMBERED = 100_000
"""Replies that a run without a cache keeps in memory, so that it does not ask the same again."""


class Disk:
    """The cache: read in the thread that asks, written in the event loop, tidied in a thread of its own.

    A commit goes to the log of the file and waits for no disk, so it holds the loop up for less than the hand-over to a
    thread would, which has to fight for the interpreter; all replies of one turn of the loop go in one commit.
    """

    def __init__(self, cache: Store | None) -> None:
        self.cache = cache
        self._writing: set[asyncio.Future[None]] = set()
        self._memory: dict[bytes, Reply] = {}
        self._waiting: list[Stored] = []
        self._stored: asyncio.Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gdo-cache")
        self._tidying: asyncio.Future[None] | None = None
        self._untidy = 0

    def get(self, keys: Sequence[bytes]) -> Mapping[bytes, Reply]:
        """The replies that are stored."""
        if self.cache is None:
            return {key: self._memory[key] for key in keys if key in self._memory}
        return self.cache.get(keys)

    async def put(self, key: bytes, model: str, step: str, reply: Reply) -> None:
        """Store a reply; it is on disk when this returns.

        Raises:
            RunFailed: the disk refused.
        """
        if self.cache is None:
            self._remember(key, reply)
            return
        self._waiting.append((key, model, step, reply))
        if self._stored is None:
            loop = asyncio.get_running_loop()
            self._stored = loop.create_future()
            loop.call_soon(self._write, self.cache, loop)
        await self._stored

    def _remember(self, key: bytes, reply: Reply) -> None:
        if len(self._memory) >= REMEMBERED:
            for old in list(itertools.islice(self._memory, REMEMBERED // 10)):
                del self._memory[old]
        self._memory[key] = reply

    def _write(self, cache: Store, loop: asyncio.AbstractEventLoop) -> None:
        """Store what waits."""
        stored, batch = self._stored, self._waiting
        assert stored is not None  # noqa: S101 (`put` made it)
        self._stored, self._waiting = None, []
        if cache.waits:
            job = loop.run_in_executor(self._thread, cache.put, batch)
            self._writing.add(job)
            job.add_done_callback(self._writing.discard)
            job.add_done_callback(lambda job: _settle(stored, job.exception()))
            return
        try:
            cache.put(batch)
        except Exception as error:  # noqa: BLE001 (whatever it is, those who wait for the disk must hear of it)
            _settle(stored, error)
            return
        _settle(stored, None)
        self._untidy += len(batch)
        if self._untidy >= CHECKPOINT_EVERY and (self._tidying is None or self._tidying.done()):
            self._untidy = 0
            self._tidying = loop.run_in_executor(self._thread, cache.checkpoint)

    async def close(self) -> None:
        """Finish what is being written."""
        if self._stored is not None:
            await asyncio.wait([self._stored])
        if self._writing:
            await asyncio.wait(self._writing)
        if self._tidying is not None:
            await self._tidying
        if self.cache is not None:
            self.cache.close()
        self._thread.shutdown()


def _settle(stored: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None:
        stored.set_result(None)
    else:
        stored.set_exception(error)


class Caller:
    """One model of a run.

    The same request is sent once, however many batches and steps want it at the same time.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        disk: Disk,
        ledger: Ledger,
        loop: asyncio.AbstractEventLoop,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.name = name
        self.model = model
        self.stopping = False
        self.cause: GdoError = Stopped("stopped")
        """Why nothing more is sent, once `stopping` is set."""
        self._tell = tell
        self._disk = disk
        self._ledger = ledger
        self._loop = loop
        self._lock = threading.Lock()
        self._flying: dict[bytes, Future[Reply] | None] = {}
        """The keys that somebody is asking for; a future where somebody else waits too."""
        self._started: asyncio.Task[None] | None = None
        self._answered = False

    def halt(self, cause: GdoError) -> None:
        """Send nothing more; whoever still wants a reply gets the cause."""
        if not self.stopping:
            self.cause = cause
            self.stopping = True
            self.model.stop()

    def replies(
        self, step: str, requests: Sequence[Request], attempt: int = 1, ledger: Ledger | None = None
    ) -> list[Reply]:
        """The replies in the order of the requests; a request that failed gives a reply with an error.

        What they take is counted in `ledger`, by default that of the run. Not to be called in the event loop's own
        thread: it waits.

        Raises:
            BudgetSpent, Stopped: the run may not send what is missing.
            ModelUnready: the model cannot answer any request.
        """
        ledger = ledger or self._ledger
        keys = list(cache_keys(requests, self.model.identity))
        mine, others = self._claim(keys, requests)
        found: dict[bytes, Reply] = {}
        fault: GdoError = Stopped("interrupted")
        try:
            found |= self._disk.get(list(mine))
            ledger.called([self._call(step, reply, attempt, cached=True) for reply in found.values()])
            missing = {key: request for key, request in mine.items() if key not in found}
            if missing:
                job = self._send(step, missing, attempt, ledger)
                found |= asyncio.run_coroutine_threadsafe(job, self._loop).result()
        except GdoError as error:
            fault = error
            raise
        finally:
            self._release(mine, found, fault)
        found |= {key: future.result() for key, future in others.items()}
        ledger.called([Call(step, self.name, 0, 0, 0.0, cached=True, attempt=attempt)] * len(others))
        return [found[key] for key in keys]

    def _claim(
        self, keys: Sequence[bytes], requests: Sequence[Request]
    ) -> tuple[dict[bytes, Request], dict[bytes, Future[Reply]]]:
        """Each key that nobody else is asking for, and the others with what will come of them.

        Claimed before the cache is looked at: who gives a key back has stored its reply.
        """
        mine: dict[bytes, Request] = {}
        others: dict[bytes, Future[Reply]] = {}
        with self._lock:
            for key, request in zip(keys, requests, strict=True):
                if key in mine or key in others:
                    continue
                if key in self._flying:
                    others[key] = self._flying[key] = self._flying[key] or Future()
                else:
                    self._flying[key] = None
                    mine[key] = request
        return mine, others

    def _release(self, mine: Mapping[bytes, Request], found: Mapping[bytes, Reply], fault: GdoError) -> None:
        with self._lock:
            waited = {key: future for key in mine if (future := self._flying.pop(key)) is not None}
        for key, future in waited.items():
            if key in found:
                future.set_result(found[key])
            else:
                future.set_exception(fault)

    async def _send(
        self, step: str, missing: Mapping[bytes, Request], attempt: int, ledger: Ledger
    ) -> dict[bytes, Reply]:
        await self._start()
        keys = list(missing)
        found: dict[bytes, Reply] = {}
        calls: list[Call] = []
        withheld: list[GdoError] = []

        def allowed() -> Iterator[Request]:
            for request in missing.values():
                if self.stopping:
                    withheld.append(self.cause)
                    return
                spent = ledger.spend_call()
                if spent:
                    withheld.append(BudgetSpent(spent))
                    return
                yield request

        async def done(index: int, reply: Reply) -> None:
            call = self._call(step, reply, attempt, cached=False)
            ledger.spent(call)
            calls.append(call)
            if reply.error is None:
                await self._keep(keys[index], step, reply)
            elif self._ends(reply.error):
                withheld.insert(0, self.cause)
            found[keys[index]] = reply

        try:
            await self.model.generate(allowed(), done)
        finally:
            ledger.records.calls(calls)
        if withheld:
            raise withheld[0]
        return found

    async def _keep(self, key: bytes, step: str, reply: Reply) -> None:
        self._answered = True
        try:
            await self._disk.put(key, self.model.identity, step, reply)
        except RunFailed as error:  # what cannot be kept must not be paid for
            self.halt(error)
            raise

    def _ends(self, error: ReplyError) -> bool:
        """Whether a failed call belongs to the end of the run: it brings it about, or was given up because of it."""
        if error.fatal:
            kind = RunFailed if self._answered else ModelUnready  # it could answer, or it never did
            self.halt(kind(f"model '{self.name}': {error.message}"))
        return self.stopping

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

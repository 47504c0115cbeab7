"""The cache as a run uses it: read where it is asked, written where replies come in, tidied beside, shared with other runs."""

import asyncio
import itertools
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from gdo.cache import CHECKPOINT_EVERY, Store, Stored
from gdo.claims import LOOK_S, SETTLE_S
from gdo.model import Reply

REMEMBERED = 100_000
"""Replies that a run without a cache keeps in memory, so that it does not ask the same again."""


class Disk:
    """The cache: read in the thread that asks, written in the event loop, tidied in a thread of its own.

    A commit goes to the log of the file and waits for no disk, so it holds the loop up for less than the hand-over to a
    thread would, which has to fight for the interpreter; all replies of one turn of the loop go in one commit.
    """

    def __init__(self, cache: Store | None) -> None:
        self.cache = cache
        self._memory: dict[bytes, Reply] = {}
        self._waiting: list[Stored] = []
        self._stored: asyncio.Future[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gdo-cache")
        self._tidying: asyncio.Future[None] | None = None
        self._untidy = 0
        self._writing: set[asyncio.Future[None]] = set()
        self._joining: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Take notice of the other runs that use this cache, and let them know of this one."""
        if self.cache is not None:
            if self._joining is None:
                self._joining = asyncio.create_task(self._join(self.cache))
            await asyncio.shield(self._joining)

    async def _join(self, cache: Store) -> None:
        self._looking = asyncio.create_task(self._look(cache))
        if cache.claims.join():
            await asyncio.sleep(SETTLE_S)

    async def _look(self, cache: Store) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            cache.claims.look()

    def take(self, keys: Sequence[bytes]) -> Collection[bytes]:
        """Of some keys those to ask for: the others are stored by now, or asked for by another run."""
        return keys if self.cache is None else self.cache.claims.take(keys)

    def give_back(self, keys: Collection[bytes]) -> None:
        """These keys are asked for no more."""
        if self.cache is not None:
            self.cache.claims.give_back(keys)

    async def wait(self, keys: Sequence[bytes]) -> Mapping[bytes, Reply]:
        """Some time later: what is stored by now of what other runs ask for."""
        await asyncio.sleep(LOOK_S)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.get, keys)

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
        if self._looking is not None:
            self._looking.cancel()
        if self.cache is not None:
            self.cache.close()
        self._thread.shutdown()


def _settle(stored: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None:
        stored.set_result(None)
    else:
        stored.set_exception(error)

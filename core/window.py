"""A bounded window of calls: what every backend that works on several requests at once stands on."""

import asyncio
import bisect
from collections.abc import Awaitable, Callable, Iterable

from gdo.model import Done, Reply, Request

Call = Callable[[Request], Awaitable[Reply]]


class _Stream:
    """The requests of one caller: what waits, how many are in flight, and how it ended."""

    def __init__(self, requests: Iterable[Request], call: Call, done: Done, order: int) -> None:
        self.order = order
        self.waiting = enumerate(requests)
        self.call = call
        self.done = done
        self.flying = 0
        self.over = False
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.fault: BaseException | None = None

    def pull(self) -> tuple[int, Request] | None:
        """The next request; None when there is none, or the stream has failed."""
        item = None
        try:
            item = next(self.waiting, None) if self.fault is None else None
        except Exception as error:  # noqa: BLE001 (what a caller's iterable raises is raised in its caller)
            self.fault = error
        if item is None:
            self.over = True
            self.settle()
        else:
            self.flying += 1
        return item

    def settle(self) -> None:
        """End the stream if nothing of it is left."""
        if self.over and not self.flying and not self.ended.done():
            if self.fault is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(self.fault)


class Window:
    """At most `size` calls at once, over all the streams that are asked at the same time: the one of the lowest order first.

    A request is pulled from its iterable only when there is room for it, so whoever feeds the iterable can stop the
    stream and lose nothing that was sent.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._streams: list[_Stream] = []
        self._workers: set[asyncio.Task[None]] = set()

    async def run(self, requests: Iterable[Request], call: Call, done: Done, order: int = 0) -> None:
        """Call each request and hand its reply to `done`; return when all of them are done.

        Of streams of one order the oldest goes first.

        Raises:
            Whatever `call`, `done` or the iterable raised first, once the calls in flight have ended.
        """
        stream = _Stream(requests, call, done, order)
        bisect.insort(self._streams, stream, key=lambda other: other.order)
        self.staff()
        await stream.ended

    def staff(self) -> None:
        """One worker more, if there is work and room; it calls for the next one itself."""
        if self._streams and len(self._workers) < self.size:
            worker = asyncio.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        while self._streams:
            stream = self._streams[0]
            item = stream.pull()
            if item is None:
                self._streams.pop(0)
                continue
            self.staff()
            try:
                await stream.done(item[0], await stream.call(item[1]))
            except BaseException as error:
                stream.fault = stream.fault or error
                if not isinstance(error, Exception):
                    raise
            finally:
                stream.flying -= 1
                if stream.fault is not None:
                    stream.over = True
                stream.settle()

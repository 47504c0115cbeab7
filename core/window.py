"""A bounded window of calls: what every backend that works on several requests at once stands on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from gdo.model import Reply, Request


class Window:
    """At most `size` calls at once, over all the batches that are asked at the same time.

    A request is pulled from its iterable only when there is room for it, so whoever feeds the iterable can stop the
    stream and lose nothing that was sent.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.room = asyncio.Semaphore(size)

    async def replies(
        self, requests: Iterable[Request], call: Callable[[Request], Awaitable[Reply]]
    ) -> AsyncIterator[tuple[int, Reply]]:
        """Replies with the index of their request, in the order of completion."""
        waiting = enumerate(requests)
        done: asyncio.Queue[tuple[int, Reply] | None] = asyncio.Queue()

        async def work() -> None:
            try:
                while True:
                    async with self.room:
                        item = next(waiting, None)
                        if item is None:
                            return
                        reply = await call(item[1])
                    done.put_nowait((item[0], reply))
                    await asyncio.sleep(0)  # what the reply cost is counted before the next request is pulled
            finally:
                done.put_nowait(None)

        workers = [asyncio.create_task(work()) for _ in range(self.size)]
        working = len(workers)
        try:
            while working:
                item = await done.get()
                if item is None:
                    working -= 1
                else:
                    yield item
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()

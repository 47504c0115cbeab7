"""Work on several batches at once, handed on in their order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

IN_FLIGHT = 8
HELD = 32
"""Batches that are begun and not handed on: a slow one holds up no other while there is room."""


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[In], Out], batches: Iterable[In], most: int = IN_FLIGHT
) -> Iterator[Out]:
    """Results in the order of their batches, at most `most` of them under way.

    Behind a batch that takes long, others are begun as those before them end, up to `HELD` in all.
    """
    flying: deque[Future[Out]] = deque()
    try:
        for batch in batches:
            flying.append(pool.submit(work, batch))
            while flying and (flying[0].done() or len(flying) >= HELD):
                yield flying.popleft().result()
            while len(under_way := [future for future in flying if not future.done()]) >= most:
                wait(under_way, return_when=FIRST_COMPLETED)
        while flying:
            yield flying.popleft().result()
    finally:
        for future in flying:
            future.cancel()

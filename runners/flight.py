"""Work on several batches at once, handed on in their order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

IN_FLIGHT = 8


def in_order(
    pool: ThreadPoolExecutor, work: Callable[[In], Out], batches: Iterable[In], most: int = IN_FLIGHT
) -> Iterator[Out]:
    """Results in the order of their batches, at most `most` of them under way."""
    flying: deque[Future[Out]] = deque()
    try:
        for batch in batches:
            flying.append(pool.submit(work, batch))
            if len(flying) >= most:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()
    finally:
        for future in flying:
            future.cancel()

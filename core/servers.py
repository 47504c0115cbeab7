"""How often and how many at once the servers of one model may be asked: what a client of a busy service must know.

Requests per minute and tokens per minute are kept by spacing; how many are sent at once follows additive increase and
multiplicative decrease (Jacobson 1988), as TCP does it: a refusal for being too many cuts it, answers raise it again.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from gdo.wire import Wire

SHRINK = 0.7
_BURST_S = 1.0
_LOOK_S = 0.1
_LATELY_S = 3.0
_MOST = 2
"""So many times as many answers as refusals say that a refusal is about its request, and not about all."""


class Pace:
    """At most so much a minute, evenly, with no more than a second's worth at once; 0 means no limit."""

    def __init__(self, per_minute: int) -> None:
        self._per_s = per_minute / 60
        self._free_at = 0.0
        """When all that was taken will be paid off."""

    async def take(self, amount: float = 1.0) -> None:
        """Wait until so much may be used."""
        if not self._per_s:
            return
        while (ahead_s := self._free_at - time.monotonic()) > 0:  # noqa: ASYNC110 (what was taken may be corrected)
            await asyncio.sleep(min(ahead_s, _LOOK_S))
        self._free_at = max(self._free_at, time.monotonic() - _BURST_S) + amount / self._per_s

    def correct(self, difference: float) -> None:
        """Take more, or give back, when it is known what was really used."""
        if self._per_s:
            self._free_at += difference / self._per_s


class Throttle:
    """How many requests are with the servers at once: fewer after a refusal, and one more after each round of answers."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = most
        self.sending = 0
        self._good = 0
        self._cut_at = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait for room."""
        if self.sending < self.limit and not self._waiting:
            self.sending += 1
            return
        room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(room)
        await room

    def leave(self) -> None:
        """Make room."""
        self.sending -= 1
        while self._waiting and self.sending < self.limit:
            room = self._waiting.popleft()
            if not room.done():
                self.sending += 1
                room.set_result(None)

    def answered(self) -> None:
        """A request was answered: after as many as are sent at once, one more may be."""
        self._good += 1
        if self._good >= self.limit < self.most:
            self.limit += 1
            self._good = 0

    def refused(self, sent_at: float) -> None:
        """The servers have too much to do; one cut answers for all that was sent before it."""
        if sent_at >= self._cut_at:
            self.limit = max(1, int(self.limit * SHRINK))
            self._cut_at = time.monotonic()
            self._good = 0


class Watch:
    """Ends calls that take too long, with one timer for all of them."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._due: dict[asyncio.Task[Any], float] = {}
        self._watching: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> "asyncio.Task[Any]":
        """The call of this task begins; `end` must follow."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()  # once: each time it asks the operating system who we are
        task = asyncio.current_task(self._loop)
        assert task is not None  # noqa: S101 (calls are made in tasks)
        self._due[task] = time.monotonic() + self._timeout_s
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch())
        return task

    def end(self, task: "asyncio.Task[Any]") -> bool:
        """The call has ended; whether it was this watch that ended it."""
        return self._due.pop(task, 0.0) == math.inf

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(min(0.25, self._timeout_s / 4))
            now = time.monotonic()
            for task, due in list(self._due.items()):
                if due < now:
                    self._due[task] = math.inf
                    task.cancel()

    def close(self) -> None:
        """Watch no longer."""
        if self._watching is not None:
            self._watching.cancel()


def checked_urls(urls: list[str]) -> list[str]:
    """Addresses without their last slash.

    Raises:
        ValueError: there is none, one is no address, or one holds a secret.
    """
    if not urls:
        raise ValueError("no URL")
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc:
            raise ValueError("not a URL | it begins with http:// or https:// and ends with /v1")
        if parts.password or parts.username:
            hint = "put the key into the environment and name it in key_env"
            raise ValueError(f"a URL must not hold a password | {hint}")
        if parts.query or parts.fragment:
            raise ValueError(
                "a URL with a query is not asked | it ends with /v1, and /chat/completions is put behind it"
            )
        if parts.path.rstrip("/").endswith("/completions"):
            raise ValueError("not a server's base | leave out /chat/completions: it ends with /v1")
    return [url.rstrip("/") for url in urls]


@dataclass(slots=True)
class Server:
    """One address of a model."""

    url: str
    chat: Wire = field(init=False)
    plain: Wire = field(init=False)
    """The wires for chats and for plain completions, once they are open."""
    sending: int = 0
    rests_until: float = 0.0
    reached: bool = False
    answered_at: float = 0.0
    """When it last answered anybody."""
    failures: int = 0
    """On end, each with a rest before it."""
    failed_at: float = 0.0
    denied: int = 0
    """Refusals on end that may be about one request each."""
    barred: bool = False
    """Whether it is asked no more."""
    _busy_at: float = 0.0
    """When the last request was sent that it wanted to be left alone after."""
    _refused: int = 0
    _answered: int = 0
    """Since it wants to be left alone: how many it refused, and how many it answered that were sent later."""

    def rest(self, seconds: float, sent_at: float = math.inf) -> None:
        """Ask it nothing for a while, unless it answers something that was sent after a moment."""
        now = time.monotonic()
        if self.rests_until <= now:
            self._busy_at, self._refused, self._answered = 0.0, 0, 0
        self._busy_at = max(self._busy_at, sent_at)
        self._refused += 1
        self.rests_until = max(self.rests_until, now + seconds)

    def answered(self, sent_at: float) -> None:
        """It is well; and if it answers most of what came after those that it refused, it meant them alone."""
        self.answered_at = time.monotonic()
        self.failures = self.denied = 0
        self._answered += sent_at > self._busy_at
        if self._answered > _MOST * self._refused:
            self.rests_until = 0.0

    @property
    def awake(self) -> bool:
        """Whether it may be asked."""
        return self.rests_until <= time.monotonic()


class Servers:
    """The addresses of one model: the least busy one that does not rest is asked next; one that failed, once at a time."""

    def __init__(self, urls: tuple[str, ...]) -> None:
        self.all = [Server(url) for url in urls]

    async def choose(self, stopping: Callable[[], bool] = lambda: False, failed: Server | None = None) -> Server:
        """A server to ask, rather not the one that just failed; waits while all of them rest, until the run is ending."""
        while True:
            well = any(not server.failures for server in self.asked)
            awake = [
                server for server in self.asked if server.awake and not (well and server.failures and server.sending)
            ]
            if awake or stopping():
                return min(awake or self.all, key=lambda server: (server is failed, server.sending))
            wait_s = max(self.rests_s, 0.05) * random.uniform(1.0, 1.05)  # noqa: S311 (they need not all come at once)
            await asyncio.sleep(min(wait_s, 0.5))

    @property
    def asked(self) -> list[Server]:
        """Those that are not barred; all of them if each one is."""
        return [server for server in self.all if not server.barred] or self.all

    def failed(self, server: Server, sent_at: float) -> None:
        """A server failed that has answered nobody lately: while others are well it is left alone, longer each time.

        All that was sent before the last failure is one with it.
        """
        now = time.monotonic()
        if sent_at < server.failed_at or now - server.answered_at < _LATELY_S:
            return
        server.failures += 1
        server.failed_at = now
        if any(not other.failures for other in self.asked):
            server.rest(backoff_s(server.failures))

    def bar(self, server: Server, tell: Callable[[], None]) -> bool:
        """Ask a server no more, which is told once; whether there is another one to ask."""
        new, server.barred = not server.barred, True
        others = not all(other.barred for other in self.all)
        if new and others:
            tell()
        return others

    @property
    def rests_s(self) -> float:
        """For how long none of them wants to be asked."""
        return max(0.0, min(server.rests_until for server in self.asked) - time.monotonic())

    @property
    def resting(self) -> bool:
        """Whether any of them wants to be left alone."""
        return any(server.rests_until > time.monotonic() for server in self.asked)

    @property
    def reached(self) -> bool:
        """Whether any of them ever answered."""
        return any(server.reached for server in self.all)


def backoff_s(tries: int, longest_s: float = 30.0) -> float:
    """Seconds to wait after so many tries: a quarter, doubled each time, drawn between half and all of it."""
    return min(longest_s, 0.25 * 2.0 ** min(tries, 20)) * random.uniform(0.5, 1.0)  # noqa: S311

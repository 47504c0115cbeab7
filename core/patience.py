"""What becomes of a request that a server did not answer: whose fault that is, and how long it is waited for."""

import asyncio
import math
import random
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from gdo.model import Reply, ReplyError
from gdo.servers import Servers, backoff_s

Next = Literal["settled", "at once", "anew", "bare", "elsewhere", "busy", "away", "again"]
"""What becomes of a request after a try: it is done, or sent again, over a new connection, without its schema, to another server,
or after a wait."""
DENIALS = 20
"""Failures on end that may be about one row each."""
_FEW = 5
"""Requests that a server may be too busy for, of many that it answers."""
_UNLUCKY = 6
_FIRST_S = 10.0
_OUTAGE_S = 30.0
_QUIET_S = 5.0


class Patience:
    """Waits for the servers of one model, for all of its requests."""

    def __init__(self, servers: Servers, patience_s: float) -> None:
        self._servers = servers
        self._patience_s = patience_s
        self.tell: Callable[[str], None] = lambda _: None
        self.stopping = False
        self.answered_at = 0.0
        """When the last request that was answered had been sent."""
        self.away_since = 0.0
        """Since when no server could be reached."""
        self.failing = 0
        """Requests whose last try failed."""
        self._failing_since = 0.0
        """Since when nobody was answered, and somebody failed."""
        self._failed_at = 0.0
        self._given_up = 0
        """Requests that were given up since somebody was last answered."""
        self._told_at = 0.0

    def answered(self, sent_at: float) -> None:
        """A request was answered that had been sent at a moment."""
        self.answered_at = sent_at
        self._given_up = 0
        self.away_since = self._failing_since = 0.0

    def fails(self) -> float:
        """A request failed for the first time; when that was."""
        self.failing += 1
        now = time.monotonic()
        if not self._failing_since or now - self._failed_at > _OUTAGE_S:  # what failed long ago is another matter
            self._failing_since = now
        self._failed_at = now
        return now

    def is_outage(self, reply: Reply, since: float) -> bool:
        """Whether a failure is not its request's: the servers did answer, and now nobody is, and others fail as well."""
        assert reply.error is not None  # noqa: S101 (told by the caller)
        others_too = self.failing > 1 or self._given_up > 0
        return others_too and 0 < self.answered_at < since and reply.error.kind != "timeout"

    async def again(self, reply: Reply, since: float, tries: int) -> None:
        """Wait before the next try of a request that failed."""
        self._tell(reply, since, "trying again")
        await self.pause(max(backoff_s(tries), asked_wait_s(reply)))

    def lost(self, reply: Reply, since: float) -> Reply:
        """The error of a request that failed at all its tries: that of the run where many do, and nobody is answered."""
        self._given_up += 1
        self._failed_at = time.monotonic()
        assert reply.error is not None  # noqa: S101 (told by the caller)
        ends = self._given_up > DENIALS and 0 < self.answered_at < since
        return reply._replace(error=replace(reply.error, fatal=ends))

    async def waited(self, reply: Reply, then: Next, since: float, waits: int) -> Reply | None:
        """Wait for a server that is busy, away or out of order; when patience is at its end, what there is to say."""
        patience_s = self._patience_s
        if self.answered_at < since:
            since = (self.away_since if then == "away" else self._failing_since) or since
        if then == "again":
            patience_s = min(_OUTAGE_S, patience_s)
        elif not self._servers.reached:  # a server that was never there is given up sooner: the URL may be wrong
            patience_s = min(_FIRST_S, patience_s)
        left_s = since + patience_s - time.monotonic()
        own_s = 0.0 if self._servers.resting else asked_wait_s(reply) or backoff_s(waits)
        rest_s = self._servers.rests_s or own_s
        self._tell(reply, since, f"waiting up to {patience_s:g} s for a server")
        # After a while of nothing an answer to somebody ends the waiting of all; not where a server has had enough for a moment.
        long = self.failing > 1 and time.monotonic() - since > _QUIET_S and not asked_wait_s(reply)
        # Where others are answered, a few refusals are bad luck, however little patience there is.
        unlucky = self.answered_at >= since and waits < _UNLUCKY
        await self.pause(rest_s if unlucky else min(rest_s, left_s), since if long else math.inf)
        if unlucky:
            return None
        if left_s > 0 and not (rest_s > left_s and self._servers.rests_s):
            return None
        # Where nobody was answered in all that time, the other rows need not find that out one by one.
        self._given_up += 1
        self._failed_at = time.monotonic()
        few = DENIALS if then == "again" else 0 if then == "away" else _FEW
        many = max(self.failing, self._given_up) > few
        fatal = (many or not self.answered_at) and self.answered_at < since
        return self._error(reply, f", and so for {patience_s:g} s", fatal=fatal, unless_known=not many)

    def _tell(self, reply: Reply, since: float, what: str) -> None:
        """Say once what is waited for, where nobody is answered for some seconds."""
        now = time.monotonic()
        since = self._failing_since or since
        if now - since > _QUIET_S and self.answered_at < since and self._told_at <= self.answered_at:
            self._told_at = now
            assert reply.error is not None  # noqa: S101 (told by the caller)
            self.tell(f"{what}: {reply.error.message}")

    async def pause(self, seconds: float, since: float = math.inf) -> None:
        """Wait, but not beyond the end of the run; nor beyond an answer to somebody, where nobody was answered since a moment."""
        nobody = self.answered_at < since < math.inf
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0 and not self.stopping:
            await asyncio.sleep(min(left_s, 0.2))
            if nobody and self.answered_at >= since:
                await asyncio.sleep(random.uniform(0.0, min(left_s, 1.0)))  # noqa: S311 (they need not all come at once)
                return

    def _error(self, reply: Reply, waited: str, *, fatal: bool, unless_known: bool) -> Reply:
        assert reply.error is not None  # noqa: S101 (only a fault is given up)
        reached = self._servers.reached
        hint = "run again later, or raise `patience_s`" if reached else "is the server up, and the URL right?"
        said = f"{reply.error.message}{waited} ({hint})"
        return Reply(error=ReplyError(reply.error.kind, said, fatal=fatal, unless_known=unless_known))


def asked_wait_s(reply: Reply) -> float:
    """How long a server wants this request to wait."""
    return reply.error.after_s if reply.error else 0.0

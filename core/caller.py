"""Requests to one model: looked up on disk, sent at most once, stored before they are used."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from gdo.disk import Disk
from gdo.errors import BudgetSpent, GdoError, ModelUnready, RunFailed, Stopped
from gdo.ledger import Call, Ledger
from gdo.model import Model, Reply, ReplyError, Request, cache_keys

_TAKEN = 16
"""Requests that are looked up among what other runs ask for, at a time."""


@dataclass(frozen=True, slots=True)
class _Errand:
    """What some requests have in common: who asks, when they are sent, and where they are counted."""

    step: str
    order: int
    ledger: Ledger


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
        self._known = False
        """Whether a reply of this model was in the cache."""

    @property
    def idle(self) -> bool:
        """Whether nobody waits for a reply."""
        with self._lock:
            return not self._flying

    def halt(self, cause: GdoError) -> None:
        """Send nothing more; whoever still wants a reply gets the cause."""
        if not self.stopping:
            self.cause = cause
            self.stopping = True
            self.model.stop()

    def replies(
        self, step: str, requests: Sequence[Request], order: int = 0, ledger: Ledger | None = None
    ) -> list[Reply]:
        """The replies in the order of the requests; a request that failed gives a reply with an error.

        Of what is asked at the same time, that of the lowest `order` is sent first. What it takes is counted in `ledger`,
        by default that of the run.

        Not to be called in the event loop's own thread: it waits.

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
            ledger.called([self._call(step, reply, cached=True) for reply in found.values()])
            self._known = self._known or bool(found)
            missing = {key: request for key, request in mine.items() if key not in found}
            if missing:
                job = self._send(_Errand(step, order, ledger), missing)
                found |= asyncio.run_coroutine_threadsafe(job, self._loop).result()
        except GdoError as error:
            fault = error
            raise
        finally:
            self._release(mine, found, fault)
        found |= {key: future.result() for key, future in others.items()}
        ledger.called([Call(step, self.name, 0, 0, 0.0, cached=True)] * len(others))
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

    async def _send(self, errand: _Errand, missing: Mapping[bytes, Request]) -> dict[bytes, Reply]:
        await self._start()
        await self._disk.join()
        found: dict[bytes, Reply] = {}
        elsewhere = await self._ask(errand, missing, found)
        while elsewhere:
            there = await self._disk.wait(list(elsewhere))
            if self.stopping:
                raise self.cause
            told = [self._call(errand.step, reply, cached=True) for reply in there.values()]
            errand.ledger.called(told)
            found |= there
            missing = {key: request for key, request in elsewhere.items() if key not in there}
            elsewhere = await self._ask(errand, missing, found)
        return found

    async def _ask(
        self, errand: _Errand, missing: Mapping[bytes, Request], found: dict[bytes, Reply]
    ) -> dict[bytes, Request]:
        """Put the replies into `found`; the requests that another run has sent are left."""
        taken: list[bytes] = []
        sent: list[bytes] = []
        elsewhere: dict[bytes, Request] = {}
        calls: list[Call] = []
        withheld: list[GdoError] = []

        def allowed() -> Iterator[Request]:
            for key, request in self._claimed(missing, taken, elsewhere):
                refused = self._refused(errand.ledger)
                if refused is not None:
                    withheld.append(refused)
                    return
                sent.append(key)
                yield request

        async def done(index: int, reply: Reply) -> None:
            call = self._call(errand.step, reply, cached=False)
            errand.ledger.spent(call)
            calls.append(call)
            if reply.error is None:
                await self._keep(sent[index], errand.step, reply)
            elif self._ends(reply.error):
                withheld.insert(0, self.cause)
            found[sent[index]] = reply

        try:
            await self.model.generate(allowed(), done, errand.order)
        finally:
            self._disk.give_back(taken)
            errand.ledger.records.calls(calls)
        if withheld:
            raise withheld[0]
        return elsewhere

    def _claimed(
        self, missing: Mapping[bytes, Request], taken: list[bytes], elsewhere: dict[bytes, Request]
    ) -> Iterator[tuple[bytes, Request]]:
        """What this run is to ask, claimed a few at a time; what another one asks goes to `elsewhere`."""
        keys = list(missing)
        for place, (key, request) in enumerate(missing.items()):
            if place % _TAKEN == 0:
                mine = self._disk.take(keys[place : place + _TAKEN])
                taken.extend(mine)
            if key in mine:
                yield key, request
            else:
                elsewhere[key] = request

    def _refused(self, ledger: Ledger) -> GdoError | None:
        """Why nothing may be sent, if so; else one call is taken from the budget."""
        if self.stopping:
            return self.cause
        spent = ledger.spend_call()
        return BudgetSpent(spent) if spent else None

    async def _keep(self, key: bytes, step: str, reply: Reply) -> None:
        self._answered = True
        try:
            await self._disk.put(key, self.model.identity, step, reply)
        except RunFailed as error:  # what cannot be kept must not be paid for
            self.halt(error)
            raise

    def _ends(self, error: ReplyError) -> bool:
        """Whether a failed call belongs to the end of the run: it brings it about, or was given up because of it."""
        if error.fatal and not (error.unless_known and self._known):
            kind = RunFailed if self._answered or self._known else ModelUnready  # it could answer, or it never did
            self.halt(kind(f"model '{self.name}': {error.message}"))
        return self.stopping

    async def _start(self) -> None:
        if self._started is None:
            self._started = asyncio.create_task(self.model.start(self._tell))
        await asyncio.shield(self._started)

    def _call(self, step: str, reply: Reply, *, cached: bool) -> Call:
        usage = reply.usage
        error = reply.error.kind if reply.error else ""
        latency, requests = (0.0, 0) if cached else (reply.latency_s, reply.tries)
        return Call(step, self.name, usage.prompt_tokens, usage.completion_tokens, latency, cached, requests, error)

    async def close(self) -> None:
        """Let the model go, if it was ever started."""
        if self._started is not None and self._started.done() and not self._started.exception():
            await self.model.close()

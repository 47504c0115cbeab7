"""Where the steps of a run ask: one event loop, one caller a model, one cache, one ledger."""

import asyncio
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

import pyarrow as pa

from gdo.ask import Ask, Memos, Policy
from gdo.backend import Backend, resolve
from gdo.cache import Store
from gdo.caller import Caller
from gdo.disk import Disk
from gdo.errors import Stopped
from gdo.ledger import Ledger
from gdo.model import Sampling
from gdo.op import Operator
from gdo.plan import model_name

TURN_S = 0.0005
"""How long a thread may keep the interpreter: while batches are parsed, servers wait for the loop of the calls to go on."""


class Desk:
    """Answers the steps of one run; a context manager that lets every model go at its end."""

    def __init__(
        self,
        models: Mapping[str, Backend],
        folder: Path,
        ledger: Ledger,
        cache: Store | None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.ledger = ledger
        self._models = dict(models)
        self._folder = folder
        self._tell = tell
        self._callers: dict[str, Caller] = {}
        self._halted: list[Caller] = []
        self._disk = Disk(cache)
        self._memos: dict[str, Memos] = {}
        self._lock = threading.Lock()
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gdo-calls", daemon=True)
        self._stopping = False
        self._turn_s = sys.getswitchinterval()

    def __enter__(self) -> "Desk":
        sys.setswitchinterval(min(self._turn_s, TURN_S))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        sys.setswitchinterval(self._turn_s)

    async def _close(self) -> None:
        for caller in (*self._callers.values(), *self._halted):
            await caller.close()
        await self._disk.close()

    def ask(self, step: str, op: Operator) -> Ask:
        """What a step asks by, for one batch."""
        return self.asking(step, model_name(op), policy_of(op))

    def asking(self, step: str, model: str, policy: Policy) -> Ask:
        """What asks a model by a policy; the model is not looked at before the first prompt."""
        memos = self._memos.setdefault(step, {})
        return Ask(step, model, self.caller, self.ledger, policy, memos)

    def learned(self, step: str, op: Operator, state: pa.Table) -> None:
        """Keep what a step learned from all rows."""
        learned = op.learned(state)
        self.ledger.learn(step, learned.told, learned.file, learned.save)

    def caller(self, name: str) -> Caller:
        """The one caller of a model.

        Raises:
            Faults: there is no model of that name.
        """
        with self._lock:
            if name not in self._callers:
                model = resolve(name, self._models).build(self._folder)
                self._callers[name] = Caller(name, model, self._disk, self.ledger, self._loop, self._tell)
                if self._stopping:
                    self._callers[name].halt(Stopped("stopped"))
            return self._callers[name]

    def renew(self) -> None:
        """After a stop, or a failure that ended a model: the next question starts it anew.

        A model that somebody still waits for is let go at the end.
        """
        with self._lock:
            self._stopping = False
            halted = {name: caller for name, caller in self._callers.items() if caller.stopping}
            for name in halted:
                del self._callers[name]
        for caller in halted.values():
            if caller.idle:
                asyncio.run_coroutine_threadsafe(caller.close(), self._loop).result()
            else:
                self._halted.append(caller)

    def stop(self) -> None:
        """Send nothing more; what is in flight is finished and stored."""
        with self._lock:
            self._stopping = True
            for caller in self._callers.values():
                caller.halt(Stopped("stopped"))


def policy_of(op: Operator) -> Policy:
    """What a step does about faults, and how it samples."""
    return Policy(op.on_error, op.retries, Sampling(temperature=op.temperature, max_tokens=op.max_tokens))


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop for the calls; uvloop's where it is installed, which is a tenth faster with a server that answers at once."""
    try:
        import uvloop
    except ImportError:  # it is not made for Windows
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop

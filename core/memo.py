"""What a step was answered lately, by rendered prompt: a million rows with a thousand prompts ask the disk a thousand times."""

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence

from gdo.answers import Outcome
from gdo.seen import Seen

REMEMBERED = 50_000
LONGEST = 2_000
"""Characters of a prompt; longer ones are looked up on disk."""


class _Errand:
    """What one thread asks for, and what came of it."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: dict[str, Outcome] = {}


class Memo:
    """The latest outcomes of one prompt; bounded, and safe to use from several threads."""

    def __init__(self) -> None:
        self.known: dict[str, Outcome] = {}
        self.seen: dict[object, Seen] = {}
        """The same by rows, for each way in which columns become a prompt."""
        self.prior: list[float] = []
        """The prior of scored labels, once it is measured."""
        self.settling = threading.Lock()
        self._lock = threading.Lock()
        self._asking: dict[str, _Errand] = {}

    def settle(self, texts: Sequence[str], ask: Callable[[Sequence[str]], Sequence[Outcome]]) -> dict[str, Outcome]:
        """The outcomes of prompts: what another thread is asking is waited for, and the rest asked.

        Raises:
            What `ask` raises; a thread that waited for it asks for itself.
        """
        own = _Errand()
        with self._lock:
            others = {text: self._asking[text] for text in texts if text in self._asking}
            mine = [text for text in texts if text not in others]
            self._asking.update(dict.fromkeys(mine, own))
        try:
            own.found = dict(zip(mine, ask(mine) if mine else (), strict=True))
            self.keep({text: outcome for text, outcome in own.found.items() if outcome.is_settled})
        finally:
            with self._lock:
                for text in mine:
                    del self._asking[text]
            own.done.set()
        found = dict(own.found)
        for text, other in others.items():  # only now: who waits has nothing left that another one waits for
            other.done.wait()
            if text in other.found and other.found[text].was_asked:
                found[text] = other.found[text]
        left = [text for text in texts if text not in found]
        return found | self.settle(left, ask) if left else found

    def keep(self, outcomes: Mapping[str, Outcome]) -> None:
        """Remember outcomes by prompt; the oldest make room."""
        short = {text: outcome for text, outcome in outcomes.items() if len(text) <= LONGEST}
        with self._lock:
            self.known.update(itertools.islice(short.items(), REMEMBERED))
            for old in list(itertools.islice(self.known, max(0, len(self.known) - REMEMBERED))):
                del self.known[old]

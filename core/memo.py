"""What a step was answered lately, by rendered prompt: a million rows with a thousand prompts ask the disk a thousand times."""

import itertools
import threading
from collections.abc import Mapping
from typing import Generic, TypeVar

from gdo.seen import Seen

Outcome = TypeVar("Outcome")

REMEMBERED = 50_000
LONGEST = 2_000
"""Characters of a prompt; longer ones are looked up on disk."""


class Memo(Generic[Outcome]):
    """The latest outcomes of one prompt; bounded, and safe to use from several threads."""

    def __init__(self) -> None:
        self.known: dict[str, Outcome] = {}
        self.seen: dict[object, Seen] = {}
        """The same by rows, for each way in which columns become a prompt."""
        self.prior: list[float] = []
        """The prior of scored labels, once it is measured."""
        self.settling = threading.Lock()
        self._lock = threading.Lock()

    def keep(self, outcomes: Mapping[str, Outcome]) -> None:
        """Remember outcomes by prompt; the oldest make room."""
        short = {text: outcome for text, outcome in outcomes.items() if len(text) <= LONGEST}
        with self._lock:
            self.known.update(itertools.islice(short.items(), REMEMBERED))
            for old in list(itertools.islice(self.known, max(0, len(self.known) - REMEMBERED))):
                del self.known[old]

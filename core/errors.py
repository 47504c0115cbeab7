"""The error tree, and who mends what.

GdoError
├── Faults          the user: a file, a path or an option is wrong; every fault at once (exit 2)
├── ModelUnready    the user: a backend cannot be used here, and what would make it usable (exit 2)
└── RunFailed       the run: a step failed with `on_error: fail`, or the sink could not be written (exit 1)
    ├── BudgetSpent     the run stopped at --max-calls or --max-tokens; run it again to go on (exit 1)
    └── Stopped         the user pressed Ctrl-C (exit 1)
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault: where it is (`file:line:column`), what it is, and a hint at the mending.

    >>> print(Finding("p.yaml:3:5", "unknown key 'promt'", "did you mean 'prompt'?"))
    p.yaml:3:5: unknown key 'promt' (did you mean 'prompt'?)
    """

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.where}: {self.what}{hint}"


class GdoError(Exception):
    """Root of all that gdo raises on purpose."""

    exit_status = 1


class Faults(GdoError):
    """What a user wrote is wrong; `findings` holds every fault that was found."""

    exit_status = 2

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("\n".join(map(str, self.findings)))

    def __reduce__(self) -> tuple[type["Faults"], tuple[tuple[Finding, ...]]]:
        return (type(self), (self.findings,))

    @classmethod
    def one(cls, where: str, what: str, hint: str = "") -> "Faults":
        """A single fault as an exception."""
        return cls([Finding(where, what, hint)])


class ModelUnready(GdoError):
    """A model cannot answer here; the message says what would change that."""

    exit_status = 2


class RunFailed(GdoError):
    """A run ended without a whole result."""


class BudgetSpent(RunFailed):
    """A run stopped at a budget; replies so far are kept."""


class Stopped(RunFailed):
    """A run was interrupted by its user; replies so far are kept."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint naming the closest known word, or all of them when few.

    >>> nearest("promt", ["prompt", "output"])
    "did you mean 'prompt'?"
    >>> nearest("zzz", ["b", "a"])
    'known: a, b'
    """
    names: Sequence[str] = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6) or [
        name for name in names if name.lower() == word.lower()
    ]
    if close:
        return f"did you mean '{close[0]}'?"
    if not names:
        return ""
    shown = ", ".join(names[:20])
    return f"known: {shown}{', ...' if len(names) > 20 else ''}"  # noqa: PLR2004 (a line stays readable)

"""Who asks for what, where several runs share a cache: what one of them has sent is not sent by another.

A run that is alone writes nothing but one row, at its first request. When another one comes, each says in the cache what it
has in flight, asks for nothing that is there or is asked by others, and waits for it. A run that is killed leaves its claims
behind; it counts as dead, and the others take over, when its process is gone from this machine, or its pulse has stood still
for some seconds of their own clocks.
"""

import contextlib
import os
import socket
import sqlite3
import time
from collections.abc import Collection, Iterator, Sequence

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL, pulse INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS claims (key BLOB PRIMARY KEY, run INTEGER NOT NULL) WITHOUT ROWID",
)
LOOK_S = 0.25
"""Between two looks for others."""
SETTLE_S = 2 * LOOK_S
"""What a run that finds others waits before its first request: by then they have seen it, and said what they ask for."""
_PULSE_S = 1.0
_DEAD_S = 10.0
_REMEMBER_S = 60.0
"""For so long after others are gone, what is about to be asked is looked for once more: they may have stored it."""


class Claims:
    """The claims of one run, over a connection that only the thread of the calls uses.

    They spare calls and decide nothing else: where the file cannot be written, a run goes on as if it were alone.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._run = 0
        self._version = -1
        self._pulse = 0
        self._pulse_due = 0.0
        self._held: set[bytes] = set()
        """What is in flight."""
        self._told: set[bytes] = set()
        """What others can know of it."""
        self._others: dict[int, tuple[int, float]] = {}
        """The runs that live: their last pulse, and when it was first seen."""
        self._wary_until = 0.0

    def join(self) -> bool:
        """Make this run known; whether there are others, which need `SETTLE_S` to take notice."""
        with self._quietly():
            self._run = (
                self._connection.execute("INSERT INTO runs (place, pulse) VALUES (?, 0)", (here(),)).lastrowid or 0
            )
            self._look()
        return bool(self._others)

    def look(self) -> None:
        """Take notice of runs that have come or gone, and show others that this one lives; cheap where there is none."""
        if not self._run:
            return
        with self._quietly():
            if self._others or self._changed():
                self._look()
            if self._others and time.monotonic() >= self._pulse_due:
                self._pulse += 1
                self._pulse_due = time.monotonic() + _PULSE_S
                self._connection.execute(
                    "INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", (self._run, here(), self._pulse)
                )

    def take(self, keys: Sequence[bytes]) -> Collection[bytes]:
        """Of some keys those that this run is to ask for: not stored yet, and asked by no other run."""
        self.look()
        mine: Collection[bytes] = keys
        if time.monotonic() < self._wary_until:
            with self._quietly(), self._transaction():
                stored = self._stored(keys)
                mine = self._claim([key for key in keys if key not in stored])
        self._held.update(mine)
        return mine

    def give_back(self, keys: Collection[bytes], *, within: bool = False) -> None:
        """These are asked for no more; `within` a transaction that is open."""
        self._held.difference_update(keys)
        told = self._told.intersection(keys)
        if told:
            self._told -= told
            query = "DELETE FROM claims WHERE key = ? AND run = ?"
            with self._quietly(), contextlib.nullcontext() if within else self._transaction():
                self._connection.executemany(query, [(key, self._run) for key in told])

    def close(self) -> None:
        """Leave nothing behind."""
        if self._run:
            with self._quietly(), self._transaction():
                self._connection.execute("DELETE FROM claims WHERE run = ?", (self._run,))
                self._connection.execute("DELETE FROM runs WHERE id = ?", (self._run,))
            self._run = 0

    def _changed(self) -> bool:
        """Whether another connection has written since the last time."""
        before = self._version
        self._version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return self._version != before

    def _look(self) -> None:
        now = time.monotonic()
        seen: dict[int, tuple[int, float]] = {}
        dead = []
        for run, place, pulse in self._connection.execute("SELECT * FROM runs WHERE id <> ?", (self._run,)).fetchall():
            if is_gone(place):
                dead.append(run)
                continue
            before = self._others.get(run, (pulse, now))
            seen[run] = before if before[0] == pulse else (pulse, now)
        dead += [run for run, (_, since) in seen.items() if now - since > _DEAD_S]
        if dead:
            with self._transaction():
                for run in dead:
                    self._connection.execute("DELETE FROM claims WHERE run = ?", (run,))
                    self._connection.execute("DELETE FROM runs WHERE id = ?", (run,))
        new = seen.keys() - self._others.keys()
        self._others = {run: found for run, found in seen.items() if run not in dead}
        if self._others:
            self._wary_until = now + _REMEMBER_S
        if new and self._held:
            with self._transaction():
                self._claim(list(self._held))

    def _stored(self, keys: Sequence[bytes]) -> set[bytes]:
        marks = ",".join("?" * len(keys))
        return {key for (key,) in self._connection.execute(f"SELECT key FROM replies WHERE key IN ({marks})", keys)}

    def _claim(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of some keys that no other run has claimed, claimed."""
        rows = [(key, self._run) for key in keys]
        self._connection.executemany("INSERT OR IGNORE INTO claims VALUES (?, ?)", rows)
        found = (self._connection.execute("SELECT run FROM claims WHERE key = ?", (key,)).fetchone() for key in keys)
        mine = {key for key, run in zip(keys, found, strict=True) if run == (self._run,)}
        self._told |= mine
        return mine

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _quietly(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.suppress(sqlite3.DatabaseError)


def here() -> str:
    """This process, in a word that others can read."""
    return f"{socket.gethostname()} {os.getpid()}"


def is_gone(place: str) -> bool:
    """Whether a process of this machine, as `here` names it, does not live any more; of another machine nobody can tell.

    >>> is_gone(here()), is_gone(f"{socket.gethostname()} 999999999"), is_gone("elsewhere 999999999")
    (False, True, False)
    """
    host, _, process = place.rpartition(" ")
    if host != socket.gethostname() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False

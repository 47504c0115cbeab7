"""Replies on disk: the checkpoint of every run.

One SQLite file in WAL mode, so two runs may share it. A key is a digest of all that decides a reply; the value is the
reply as JSON with a checksum. No prompt and no secret is stored.
"""

import contextlib
import errno
import sqlite3
import threading
import time
import zlib
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Protocol

import orjson

from gdo.claims import SCHEMA as CLAIMS
from gdo.claims import Claims
from gdo.errors import Faults, RunFailed
from gdo.model import Reply, Usage

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS origins (id INTEGER PRIMARY KEY, model TEXT NOT NULL, step TEXT NOT NULL, "
    "UNIQUE (model, step))",
    "CREATE TABLE IF NOT EXISTS replies (key BLOB NOT NULL UNIQUE, origin INTEGER NOT NULL, reply BLOB NOT NULL, "
    "created INTEGER NOT NULL)",
)
HOME = ".gdo"
NAME = "cache.sqlite"
_CHUNK = 500
_PATIENCE_S = 60.0
"""Seconds to wait for another program that writes."""
_CHECKED = b"\x01"
"""The first byte of a reply with a checksum."""
CHECKPOINT_EVERY = 10_000
"""Replies between two checkpoints: a page that many of them touch is then copied into the file once."""

Stored = tuple[bytes, str, str, Reply]
"""Key, model, step, reply."""


class Sharing(Protocol):
    """How runs that use one cache at the same time know of each other."""

    def join(self) -> bool:
        """Let the others know of this run; whether there are any."""

    def look(self) -> None:
        """See who is there."""

    def take(self, keys: Sequence[bytes]) -> Collection[bytes]:
        """Of some keys those to ask for: the others are stored by now, or asked for by another run."""

    def give_back(self, keys: Collection[bytes], *, within: bool = False) -> None:
        """These keys are asked for no more."""


class Store(Protocol):
    """Where replies are kept: a file of this machine, or a server that many share."""

    waits: ClassVar[bool]
    """Whether `put` waits for a network, so that it must not hold up the event loop."""

    @property
    def claims(self) -> Sharing:
        """What this run asks for, for others to see."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """The replies that are there, by key."""

    def put(self, replies: Sequence[Stored]) -> None:
        """Store replies; they are safe when this returns."""

    def checkpoint(self) -> None:
        """Tidy up, where there is something to tidy."""

    def close(self) -> None:
        """Let it go."""


class Cache:
    """The replies in one file. `get` may be called from any thread, `put` and `checkpoint` from one each.

    Raises:
        Faults: the file is there but is no cache, or cannot be opened.
        RunFailed: the disk is full.
    """

    waits: ClassVar[bool] = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading = threading.Lock()
        self._origins: dict[tuple[str, str], int] = {}
        self.claims: Claims
        """What this run asks for, for others to see; used by the thread that puts."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writes, self._reads, self._tidies = self._open(), self._open(), self._open()
            self._tidies.execute("PRAGMA busy_timeout = 1000")  # where others read it, another time will do
            for statement in (*_SCHEMA, *CLAIMS):
                self._writes.execute(statement)
            self._reads.execute("SELECT key, origin, reply, created FROM replies LIMIT 1").fetchone()
            self.claims = Claims(self._writes)
        except (sqlite3.DatabaseError, OSError) as error:
            if getattr(error, "errno", 0) == errno.ENOSPC or any(
                word in str(error) for word in ("is full", "I/O error")
            ):
                raise RunFailed(f"{path}: cannot be opened: {error} (free some space and run again)") from None
            hint = "move the file away, or run with --no-cache"
            raise Faults.one(str(path), f"cannot be used as a cache: {error}", hint) from None

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_PATIENCE_S, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        return connection

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """The replies that are there, by key; one that is damaged is taken out.

        Raises:
            Faults: the file is damaged.
        """
        found: dict[bytes, Reply] = {}
        try:
            for start in range(0, len(keys), _CHUNK):
                chunk = keys[start : start + _CHUNK]
                query = f"SELECT key, reply FROM replies WHERE key IN ({_marks(len(chunk))})"
                with self._reading:
                    rows = self._reads.execute(query, chunk).fetchall()
                for key, blob in rows:
                    try:
                        found[key] = decode(blob)
                    except (ValueError, TypeError):  # damaged: it counts as missing, and another may take its place
                        with self._reading:
                            self._reads.execute("DELETE FROM replies WHERE key = ?", (key,))
        except sqlite3.DatabaseError as error:
            hint = "move the file away, or run with --no-cache"
            raise Faults.one(str(self.path), f"the cache cannot be read: {error}", hint) from None
        return found

    def put(self, replies: Sequence[Stored]) -> None:
        """Store replies in one transaction; they are on disk when this returns.

        Raises:
            RunFailed: the disk refused (full, read-only).
        """
        now = int(time.time())
        try:
            self._writes.execute("BEGIN IMMEDIATE")
            # Few statements of many rows: each one gives the interpreter away and must wait to get it back.
            for start in range(0, len(replies), _CHUNK):
                values: list[object] = []
                for key, model, step, reply in replies[start : start + _CHUNK]:
                    values += (key, self._origin(model, step), encode(reply), now)
                rows = ",".join(["(?,?,?,?)"] * (len(values) // 4))
                self._writes.execute(f"INSERT OR IGNORE INTO replies VALUES {rows}", values)
            self.claims.give_back([stored[0] for stored in replies], within=True)
            self._writes.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            self._origins.clear()
            if self._writes.in_transaction:
                self._writes.execute("ROLLBACK")
            hint = "another program holds it" if "locked" in str(error) else "free some space and run again"
            raise RunFailed(f"{self.path}: a reply could not be stored: {error} ({hint})") from None

    def checkpoint(self) -> None:
        """Copy the log into the file: it waits for the disk, so not where replies are waited for."""
        with contextlib.suppress(sqlite3.DatabaseError):  # the log just grows on
            self._tidies.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()  # nearly all, and nobody has to wait
            self._tidies.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()  # the rest, so that the log starts anew

    def _origin(self, model: str, step: str) -> int:
        if (model, step) not in self._origins:
            self._writes.execute("INSERT OR IGNORE INTO origins (model, step) VALUES (?, ?)", (model, step))
            query = "SELECT id FROM origins WHERE model = ? AND step = ?"
            self._origins[model, step] = self._writes.execute(query, (model, step)).fetchone()[0]
        return self._origins[model, step]

    def __len__(self) -> int:
        """How many replies it holds."""
        with self._reading:
            return int(self._reads.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self.claims.close()
        for connection in (self._tidies, self._reads, self._writes):
            connection.close()


@lru_cache(maxsize=_CHUNK)
def _marks(count: int) -> str:
    return ",".join("?" * count)


def encode(reply: Reply) -> bytes:
    """A reply as it is stored: a checksum, and JSON."""
    usage = reply.usage
    told = orjson.dumps([reply.text, reply.scores, usage.prompt_tokens, usage.completion_tokens, reply.ended])
    return _CHECKED + zlib.crc32(told).to_bytes(4) + told


def decode(blob: bytes) -> Reply:
    """A reply as it was stored.

    Raises:
        ValueError, TypeError: the bytes are no reply, or not those that were stored.
    """
    if blob[:1] == _CHECKED:
        if zlib.crc32(blob[5:]).to_bytes(4) != blob[1:5]:
            raise ValueError("its checksum is another")
        blob = blob[5:]
    text, scores, prompt_tokens, completion_tokens, *ended = orjson.loads(
        blob
    )  # one without checksum has no end either
    return Reply(text, tuple(scores), Usage(prompt_tokens, completion_tokens), ended=ended[0] if ended else "")

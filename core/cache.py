"""Replies on disk: the checkpoint of every run.

One SQLite file in WAL mode, so two runs may share it. A key is a digest of all that decides a reply; the value is the
reply as JSON. No prompt and no secret is stored.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson

from gdo.errors import Faults, RunFailed
from gdo.model import Reply, Usage

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY, model TEXT NOT NULL, step TEXT NOT NULL, reply BLOB NOT NULL, created INTEGER NOT NULL
) WITHOUT ROWID
"""
_CHUNK = 500


class Cache:
    """The replies in one file; used from one thread at a time.

    Raises:
        Faults: the file is there but is no cache, or cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=60, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute(_SCHEMA)
        except (sqlite3.DatabaseError, OSError) as error:
            hint = "move the file away, or run with --no-cache"
            raise Faults.one(str(path), f"cannot be used as a cache: {error}", hint) from None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """The replies that are there, by key."""
        found: dict[bytes, Reply] = {}
        try:
            for start in range(0, len(keys), _CHUNK):
                chunk = keys[start : start + _CHUNK]
                marks = ",".join("?" * len(chunk))
                rows = self._db.execute(f"SELECT key, reply FROM replies WHERE key IN ({marks})", chunk)
                found |= {key: _decode(blob) for key, blob in rows}
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            hint = "move the file away, or run with --no-cache"
            raise Faults.one(str(self.path), f"the cache cannot be read: {error}", hint) from None
        return found

    def put(self, replies: Iterable[tuple[bytes, str, str, Reply]]) -> None:
        """Store `(key, model, step, reply)` rows in one transaction; they are on disk when this returns.

        Raises:
            RunFailed: the disk refused (full, read-only).
        """
        now = int(time.time())
        rows = [(key, model, step, _encode(reply), now) for key, model, step, reply in replies]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", rows)
            self._db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise RunFailed(
                f"{self.path}: a reply could not be stored: {error} (free some space and run again)"
            ) from None

    def __len__(self) -> int:
        """How many replies it holds."""
        return int(self._db.execute("SELECT count(*) FROM replies").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _encode(reply: Reply) -> bytes:
    usage = reply.usage
    return orjson.dumps([reply.text, reply.scores, usage.prompt_tokens, usage.completion_tokens])


def _decode(blob: bytes) -> Reply:
    text, scores, prompt_tokens, completion_tokens = orjson.loads(blob)
    return Reply(text=text, scores=tuple(scores), usage=Usage(prompt_tokens, completion_tokens))

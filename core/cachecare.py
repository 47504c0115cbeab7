"""`gdo cache`: what a cache holds, by model and step; what is old goes, and what is damaged is found."""

import os
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gdo.cache import HOME, NAME, decode
from gdo.errors import Faults

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


@dataclass(frozen=True, slots=True)
class Part:
    """The replies of one model and step: how many, their bytes, and the times of the oldest and the newest."""

    model: str
    step: str
    replies: int
    size: int
    oldest: int
    newest: int


def find_cache(place: Path) -> Path:
    """The cache of a pipeline file, of its folder, or itself.

    Raises:
        Faults: there is none.
    """
    for found in (place / HOME / NAME, place.parent / HOME / NAME if place.is_file() else place / NAME):
        if found.is_file():
            return found
    if place.is_file() and place.suffix == ".sqlite":
        return place
    text = place.read_text("utf-8", errors="replace") if place.is_file() else ""
    if re.search(r"^cache:\s*[\"']?rediss?://", text, re.MULTILINE):
        raise Faults.one(str(place), "its replies are kept by a Redis server", "`gdo cache` reads files alone")
    raise Faults.one(str(place), "no cache here", "name a pipeline file, its folder, or a cache.sqlite")


def seconds(text: str) -> int:
    """An age such as `30d` in seconds.

    Raises:
        Faults: it is none.

    >>> seconds("2h"), seconds("30d")
    (7200, 2592000)
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None:
        raise Faults.one("--older-than", f"'{text}' is no age", "for example 30d, 12h or 2w")
    return int(found[1]) * _UNITS[found[2]]


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    # What lies on a medium that cannot be written is read as it is: SQLite would put files beside it.
    fixed = "" if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK) else "?mode=ro&immutable=1"
    place = f"{path.absolute().as_uri()}{fixed}"
    try:
        with closing(sqlite3.connect(place, timeout=60, isolation_level=None, uri=True)) as connection:
            yield connection
    except sqlite3.DatabaseError as error:
        raise Faults.one(str(path), f"is not a cache that can be read: {error}", "move the file away") from None


def parts(path: Path) -> list[Part]:
    """What a cache holds, the largest part first."""
    query = (
        "SELECT model, step, count(*), sum(length(reply) + length(key)), min(created), max(created) "
        "FROM replies JOIN origins ON origins.id = origin GROUP BY model, step ORDER BY 4 DESC"
    )
    with _opened(path) as connection:
        return [Part(*row) for row in connection.execute(query)]


def prune(path: Path, *, older_than_s: int | None = None, model: str | None = None, step: str | None = None) -> int:
    """Remove the replies that meet all conditions that are given, and give the room back; how many they were.

    A model is named as `parts` shows it, or by a piece of that name.
    """
    conditions: list[tuple[str, object]] = []
    if older_than_s is not None:
        conditions.append(("created < ?", int(time.time()) - older_than_s))
    if model is not None:
        conditions.append(("origin IN (SELECT id FROM origins WHERE instr(model, ?) > 0)", model))
    if step is not None:
        conditions.append(("origin IN (SELECT id FROM origins WHERE step = ?)", step))
    chosen = " AND ".join(condition for condition, _ in conditions)
    with _opened(path) as connection:
        removed = connection.execute(f"DELETE FROM replies WHERE {chosen}", [value for _, value in conditions]).rowcount
        connection.execute("DELETE FROM origins WHERE id NOT IN (SELECT DISTINCT origin FROM replies)")
        connection.execute("VACUUM")
    return int(removed)


def verify(path: Path) -> tuple[int, list[str]]:
    """How many replies are whole, and what is wrong with the rest and with the file."""
    whole, faults = 0, []
    with _opened(path) as connection:
        try:
            faults += [str(line) for (line,) in connection.execute("PRAGMA integrity_check") if line != "ok"]
            for key, blob in connection.execute("SELECT key, CAST(reply AS BLOB) FROM replies"):
                try:
                    decode(blob)
                    whole += 1
                except (ValueError, TypeError) as error:
                    faults.append(f"reply {key.hex()}: {error} (the next run that wants it asks again)")
        except sqlite3.DatabaseError as error:
            faults.append(f"{error} (move the file away)")
    return whole, faults


def table(found: Sequence[Part]) -> str:
    """The parts of a cache as a table."""
    header = ("model", "step", "replies", "MB", "oldest", "newest")
    day = [time.strftime("%Y-%m-%d", time.localtime(moment)) for part in found for moment in (part.oldest, part.newest)]
    rows = [header] + [
        (part.model, part.step, f"{part.replies:,}", f"{part.size / 1e6:,.1f}", day[2 * i], day[2 * i + 1])
        for i, part in enumerate(found)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    right = {2, 3}
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )

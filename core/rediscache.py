"""Replies in a Redis server: one cache for all workers of a cluster (`cache: redis://host:6379/0`; package redis)."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from gdo.cache import Cache, Sharing, Store, Stored, decode, encode
from gdo.errors import Faults, RunFailed
from gdo.model import Reply

SCHEMES = ("redis://", "rediss://", "unix://")
PREFIX = b"gdo:"
TIMEOUT_S = 30.0
_CHUNK = 500


class Alone:
    """Runs that share a server know nothing of each other while they run: what two ask at the same moment is asked twice."""

    def join(self) -> bool:
        """There is nobody that is known."""
        return False

    def look(self) -> None:
        """There is nobody to see."""

    def take(self, keys: Sequence[bytes]) -> Collection[bytes]:
        """All of them."""
        return keys

    def give_back(self, keys: Collection[bytes], *, within: bool = False) -> None:
        """Nobody waits."""


class RedisCache:
    """The replies in one database of a server; `get` and `put` may be called from any thread.

    A key is `gdo:` and the same digest as in a file, the value a reply as JSON. What is there already stays.

    Raises:
        Faults: the package is not installed, the URL is none, or the server cannot be reached.
    """

    waits: ClassVar[bool] = True

    claims: Sharing

    def __init__(self, url: str) -> None:
        self.url = url
        self.claims = Alone()
        try:
            import redis
        except ImportError:
            raise Faults.one("cache", "the package redis is not installed", 'pip install "gdo[redis]"') from None
        self._faults: type[Exception] = redis.RedisError
        try:
            self._server: Any = redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
            self._server.ping()
        except (redis.RedisError, ValueError, OSError) as error:
            hint = "is the server up, and the URL right? or run with --no-cache"
            raise Faults.one("cache", f"{shown(url)} cannot be used: {error}", hint) from None

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Reply]:
        """The replies that are there, by key; one that is damaged is taken out.

        Raises:
            RunFailed: the server cannot be reached.
        """
        found: dict[bytes, Reply] = {}
        try:
            for start in range(0, len(keys), _CHUNK):
                chunk = keys[start : start + _CHUNK]
                for key, value in zip(chunk, self._server.mget([PREFIX + key for key in chunk]), strict=True):
                    if value is None:
                        continue
                    try:
                        found[key] = decode(value)
                    except (ValueError, TypeError):  # damaged: it counts as missing, and another may take its place
                        self._server.delete(PREFIX + key)
        except (self._faults, OSError) as error:
            raise RunFailed(f"the cache {shown(self.url)} cannot be read: {error}") from None
        return found

    def put(self, replies: Sequence[Stored]) -> None:
        """Store replies in one exchange; the server has them when this returns.

        Raises:
            RunFailed: the server refused, or cannot be reached.
        """
        try:
            with self._server.pipeline(transaction=False) as exchange:
                for key, _, _, reply in replies:
                    exchange.set(PREFIX + key, encode(reply), nx=True)
                exchange.execute()
        except (self._faults, OSError) as error:
            raise RunFailed(f"a reply could not be stored in the cache {shown(self.url)}: {error}") from None

    def checkpoint(self) -> None:
        """The server tidies up by itself."""

    def __len__(self) -> int:
        """How many replies it holds."""
        return sum(1 for _ in self._server.scan_iter(PREFIX + b"*", count=10_000))

    def close(self) -> None:
        """Hang up."""
        self._server.close()


def open_store(place: str | None) -> Store | None:
    """The cache of a file or a URL; none for None.

    Raises:
        Faults: it cannot be used.
    """
    if place is None:
        return None
    return RedisCache(place) if place.startswith(SCHEMES) else Cache(Path(place))


def shown(url: str) -> str:
    """A URL without what must not be seen in it.

    >>> shown("redis://user:secret@host:6379/0")
    'redis://host:6379/0'
    """
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()

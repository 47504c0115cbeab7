"""Posts over connections that stay open: aiohttp's connector, TLS and parser, without what a session does for each request.

A session makes a request, a task that writes it, a response and timers for every call, which takes longer than all the rest
where a server answers at once. Here the head of a request is bytes that are made once, and head and body go out in one write.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from gdo.protocol import asked_wait_s, read_some

LONGEST_REPLY = 4 << 20
_IDLE_S = 15.0
"""Seconds after which an idle connection is not trusted any more: what stands between may have forgotten it."""
_DONE = 200
_MOVED = {307, 308}
_FIRST_MOVED, _FIRST_REFUSED = 300, 400


class Away(Exception):
    """Nobody is there to connect to."""


class Broken(Exception):
    """The connection broke before the answer was whole, or what came over it is no HTTP."""


class Stale(Exception):
    """A connection that had been used before was closed without a word, which is the server's right: not a fault of it."""


class Answer(NamedTuple):
    """What a server said: a status, and its body, of one that is too long a little more than `LONGEST_REPLY`."""

    status: int
    raw: bytes
    wait_s: float = 0.0
    """How long it wants to be left alone, as far as it says so."""


class Wires:
    """What the connections of one model share; made in the event loop that they belong to."""

    def __init__(self, key: str, connect_timeout_s: float) -> None:
        import aiohttp

        self.headers = {"Content-Type": "application/json"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"
        self.connect_timeout_s = connect_timeout_s
        self.unreached = (aiohttp.ClientConnectorError, TimeoutError)
        self.broken = (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError)
        self.endless = aiohttp.TooManyRedirects
        self.dropped = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s)
        self.session = aiohttp.ClientSession(
            headers=self.headers,
            timeout=timeout,
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),  # who asks keeps to a window
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._all: list[Wire] = []

    def to(self, url: str) -> "Wire":
        """The wire to a URL."""
        self._all.append(Wire(self, url))
        return self._all[-1]

    async def close(self) -> None:
        """Close all connections."""
        for wire in self._all:
            wire.close()
        await self.session.close()


class Wire:
    """Posts to one URL."""

    def __init__(self, wires: Wires, url: str) -> None:
        import aiohttp
        import yarl

        self._wires = wires
        self._url = yarl.URL(url)
        self._session: Any = wires.session
        # What a connector wants to know of a request, its place; this one is never sent.
        self._place = aiohttp.ClientRequest("POST", self._url, session=self._session)
        lines = {"Host": self._place.headers["Host"], "Accept": "*/*", "Accept-Encoding": "identity", **wires.headers}
        told = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._head = f"POST {self._url.raw_path_qs} HTTP/1.1\r\n{told}Content-Length: ".encode()
        self._idle: list[tuple[Any, float]] = []

    async def post(self, body: bytes, *, anew: bool = False) -> Answer:
        """Send a body and take the answer; `anew` over a new connection.

        Raises:
            Away, Broken, Stale: there is none.
        """
        wires = self._wires
        used = None if anew else self._used()
        try:
            connection = used or await self._session.connector.connect(self._place, [], self._session.timeout)
            return await self._exchange(connection, body, used=used is not None)
        except wires.unreached as error:
            why = f"none within {wires.connect_timeout_s:g} s"
            if not isinstance(error, TimeoutError):
                why = (
                    error.os_error.strerror
                    or str(error.os_error)
                    or "it speaks no TLS (http:// in the place of https://?)"
                )
            raise Away(f"cannot connect: {why}") from None
        except wires.endless:
            raise Broken("it sends its clients round in a circle") from None
        except wires.broken as error:
            raise Broken(" ".join(str(error).split()) or type(error).__name__) from None

    async def _exchange(self, connection: Any, body: bytes, *, used: bool) -> Answer:
        protocol = connection.protocol
        try:
            protocol.set_response_params(read_until_eof=True)
            connection.transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
            try:
                message, content = await protocol.read()
            except self._wires.dropped as error:
                raise Stale(str(error)) if used else error from None
            while message.code < _DONE:  # "go on", "wait": the answer comes after it
                message, content = await protocol.read()
            raw = content.read_nowait() if content.is_eof() else await read_some(content, LONGEST_REPLY)
        except BaseException:
            connection.close()
            raise
        if protocol.should_close:
            connection.close()
        else:
            self._idle.append((connection, time.monotonic()))
        if message.code == _DONE:
            return Answer(_DONE, raw)
        if message.code in _MOVED:
            return await self._follow(body)
        return _answer(message.code, raw, message.headers)

    def _used(self) -> Any:
        """The connection that was used last, if one is still open."""
        while self._idle:
            connection, since = self._idle.pop()
            if connection.protocol.is_connected() and time.monotonic() - since < _IDLE_S:
                return connection
            connection.close()
        return None

    async def _follow(self, body: bytes) -> Answer:
        """The answer of the place to which a server sends its clients."""
        async with self._session.post(self._url, data=body) as answer:
            raw = await read_some(answer.content, LONGEST_REPLY)
            return _answer(answer.status, raw, answer.headers)

    def close(self) -> None:
        """Close the connections that wait."""
        for connection, _ in self._idle:
            connection.close()


def _answer(status: int, raw: bytes, headers: Mapping[str, str]) -> Answer:
    if _FIRST_MOVED <= status < _FIRST_REFUSED:
        raw = f"moved to {headers.get('Location', 'another place')}".encode()
    return Answer(status, raw, asked_wait_s(headers))

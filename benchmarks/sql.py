"""100,000 rows with 500 distinct inputs through a server of 20 ms, 64 in flight: `gdo.sql` beside the plain function.

    python benchmarks/sql.py [--rows N] [--distinct N] [--rounds N]

The floor is the calls alone (inputs x 20 ms / 64) and the query's own time: the same query again, when every answer is
known; a second line has that of its first run on a connection, when nothing is known but the replies in the cache. Beside
it stands a bare aiohttp loop that posts as many bodies to the same server. Each side of a round is a fresh process with an
empty cache and its connections open; the best round counts, since all of them share the machine.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import duckdb
import orjson

sys.path.insert(0, str(Path(__file__).parent))
from figure import Figure, show
from loopback import running

import gdo

WINDOW = 64
LATENCY_MS = 20
QUERY = "SELECT id, prompt('Brand as entered: {{ brand }}', {brand: brand}) AS name FROM t"
CHEAP = "SELECT id FROM t WHERE ask_bool('Is it food? {{ brand }}', {brand: brand}) AND id % 10 = 0"


def connected(url: str, rows: int, distinct: int, folder: str) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    made = f"SELECT i AS id, 'brand ' || (i * 7919 % {distinct}) AS brand FROM range({rows}) r(i)"
    con.execute(f"CREATE TABLE t AS {made}").fetchall()
    model = {"backend": "endpoint", "url": f"{url}/v1", "model": "loopback", "concurrency": WINDOW}
    gdo.register(con, models={"m": model}, folder=folder)
    return con


def one_run(side: str, url: str, rows: int, distinct: int) -> dict[str, float]:
    """The seconds and the calls of a side."""
    with tempfile.TemporaryDirectory() as folder:
        if side == "first":  # by another connection, and not as the same text: nothing is known but the replies
            gdo.sql(connected(url, rows, distinct, folder), f"\n{QUERY}")
        con = connected(url, rows, distinct, folder)
        gdo.sql(con, f"SELECT prompt('{{{{ n }}}}', {{n: i}}) FROM range({WINDOW * 2}) r(i)")  # opens the connections
        if side == "own":
            gdo.sql(con, QUERY)
        before = count(url)
        started = time.perf_counter()
        query = CHEAP if side == "cheap" else QUERY
        table = con.sql(query).to_arrow_table() if side == "plain" else gdo.sql(con, query).table
        seconds = time.perf_counter() - started
        assert side == "cheap" or table.num_rows == rows
        return {"seconds": seconds, "calls": count(url) - before}


async def bare(url: str, distinct: int) -> dict[str, float]:
    """The seconds of a loop that does nothing but post."""
    import aiohttp

    async def work(session: aiohttp.ClientSession, numbers: Iterator[int]) -> None:
        for number in numbers:
            messages = [{"role": "user", "content": f"Brand as entered: brand {number}"}]
            body = orjson.dumps({"temperature": 0.0, "max_tokens": 256, "model": "loopback", "messages": messages})
            async with session.post(f"{url}/v1/chat/completions", data=body) as reply:
                orjson.loads(await reply.read())

    connector = aiohttp.TCPConnector(limit=WINDOW)
    async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}, connector=connector) as session:
        for size in (WINDOW * 2, distinct):
            started = time.perf_counter()
            numbers = iter(range(size))
            await asyncio.gather(*(work(session, numbers) for _ in range(WINDOW)))
    return {"seconds": time.perf_counter() - started, "calls": distinct}


def count(url: str) -> int:
    with urllib.request.urlopen(f"{url}/count") as answer:  # noqa: S310 (loopback)
        return int(answer.read())


def figures(rows: int = 100_000, distinct: int = 500, rounds: int = 5) -> Iterator[Figure]:
    """`gdo.sql` and the plain function over the same rows, and a cheap condition beside a prompt."""
    best: dict[str, dict[str, float]] = {}
    with running("--latency-ms", LATENCY_MS) as url:
        for _ in range(rounds):
            for side in ("own", "first", "bare", "sql", "plain", "cheap"):
                command = [sys.executable, __file__, "--side", side, url, str(rows), str(distinct)]
                found = json.loads(subprocess.check_output(command))
                best[side] = min(best.get(side, found), found, key=lambda one: one["seconds"])
    floor = distinct * LATENCY_MS / 1000 / WINDOW + best["own"]["seconds"]
    told = {side: f"{one['seconds']:.3f} s, {one['calls']:,.0f} calls" for side, one in best.items()}
    shown = f"{floor:.3f} s ({distinct} x {LATENCY_MS} ms / {WINDOW}, and {best['own']['seconds']:.3f} s)"
    first = floor - best["own"]["seconds"] + best["first"]["seconds"]
    name = f"{rows:,} rows, {distinct} inputs"
    yield Figure(f"gdo.sql, {name}", told["sql"], shown, f"{best['sql']['seconds'] / floor:.2f}", "1.15")
    told_first = f"{first:.3f} s (the same, and {best['first']['seconds']:.3f} s)"
    yield Figure("beside its own first run", told["sql"], told_first, f"{best['sql']['seconds'] / first:.2f}", "")
    yield Figure(f"plain function, {name}", told["plain"], shown, f"{best['plain']['seconds'] / floor:.2f}", f"{distinct} calls")
    loop = best["bare"]["seconds"] + best["own"]["seconds"]
    told_loop = f"{loop:.3f} s (a bare loop of {distinct} calls, and {best['own']['seconds']:.3f} s)"
    yield Figure("gdo.sql beside a bare loop", told["sql"], told_loop, f"{best['sql']['seconds'] / loop:.2f}", "")
    passing = len({i * 7919 % distinct for i in range(0, rows, 10)})
    yield Figure("beside a cheap condition", told["cheap"], f"{passing} inputs pass it", "", f"{passing} calls")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--distinct", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        side, url, rows, distinct = options.side
        found = asyncio.run(bare(url, int(distinct))) if side == "bare" else one_run(side, url, int(rows), int(distinct))
        print(json.dumps(found))
        return
    show(figures(options.rows, options.distinct, options.rounds))


if __name__ == "__main__":
    main()

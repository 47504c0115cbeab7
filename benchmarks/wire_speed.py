"""Rows/s through a server that answers at once: `op: map` beside a bare aiohttp loop that posts the same bodies.

    python benchmarks/wire_speed.py [--rows N] [--rounds N]

Server and client have a process each, 64 requests in flight; the sides alternate, each round in a fresh process, and
the ratio is that of the medians. The bare loop posts ready-made bodies and parses the replies; gdo reads a table, renders,
looks into its cache, posts, parses, stores every reply on disk and writes a parquet file.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import orjson
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parent))
from figure import Figure, show
from loopback import running

from gdo.api import Options, load

WINDOW = 64
PROMPT = "Product: {{ title }}\nBrand as entered: {{ brand }}"
OUTPUT = {"typed": {"brand": "string", "size_ml": "number", "food": "boolean"}, "untyped": {"text": "string"}}


def rows(size: int) -> pa.Table:
    return pa.table({"title": [f"product number {i}, 500 ml bottle" for i in range(size)], "brand": ["ACME inc."] * size})


def pipeline(folder: Path, url: str, kind: str) -> Path:
    path = folder / "pipeline.yaml"
    structured = kind == "typed"
    models = {"m": {"backend": "endpoint", "url": url, "model": "loopback", "concurrency": WINDOW, "structured": structured}}
    step = {"op": "map", "model": "m", "prompt": PROMPT, "output": OUTPUT[kind]}
    path.write_text(json.dumps({"models": models, "source": {"path": "unused.csv"}, "steps": [step]}))
    return path


def through_gdo(url: str, kind: str, size: int) -> dict[str, float]:
    table = rows(size)
    with tempfile.TemporaryDirectory() as folder:
        made = load(pipeline(Path(folder), url, kind), source=table)
        wall, cpu = time.perf_counter(), time.process_time()
        run = made.run(Options())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert run.table().num_rows == size
        assert run.errors().num_rows == 0
        assert run.report["map"]["calls"] == size
    return {"rate": size / wall, "cpu_ms": cpu * 1000 / size}


def schema(kind: str) -> dict[str, object]:
    properties = {name: {"type": word} for name, word in OUTPUT[kind].items()}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


async def bare(url: str, kind: str, size: int) -> dict[str, float]:
    import aiohttp

    bodies = []
    for row in rows(size).to_pylist():
        content = f"Product: {row['title']}\nBrand as entered: {row['brand']}"
        body = {"temperature": 0.0, "max_tokens": 256, "model": "loopback", "messages": [{"role": "user", "content": content}]}
        if kind == "typed":
            body["response_format"] = {
                "type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema(kind)}
            }  # fmt: skip
        else:  # as gdo tells a server that is not asked to hold the reply to a schema
            told = orjson.dumps(schema("untyped")).decode()
            said = f"Answer with one JSON object that fulfils this JSON Schema, and nothing else: {told}"
            body["messages"].insert(0, {"role": "system", "content": said})
        bodies.append(orjson.dumps(body))
    waiting, answers = iter(bodies), []

    async def work(session: aiohttp.ClientSession) -> None:
        for body in waiting:
            async with session.post(f"{url}/v1/chat/completions", data=body) as reply:
                said = orjson.loads(await reply.read())["choices"][0]["message"]["content"]
                answers.append(orjson.loads(said) if kind == "typed" else said)

    wall, cpu = time.perf_counter(), time.process_time()
    connector = aiohttp.TCPConnector(limit=WINDOW)
    async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}, connector=connector) as session:
        await asyncio.gather(*(work(session) for _ in range(WINDOW)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert len(answers) == size
    return {"rate": size / wall, "cpu_ms": cpu * 1000 / size}


def one_side(side: str, url: str, kind: str, size: int) -> dict[str, float]:
    return through_gdo(f"{url}/v1", kind, size) if side == "gdo" else asyncio.run(bare(url, kind, size))


def figures(size: int = 20_000, rounds: int = 3) -> Iterator[Figure]:
    """Typed and untyped answers beside the bare loop, and what a request carries beyond its prompt and schema."""
    with running() as url:
        for kind, asked in (("typed", "0.60"), ("untyped", "0.65")):
            found: dict[str, list[dict[str, float]]] = {"bare": [], "gdo": []}
            for _ in range(rounds):
                for side, results in found.items():
                    command = [sys.executable, __file__, "--rows", str(size), "--side", side, url, kind]
                    results.append(json.loads(subprocess.check_output(command)))
            middle = {side: {key: statistics.median(r[key] for r in rs) for key in rs[0]} for side, rs in found.items()}
            told = {side: f"{m['rate']:,.0f} rows/s, {m['cpu_ms']:.3f} ms CPU a row" for side, m in middle.items()}
            ratio = middle["gdo"]["rate"] / middle["bare"]["rate"]
            yield Figure(f"{kind}, no latency", told["gdo"], told["bare"], f"{ratio:.2f}", f"{asked}, 0.2 ms")
        text = len(f"Product: {rows(1)['title'][0]}\nBrand as entered: {rows(1)['brand'][0]}")
        for kind, shown in (("typed", 0), ("untyped", len(orjson.dumps(schema("untyped"))))):
            through_gdo(f"{url}/v1", kind, 1)
            with urllib.request.urlopen(f"{url}/last") as answer:  # noqa: S310 (loopback)
                said = sum(len(message["content"]) for message in orjson.loads(answer.read())["messages"])
            tax, needed = f"+{said - text - shown} bytes", f"{text + shown} (prompt, schema)"
            yield Figure(f"text that the model reads, {kind}", f"{said} bytes", needed, tax, "+150 bytes")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(one_side(*options.side, options.rows)))
        return
    show(figures(options.rows, options.rounds))


if __name__ == "__main__":
    main()

"""Typed answers of the local model through `op: map`, beside the bare engine with the same prompts and grammar.

    python benchmarks/typed_throughput.py [--data FILE] [--rows N] [--rounds N]

Both load the model before the clock starts, keep eight requests in flight and take the same names; the rounds
alternate, and the ratio is that of the medians. `FILE` is a jsonl file with `product_name`.
"""

import argparse
import statistics
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pyarrow as pa
import xllamacpp
import yaml

from gdo import weights
from gdo.api import Options, load
from gdo.grammar import grammar

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "open-food-facts-sample" / "products.jsonl"
SLOTS = 8
CONTEXT = 1024
STEP = {
    "op": "map",
    "model": "small",
    "prompt": "Product: {{ product_name }}",
    "output": {"flavor": "string", "size_text": "string"},
    "max_tokens": 64,
    "examples": [
        {"in": {"product_name": "VANILLA YOGURT 32OZ"}, "out": {"flavor": "vanilla", "size_text": "32 oz"}},
        {"in": {"product_name": "Lemon Tea, 500 ml"}, "out": {"flavor": "lemon", "size_text": "500 ml"}},
        {"in": {"product_name": "White Bread"}, "out": {"flavor": "plain", "size_text": ""}},
    ],
}


def bare(prompts: list[str], text_of: str) -> tuple[float, int]:
    """Rows/s and tokens of the engine alone."""
    params = xllamacpp.CommonParams()
    params.model.path = str(weights.pull("smollm2-135m", print))
    params.n_parallel, params.n_ctx, params.cache_ram_mib, params.verbosity = SLOTS, SLOTS * CONTEXT, 0, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    server = xllamacpp.Server(params)

    def one(prompt: str) -> int:
        job = {"prompt": prompt, "grammar": text_of, "max_tokens": 64, "temperature": 0.0, "cache_prompt": True, "seed": 0}
        return int(server.handle_completions(job)["usage"]["completion_tokens"])

    one(prompts[0])
    started = time.perf_counter()
    with ThreadPoolExecutor(SLOTS) as pool:
        tokens = sum(pool.map(one, prompts))
    return len(prompts) / (time.perf_counter() - started), tokens


def through_gdo(names: list[str], folder: Path) -> tuple[float, int]:
    """Rows/s and tokens of `op: map`; the time from the first prompt rendered to the last row written, load apart."""
    models = {"small": {"backend": "local", "context": CONTEXT, "slots": SLOTS, "threads": 2}}
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"models": models, "source": {"path": "unused.csv"}, "steps": [STEP]}))
    started = time.perf_counter()
    run = load(path, source=pa.table({"product_name": names})).run(Options(cache=False))
    wall = time.perf_counter() - started
    empty = time.perf_counter()
    load(path, source=pa.table({"product_name": names[:1]})).run(Options(cache=False))
    start_up = time.perf_counter() - empty
    return (len(names) - 1) / (wall - start_up), int(str(run.report["map"]["completion_tokens"]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rows", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not options.data.is_file():
        sys.exit(f"{options.data}: no such file (give --data FILE)")
    query = "SELECT DISTINCT product_name FROM read_json(?, format = 'newline_delimited') WHERE product_name <> '' ORDER BY 1"
    rows = duckdb.execute(query, [str(options.data)]).fetchall()
    names = [row[0] for row in rows[:: max(1, len(rows) // options.rows)]][: options.rows]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        through_gdo(names[:2], folder)
        udp = load(folder / "pipeline.yaml", source=pa.table({"product_name": names})).spec.steps[0].op.compiled  # type: ignore[attr-defined]
        prompts = [udp.head("plain").text + udp.body(udp.render({"product_name": name}), "plain") for name in names]
        rule = grammar(udp.output, plain=True)
        figures: dict[str, list[float]] = {"bare engine": [], "op: map": []}
        tokens = dict.fromkeys(figures, 0)
        for _ in range(options.rounds):
            for name, (pace, spent) in (
                ("bare engine", bare(prompts, rule)),
                ("op: map", through_gdo(names, folder)),
            ):
                figures[name].append(pace)
                tokens[name] = spent
    print(f"{len(names)} names, {SLOTS} in flight, median of {options.rounds} rounds")
    for name, paces in figures.items():
        print(f"{name:<12} {statistics.median(paces):6.2f} rows/s   {tokens[name]} tokens   {[round(p, 2) for p in paces]}")
    print(f"ratio        {statistics.median(figures['op: map']) / statistics.median(figures['bare engine']):6.2f}")


if __name__ == "__main__":
    main()

"""What the bundled model is worth on an easy classification: accuracy and rows/s of `op: classify` on food names.

    python benchmarks/label_accuracy.py [--data FOLDER] [--seeds N]

`FOLDER` holds `labels.csv` (product_name, category). One example each category; by default the first of each in the
file, then N random draws. The cache is off, so every figure is the model's own.
"""

import argparse
import csv
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import yaml

import gdo

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "food-labels"


def draw(rows: list[dict[str, str]], seed: int) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """One example of each category, and the rest; seed 0 takes them in the order of the file."""
    order = rows[:] if seed == 0 else random.Random(seed).sample(rows, len(rows))
    shown: dict[str, dict[str, str]] = {}
    for row in order:
        shown.setdefault(row["category"], row)
    examples = [shown[label] for label in sorted(shown)]
    return examples, [row for row in order if row not in examples]


def classify(folder: Path, examples: list[dict[str, str]], rest: list[dict[str, str]]) -> tuple[float, float]:
    """Accuracy, and rows/s with the load of the model and the calibration counted in."""
    step = {
        "op": "classify", "text": "{{ product_name }}", "into": "category", "labels": [e["category"] for e in examples],
        "examples": [{"in": {"product_name": e["product_name"]}, "out": e["category"]} for e in examples],
    }  # fmt: skip
    path = folder / "pipeline.yaml"
    path.write_text(yaml.safe_dump({"source": {"path": "unused.csv"}, "steps": [step]}))
    table = pa.table({"product_name": [row["product_name"] for row in rest]})
    run = gdo.run(path, source=table, cache=False)
    said = run.table().column("category").to_pylist()
    right = sum(answer == row["category"] for answer, row in zip(said, rest, strict=True))
    return right / len(rest), len(rest) / float(str(run.report["classify"]["seconds"]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    if not (options.data / "labels.csv").is_file():
        sys.exit(f"{options.data}: no labels.csv there (give --data FOLDER)")
    rows = list(csv.DictReader((options.data / "labels.csv").open(encoding="utf-8")))
    accuracies = []
    print(f"{len(rows)} names, {len({row['category'] for row in rows})} categories, one example each")
    print("draw   accuracy   rows/s   seconds")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds + 1):
            examples, rest = draw(rows, seed)
            started = time.perf_counter()
            accuracy, pace = classify(Path(folder), examples, rest)
            accuracies.append(accuracy)
            print(f"{seed:>4}   {accuracy:8.3f}   {pace:6.1f}   {time.perf_counter() - started:7.1f}", flush=True)
    print(f"mean   {statistics.mean(accuracies):8.3f}")


if __name__ == "__main__":
    main()

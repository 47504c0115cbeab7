"""What weighing votes gains over the best single model: on recorded answers of real models, no model is called.

    python benchmarks/ensemble.py [textclass|few|pae|safety|crowd|scale ...] [--splits 20]

Each split puts half of the items (or 50) into the gold rows, and measures on the rest. The best single model is the one
that is best in hindsight: whose mean over the measured parts is highest. Reads ../shared/data.
"""

import argparse
import random
import resource
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from gdo.voting.dawid_skene import dawid_skene, decide_by
from gdo.voting.fit import fit
from gdo.voting.rules import f1, outcomes, single
from gdo.voting.votes import Votes, votes_of
from gdo.voting.weighted import decide, iwmv, majority

DATA = Path(__file__).parents[2] / "shared" / "data"
METHODS = ("majority", "iwmv", "confusion", "stack", "auto")
POLICY = [f"policy_{language}" for language in ("DA", "EN", "ES", "FR", "HU", "IT", "NL", "PT")]
SMALL = ["qwen2.5_14b", "glm4", "gemma2", "gemma3_12b", "gpt-4.1-nano-2025-04-14", "gemini-1.5-flash-8b",
         "pixtral-12b-2409", "qwen2.5", "tulu3", "mistral-openorca", "gemma3", "exaone3.5", "mistral-small",
         "gpt-3.5-turbo-0125", "nous-hermes2", "marco-o1"]  # fmt: skip
SMALLER = ["gemma2", "qwen2.5", "gemma3", "aya-expanse", "tulu3", "mistral-nemo", "glm4", "exaone3.5"]
FRONTIER = ["o1-2024-12-17", "o3-2025-04-16", "gpt-4o-2024-05-13", "gpt-4.5-preview-2025-02-27", "grok-3-beta",
            "deepseek-reasoner", "claude-3-7-sonnet-20250219", "gemini-1.5-pro", "llama3.1_405b", "mistral-large-2411",
            "gpt-4.1-2025-04-14", "grok-3-mini-beta", "o4-mini-2025-04-16", "gemini-2.0-flash", "deepseek-chat",
            "gpt-4-turbo-2024-04-09"]  # fmt: skip
MIXED = ["gpt-4o-2024-11-20", "deepseek-chat", "claude-3-5-haiku-20241022", "llama3.1_70b", "gemini-1.5-flash",
         "mistral-large-2411", "qwen2.5_32b", "gemma2_27b", "glm4", "gemma2", "mistral-small", "gpt-4o-mini-2024-07-18",
         "tulu3_70b", "hermes3_70b", "pixtral-large-2411", "athene-v2"]  # fmt: skip
WEAK = ["qwen2.5", "gemma3", "exaone3.5", "mistral-nemo", "aya-expanse", "tulu3"]
SAFETY = {
    "o1 and six weak": ["o1-2024-12-17", *WEAK],
    "gpt-4o and six weak": ["gpt-4o-2024-05-13", *WEAK],
    "o3 and two weak": ["o3-2025-04-16", "mistral-nemo", "aya-expanse"],
    "gpt-4o and four very weak": ["gpt-4o-2024-05-13", "llama3.2", "phi4-mini", "granite3.2", "dolphin3"],
}
_4O, _R = "gpt-4o-2024-08-06|", "|r1|"
PAE = {
    ("ae-110k", "three models"): [f"gpt-4-0613|fs10-schema-train0.2{_R}", f"{_4O}03_fs_extraction_shots_10{_R}",
                                  f"gpt-3.5-turbo-0613|fs10-list{_R}"],
    ("ae-110k", "seven runs"): [f"gpt-4-0613|fs10-schema-train0.2{_R}", f"{_4O}04a_fs_extraction_10__ex_val_short_desc_5{_R}",
                                f"{_4O}03_fs_extraction_shots_10{_R}", f"gpt-3.5-turbo-0613|fs10-list{_R}",
                                f"ft-gpt-4o-AcG2dBat|01_zs_extraction{_R}",
                                f"{_4O}05_zs_extraction_ex_val_short_desc_5_rewrite_desc{_R}",
                                f"{_4O}09_few_shot_extraction_ex_val_short_desc_5_rewrite_desc_shots_10{_R}"],
    ("ae-110k", "one model, no examples"): [f"{_4O}01_zs_extraction{_R}", f"{_4O}02_zs_extraction_ex_val_short_desc_5{_R}",
                                            f"{_4O}05_zs_extraction_ex_val_short_desc_5_rewrite_desc{_R}",
                                            f"{_4O}06_zs_extraction_ex_val_short_desc_5_output_feedback{_R}"],
    ("oa-mine", "five runs"): [f"gpt-4-0613|fs10-schema-train1.0{_R}", f"{_4O}04a_fs_extraction_10__ex_val_short_desc_5{_R}",
                               f"gpt-3.5-turbo-0613|fs10-list{_R}", f"ft-gpt-4o-AH9A4I2C|01_zs_extraction_short_prompt_ft{_R}",
                               f"{_4O}05_zs_extraction_ex_val_short_desc_5_rewrite_desc{_R}"],
    ("oa-mine", "seven runs"): [f"gpt-4-0613|fs10-schema-train1.0{_R}", f"gpt-4-0613|fs10-schema-train0.2{_R}",
                                f"{_4O}04a_fs_extraction_10__ex_val_short_desc_5{_R}", f"{_4O}03_fs_extraction_shots_10{_R}",
                                f"gpt-3.5-turbo-0613|fs10-list{_R}", f"ft-gpt-4o-AbX4uqsJ|01_zs_extraction{_R}",
                                f"{_4O}09_few_shot_extraction_ex_val_short_desc_5_rewrite_desc_shots_10{_R}"],
    ("oa-mine", "one model, no examples"): [f"{_4O}01_zs_extraction{_R}", f"{_4O}02_zs_extraction_ex_val_short_desc_5{_R}",
                                            f"{_4O}05_zs_extraction_ex_val_short_desc_5_rewrite_desc{_R}",
                                            f"{_4O}06_zs_extraction_ex_val_short_desc_5_output_feedback{_R}"],
}  # fmt: skip


class Panel(NamedTuple):
    """What voters said of items, by attribute; and the item of each row."""

    votes: Mapping[str, Votes]
    items: Mapping[str, Sequence[str]]


def closed(
    said: Mapping[tuple[str, str], str], voters: Sequence[str], gold: Mapping[str, str | None], labels: Sequence[str]
) -> Votes:
    """The labels that voters gave items: `said` by voter and item, `gold` by item, in the order of its items."""
    columns = [pa.array([said.get((voter, item)) for item in gold], pa.string()) for voter in voters]
    right = pa.array(list(gold.values()), pa.string())
    voted = [pc.is_valid(column) for column in columns]
    return votes_of(columns, voted, tuple(voters), tuple(labels), gold=right, known=pc.is_valid(right))


def textclass(task: str, models: Sequence[str]) -> Panel:
    """The labels that models gave the items of a task; those that never took it are left out."""
    with duckdb.connect() as connection:
        folder = DATA / "textclass-llm-runs"
        query = f"SELECT item_id, gold FROM '{folder}/items.parquet' WHERE task = ? ORDER BY item_id"
        gold = dict(connection.execute(query, [task]).fetchall())
        query = f"SELECT model, item_id, label FROM '{folder}/answers.parquet' WHERE task = ?"
        said = {(model, item): label for model, item, label in connection.execute(query, [task]).fetchall()}
    took = {model for model, _ in said}
    votes = closed(said, [model for model in models if model in took], gold, sorted(set(gold.values())))
    return Panel({"label": votes}, {"label": list(gold)})


def pae(dataset: str, runs: Sequence[str]) -> Panel:
    """The values that runs extracted, attribute by attribute; a run is named by how it begins."""
    with duckdb.connect() as connection:
        folder = DATA / "pae-llm-runs"
        query = f"SELECT item_id, attribute, gold_values FROM '{folder}/slots.parquet' WHERE dataset = ? AND in_gold ORDER BY ALL"
        slots = connection.execute(query, [dataset]).fetchall()
        query = f"SELECT labeler, item_id, attribute, model_answer FROM '{folder}/answers.parquet' WHERE dataset = ?"
        rows = connection.execute(query, [dataset]).fetchall()
    names = {run: min(row[0] for row in rows if row[0].startswith(run)) for run in runs}
    said = {(labeler, item, attribute): value for labeler, item, attribute, value in rows}
    votes, items = {}, {}
    for attribute in sorted({slot[1] for slot in slots}):
        own = [(item, right) for item, name, right in slots if name == attribute]
        keys = [[(names[run], item, attribute) for item, _ in own] for run in runs]
        columns = [pa.array([_spelt(said.get(key)) for key in column], pa.string()) for column in keys]
        voted = [pa.array([key in said for key in column]) for column in keys]
        gold = pa.array([[_spelt(value) for value in right] for _, right in own], pa.list_(pa.string()))
        yes = pa.array([True] * len(own))
        votes[attribute] = votes_of(columns, voted, tuple(runs), None, gold=gold, known=yes)
        items[attribute] = [item for item, _ in own]
    return Panel(votes, items)


def _spelt(value: str | None) -> str | None:
    return None if value is None else " ".join(value.casefold().split())


def gains(panel: Panel, splits: int, rows: int | None = None, methods: Sequence[str] = METHODS) -> dict[str, float]:
    """By method, its mean F1 over the best single voter's, in points; and that one's own F1."""
    alone: list[list[float]] = []
    found: dict[str, list[float]] = {method: [] for method in methods}
    for seed in range(splits):
        items = sorted({item for own in panel.items.values() for item in own})
        random.Random(seed).shuffle(items)
        gold = set(items[: rows or len(items) // 2])
        masks = {name: pa.array([item in gold for item in own]) for name, own in panel.items.items()}
        known = {n: replace(v, gold=pc.if_else(masks[n], v.gold, None)) for n, v in panel.votes.items()}
        rest = {n: v.filter(pc.invert(masks[n])) for n, v in panel.votes.items()}
        voters = next(iter(rest.values())).voters
        alone.append([100 * f1(o for v in rest.values() for o in outcomes(v, single(v, voter))) for voter in voters])
        for method in methods:
            state = fit(known, method)
            right = f1(o for name, v in rest.items() for o in outcomes(v, state.contests[name].rule))
            found[method].append(100 * right)
    best = max(statistics.mean(column) for column in zip(*alone, strict=True))
    return {"best single": best, **{method: statistics.mean(own) - best for method, own in found.items()}}


def _textclass_gains(given: tuple[str, Sequence[str], int, int | None]) -> dict[str, float]:
    task, models, splits, rows = given
    return gains(textclass(task, models), splits, rows)


def _pae_gains(given: tuple[tuple[str, str], int]) -> dict[str, float]:
    place, splits = given
    methods = [method for method in METHODS if method != "confusion"]
    return gains(pae(place[0], PAE[place]), splits, methods=methods)


def show(title: str, lines: Sequence[tuple[str, dict[str, float]]]) -> None:
    """A table of gains, its mean and its least."""
    columns = list(lines[0][1])
    print(f"\n{title}\n{'':42}" + "".join(f"{column:>13}" for column in columns))
    for name, line in lines:
        print(f"{name:42}{line['best single']:13.1f}" + "".join(f"{line[c]:+13.1f}" for c in columns[1:]))
    for word, over in (("mean", statistics.mean), ("least", min)):
        print(f"{word:42}{'':13}" + "".join(f"{over([line[c] for _, line in lines]):+13.2f}" for c in columns[1:]), flush=True)


def crowd(name: str) -> tuple[float, float, float]:
    """Accuracy of majority, iwmv and dawid_skene on a crowd-sourced set."""
    with duckdb.connect() as connection:
        folder = DATA / "crowd-labels"
        query = f"SELECT task, worker, label::VARCHAR FROM '{folder}/answers.parquet' WHERE dataset = ?"
        answers = connection.execute(query, [name]).fetchall()
        query = f"SELECT task, truth::VARCHAR FROM '{folder}/truth.parquet' WHERE dataset = ?"
        truth = dict(connection.execute(query, [name]).fetchall())
    tasks, workers, labels = (sorted({answer[i] for answer in answers}) for i in range(3))
    said = {(worker, task): label for task, worker, label in answers}
    votes = closed(said, workers, {task: truth.get(task) for task in tasks}, labels)
    codes = [decide(votes, w).code for w in (majority(votes).weights, iwmv(votes).weights)]
    codes.append(decide_by(votes, dawid_skene(votes)).code)
    known = votes.gold.is_valid()
    right = [pc.fill_null(pc.equal(code, votes.gold), False).filter(known) for code in codes]
    return tuple(100 * pc.mean(pc.cast(own, pa.float64())).as_py() for own in right)


def scale(items: int = 1_000_000, models: int = 10, labels: int = 20) -> None:
    """Seconds and memory of fitting on many items."""
    draw = random.Random(0)
    names = tuple(f"label {k}" for k in range(labels))
    truth = pa.array(draw.choices(range(labels), k=items), pa.int32())
    columns = []
    for model in range(models):
        other = pa.array(draw.choices(range(labels), k=items), pa.int32())
        sure = pc.less(pc.random(items, initializer=model), 0.3 + 0.04 * model)
        columns.append(pa.array(names).take(pc.if_else(sure, truth, other)))
    votes = votes_of(columns, [pa.repeat(True, items)] * models, tuple(map(str, range(models))), names)
    print(f"\n{items:,} items x {models} models x {labels} labels")
    for name, learn in (("iwmv", iwmv), ("dawid_skene", dawid_skene)):
        start = time.perf_counter()
        rounds = learn(votes).rounds
        print(f"{name:12} {time.perf_counter() - start:6.1f} s  {rounds} rounds")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB at most")


def figures(parts: Sequence[str], splits: int) -> Iterator[None]:
    panels = {"smaller": SMALLER, "small": SMALL, "frontier": FRONTIER, "mixed": MIXED}
    with ProcessPoolExecutor() as pool:
        for part, rows in (("textclass", None), ("few", 50)):
            if part in parts:
                names = [(task, panel) for panel in panels for task in POLICY]
                work = [(task, panels[panel], splits, rows) for task, panel in names]
                title = f"textclass, 8 policy tasks, {'half of the items' if rows is None else '50 items'} as gold rows"
                lines = zip(names, pool.map(_textclass_gains, work), strict=True)
                yield show(title, [(f"{panel:10}{task}", line) for (task, panel), line in lines])
        if "safety" in parts:
            names = [(panel, task) for panel in SAFETY for task in POLICY]
            work = [(task, SAFETY[panel], splits, None) for panel, task in names]
            lines = zip(names, pool.map(_textclass_gains, work), strict=True)
            yield show("textclass, one strong and several weak models", [(f"{p:28}{t}", line) for (p, t), line in lines])
        if "pae" in parts:
            lines = zip(PAE, pool.map(_pae_gains, [(place, splits) for place in PAE]), strict=True)
            yield show("pae, F1 of attribute values", [(f"{data:10}{panel}", line) for (data, panel), line in lines])
    if "crowd" in parts:
        print(f"\n{'crowd-labels, accuracy':24}{'majority':>12}{'iwmv':>12}{'dawid_skene':>12}")
        for name in ("d_product", "d_possent", "s_rel", "bluebird-duck", "rte", "temp", "wsd", "dog4", "face4"):
            yield print(f"{name:24}" + "".join(f"{value:12.2f}" for value in crowd(name)), flush=True)
    if "scale" in parts:
        yield scale()


if __name__ == "__main__":
    parts = ("textclass", "few", "safety", "pae", "crowd", "scale")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument("--splits", type=int, default=20)
    options = parser.parse_args()
    for _ in figures(options.parts or parts, options.splits):
        pass

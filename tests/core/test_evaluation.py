"""`gdo eval` and `gdo show`, as a user runs them on the shipped pipeline."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ensemble")
    shutil.copytree(ROOT / "pipelines" / "data", folder / "data")
    shutil.copy(ROOT / "pipelines" / "ensemble.yaml", folder)
    return folder


def gdo(folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "gdo", *words], cwd=folder, capture_output=True, text=True, check=False
    )


EVAL = ("eval", "ensemble.yaml", "--gold", "data/acts_check.csv")


def test_the_shipped_ensemble_beats_its_best_member_and_says_by_how_much(shipped):
    done = gdo(shipped, *EVAL, "--format", "json")
    assert done.returncode == 0, done.stderr
    scores = {own["who"]: own for own in json.loads(done.stdout)["scores"]}
    answer = scores.pop("answer")
    assert len(scores) == 8
    best = max(scores.values(), key=lambda own: own["f1"])
    assert answer["f1"] >= best["f1"] + 0.03
    assert answer["gain"] is None
    assert best["gain"][0] == pytest.approx(answer["f1"] - best["f1"])
    assert answer["rows"] == 273
    assert answer["low"] < answer["f1"] < answer["high"]


def test_a_table_of_scores_is_printed_and_nothing_else(shipped):
    done = gdo(shipped, *EVAL)
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["attribute", "who", "rows", "accuracy"]
    assert [line.split()[1] for line in lines[1:]][:3] == ["answer", "qwen", "glm"]
    assert len(lines) == 10


def test_rows_that_weights_were_learned_from_are_left_out(shipped):
    done = gdo(shipped, "eval", "ensemble.yaml", "--gold", "data/acts_gold.csv")
    assert done.returncode == 2
    assert "200 rows that weights were learned from are left out" in done.stderr
    both = (shipped / "data" / "acts_gold.csv").read_text() + (
        shipped / "data" / "acts_check.csv"
    ).read_text().partition("\n")[2]
    (shipped / "both.csv").write_text(both + "9999,health\n", encoding="utf-8")
    done = gdo(shipped, "eval", "ensemble.yaml", "--gold", "both.csv")
    assert "200 rows that weights were learned from are left out" in done.stderr
    assert "1 of the 474 gold rows have a key that no row of the result has" in done.stderr
    assert " 273 " in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--gold", "data/acts_chek.csv"), ["--gold: no such file", "did you mean 'acts_check.csv'?"]),
        (
            ("--gold", "data/acts.csv"),
            ["--gold: 'data/acts.csv' has no column of right answers", "--column NAME=COLUMN"],
        ),
        (
            ("--gold", "data/acts_check.csv", "--column", "topic=topics"),
            ["has no column 'topics'", "did you mean 'topic'?"],
        ),
        (
            ("--gold", "data/acts_check.csv", "--column", "topics=topic"),
            ["no column 'topics'", "did you mean 'topic'?"],
        ),
        (("--gold", "data/acts_check.csv", "--column", "topic"), ["'topic' is not KEY=VALUE"]),
        (("--gold", "data/acts_check.csv", "--key", "akt"), ["has no column 'akt'", "did you mean 'act'?"]),
    ],
)
def test_what_is_wrong_is_told_without_a_run(shipped, words, told):
    done = gdo(shipped, "eval", "ensemble.yaml", *words)
    assert (done.returncode, done.stdout) == (2, "")
    for phrase in told:
        assert phrase in done.stderr
    assert "Traceback" not in done.stderr


def test_what_was_learned_is_shown(shipped):
    done = gdo(shipped, "run", "ensemble.yaml")
    assert done.returncode == 0, done.stderr
    assert "learned in vote:" in done.stderr
    assert "cross-validated F1" in done.stderr
    kept = sorted((shipped / ".gdo" / "runs").glob("*/vote.json"))[-1]
    shown = gdo(shipped, "show", str(kept))
    assert shown.returncode == 0
    assert shown.stdout.startswith("topic (21 labels), decided by stack")
    assert "█" in shown.stdout
    for path, told in (("no.json", "No such file"), ("ensemble.yaml", "no saved ensemble"), ("data", "cannot be read")):
        wrong = gdo(shipped, "show", path)
        assert wrong.returncode == 2
        assert told in wrong.stderr
        assert "Traceback" not in wrong.stderr


def test_a_pipeline_without_an_ensemble_is_measured_too(tmp_path):
    (tmp_path / "in.csv").write_text("id,a\n1,x\n2,y\n3,z\n", encoding="utf-8")
    (tmp_path / "gold.csv").write_text("id,b\n1,X\n2,Y\n3,W\n", encoding="utf-8")
    (tmp_path / "p.yaml").write_text(
        'source: {path: in.csv}\nsteps:\n  - {op: sql, query: "SELECT id, upper(a) AS b FROM input"}\n',
        encoding="utf-8",
    )
    done = gdo(tmp_path, "eval", "p.yaml", "--gold", "gold.csv", "--format", "json")
    assert done.returncode == 0, done.stderr
    (score,) = json.loads(done.stdout)["scores"]
    assert (score["attribute"], score["accuracy"]) == ("b", pytest.approx(2 / 3))

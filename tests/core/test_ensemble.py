"""Several voters for one step, over fake models: votes, faults, gold rows, weights that are kept."""

import json

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

import gdo
from gdo.errors import Faults, RunFailed

# What each model says of a title: two that are right, one that reads the wrong word, one that never answers.
ANSWERS = """
import json

def right(request):
    word = request.text().rpartition("Title: ")[2].split()[0]
    return json.dumps({"color": word})

def wrong(request):
    return json.dumps({"color": "blue"})

def also(request):
    return right(request)

def nothing(request):
    return json.dumps({"color": None})
"""
MODELS = {name: {"backend": "fake", "answer": f"said:{name}"} for name in ("right", "wrong", "also", "nothing")}
MODELS["garbled"] = {"backend": "fake", "fail_every": 1}
TITLES = ["red shoe", "black hat", "red hat", "blue bag", "black shoe", None]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder, and a function that runs a step there."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "said", raising=False)
    (tmp_path / "said.py").write_text(ANSWERS, encoding="utf-8")
    pyarrow.parquet.write_table(pa.table({"id": range(len(TITLES)), "title": TITLES}), tmp_path / "in.parquet")

    def run(step, **outer):
        spec = {
            "models": MODELS,
            "source": {"path": "in.parquet"},
            "steps": [step],
            "sink": {"path": "out.parquet"},
            **outer,
        }
        path = tmp_path / "p.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
        return gdo.run(path)

    run.folder = tmp_path
    return run


def extract(**keys):
    return {"op": "extract", "text": "Title: {{ title }}", "attributes": {"color": "string"}, "retries": 0, **keys}


def classify(**keys):
    return {
        "op": "classify",
        "text": "Title: {{ title }}",
        "labels": ["red", "black", "blue"],
        "into": "color",
        "retries": 0,
        **keys,
    }


def column(run, name="color"):
    return run.table().column(name).to_pylist()


TITLES_AS_GOLD = {"path": "in.parquet", "key": "id", "column": "title"}
STEPS = pytest.mark.parametrize("step", [extract, classify])


@STEPS
def test_the_votes_of_all_models_are_weighed(project, step):
    run = project(step(models=["right", "wrong", "also"], keep_votes=True, confidence=True))
    assert column(run) == ["red", "black", "red", "blue", "black", None]
    assert column(run, "color_wrong") == ["blue"] * 5 + [None]
    assert column(run, "color_agreement")[:4] == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1])
    assert all(0 <= margin <= 1 for margin in column(run, "color_margin")[:-1])
    assert not [name for name in run.table().column_names if name.startswith("__")]
    assert sum(step["calls"] for step in run.report.values()) == 3 * 5, "a model a distinct title"


@STEPS
def test_only_the_answer_is_added_when_nothing_else_is_asked_for(project, step):
    assert project(step(models=["right", "wrong", "also"])).table().column_names == ["id", "title", "color"]


@STEPS
def test_a_voter_that_fails_has_no_vote_and_its_faults_are_told_under_its_name(project, step):
    run = project(step(models=["right", "garbled", "also"]))
    assert column(run) == ["red", "black", "red", "blue", "black", None]
    errors = run.errors().to_pylist()
    assert len(errors) == 5
    assert {error["reason"] for error in errors} == {"refused"}
    assert all(error["detail"].startswith("garbled: ") for error in errors)
    told = json.loads((run.folder / f"{step()['op']}.json").read_text(encoding="utf-8"))
    assert any("'garbled' never answers" in w for w in told["contests"]["color"]["warnings"])


@pytest.mark.parametrize("on_error", ["keep", "reject"])
def test_a_row_that_no_voter_answers_has_failed(project, on_error):
    run = project(
        extract(
            voters=[{"name": "a", "model": "garbled"}, {"name": "b", "model": "garbled", "temperature": 0.5}],
            on_error=on_error,
        )
    )
    assert column(run) == ([None] * 6 if on_error == "keep" else [None])
    errors = run.errors().to_pylist()
    assert sorted(e["row_key"] for e in errors if e["reason"] == "no_votes") == [0, 1, 2, 3, 4]
    assert sum(count["rejected"] for count in run.report.values()) == (0 if on_error == "keep" else 5)


def test_a_row_that_no_voter_answers_ends_a_run_that_says_so(project):
    with pytest.raises(RunFailed, match="no_votes: no voter answered"):
        project(extract(models=["garbled"], on_error="fail"))


def test_one_voter_may_fail_where_a_failed_row_would_end_the_run(project):
    assert column(project(extract(models=["right", "garbled", "also"], on_error="fail")))[0] == "red"


def test_there_is_no_value_is_an_answer_that_can_win(project):
    run = project(
        {
            **extract(weights="majority"),
            "voters": [
                {"model": "nothing"},
                {"name": "n2", "model": "nothing", "temperature": 0.1},
                {"model": "right"},
            ],
        }
    )
    assert column(run) == [None] * 6
    assert run.errors().num_rows == 0


@STEPS
def test_where_leaves_the_other_rows_untouched(project, step):
    run = project(step(models=["right", "wrong", "also"], where="id < 2", keep_votes=True))
    assert column(run) == ["red", "black", None, None, None, None]
    assert column(run, "color_right") == ["red", "black", None, None, None, None]
    assert column(run, "title") == TITLES


def test_all_attributes_in_one_column(project):
    two = {"color": "string", "size": {"type": "number", "nullable": True}}
    models = ["right", "wrong", "also"]
    run = project(extract(models=models, into="found", attributes=two) | {"retries": 0})
    assert run.table().column_names == ["id", "title", "found"]
    run = project(extract(models=models, into="tint"))
    assert column(run, "tint")[:2] == ["red", "black"]


def test_prompts_may_differ_by_voter_and_be_udps(project):
    (project.folder / "tint.yaml").write_text(
        "udp: tint\nprompt: 'Title: {{ title }}'\noutput: {shade: string}\n", encoding="utf-8"
    )
    voters = [
        {"udp": "tint.yaml", "model": "right"},
        {"name": "plain", "model": "also"},
        {"name": "other", "model": "wrong", "text": "T {{ id }}"},
    ]
    run = project(
        {
            **extract(),
            "attributes": {"color": {"type": "string", "nullable": True}},
            "voters": voters,
            "keep_votes": True,
        }
    )
    assert column(run)[3] == "blue"
    assert column(run, "color_other") == ["blue"] * 6, "its prompt reads another column, which has no null"


# Gold rows, and weights that are kept


def test_gold_rows_teach_whom_to_believe(project):
    (project.folder / "gold.csv").write_text(
        "id,color\n0,red\n1,black\n2,red\n3,blue\n4,black\n99,red\n", encoding="utf-8"
    )
    voters = [
        {"model": "right"},
        {"name": "w1", "model": "wrong"},
        {"name": "w2", "model": "wrong", "temperature": 0.5},
    ]
    plain = project(classify(voters=voters, weights="majority"))
    assert column(plain)[:3] == ["blue"] * 3
    run = project(
        classify(voters=voters, weights="confusion", gold={"path": "gold.csv", "key": "id", "column": "color"})
    )
    assert column(run)[:5] == ["red", "black", "red", "blue", "black"]
    learned = run.ledger.learned["classify"]
    assert any("1 of the 6 gold rows match no row" in line for line in learned)


def test_weights_are_saved_shown_and_decide_new_rows_frozen(project):
    models = ["right", "wrong", "also"]
    first = project(classify(models=models, save="weights.json"))
    saved = (project.folder / "weights.json").read_text(encoding="utf-8")
    assert (first.folder / "classify.json").read_text(encoding="utf-8") == saved
    again = project(classify(models=models, load="weights.json"))
    assert again.table().equals(first.table())
    assert (project.folder / "weights.json").read_text(encoding="utf-8") == saved
    assert again.ledger.learned == {}


def test_no_answer_is_given_below_a_margin(project):
    run = project(classify(models=["right", "wrong", "also"], weights="majority", abstain_below=0.99, confidence=True))
    assert column(run) == [None, None, None, "blue", None, None]
    assert column(run, "color_margin")[0] is not None


@pytest.mark.parametrize(
    ("step", "phrases"),
    [
        (extract(weights="iwmv"), ["`weights` is for an ensemble"]),
        (extract(models=["right", "wrong"], model="also"), ["`models` or `model`, not both"]),
        (extract(models=["right"], voters=[{"model": "wrong"}]), ["`models` or `voters`, not both"]),
        (extract(models=["right", "rigt"]), ["no model named 'rigt'", "did you mean 'right'?"]),
        (extract(voters=[{"model": "rigt"}]), ["no model named 'rigt'"]),
        (extract(models=["right", "right"]), ["there are two voters 'right'"]),
        (extract(voters=[{"model": "right"}, {"name": "b", "model": "right"}]), ["asks just what 'right' asks"]),
        (extract(models=["right", "wrong"], weights="best"), ["weights", "auto"]),
        (extract(models=["right", "wrong"], weights="dawid_skene"), ["needs closed labels", "'color' is open"]),
        (classify(models=["right", "wrong"], weights="stack"), ["learns from rows whose right answer is known"]),
        (classify(models=["right", "wrong"], multi=True), ["an ensemble gives one label"]),
        (classify(models=["right", "wrong"], load="no.json"), ["'no.json' cannot be read"]),
        (classify(models=["right", "wrong"], load="said.py"), ["it is no saved ensemble"]),
        (classify(models=["right", "wrong"], gold={"path": "no.csv", "key": "id"}), ["no such file 'no.csv'"]),
        (classify(models=["right", "wrong"], gold=TITLES_AS_GOLD), ["right answers that are no label", "'red shoe'"]),
        (extract(models=["right", "wrong"], normalize=["cas"]), ["unknown way 'cas'", "did you mean 'case'?"]),
        (extract(models=["right", "wrong"], normalize=[{"sql": "lower(valu)"}]), ["no column 'valu'", "it may read `value`"]),
        (extract(models=["right", "wrong"], normalize=[{"udp": "nope"}]), ["no UDP named 'nope'"]),
        (extract(models=["right", "wrong"], save="no/where.json"), ["there is no folder"]),
        (extract(models=["right", "wrong"], abstain_below=2), ["at most 1"]),
        (extract(voters=[{"model": "right", "text": "{{ titel }}"}]), ["no column 'titel'", "did you mean 'title'?"]),
        (extract(models=[]), ["`models` names nobody"]),
        (
            classify(voters=[{"name": "margin", "model": "right"}, {"model": "wrong"}], keep_votes=True, confidence=True),
            ["the vote of 'margin' would take the column 'color_margin'"],
        ),
        (extract(voters=[{"modl": "right"}]), ["unknown key 'modl'", "did you mean 'model'?"]),
        (extract(voters=[{"udp": "tidy_name", "model": "right"}]), []),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(project, step, phrases):
    with pytest.raises(Faults) as raised:
        project(step)
    text = str(raised.value)
    assert text.startswith(f"{project.folder}/p.yaml:")
    for phrase in phrases:
        assert phrase in text
    assert len(raised.value.findings) == 1, text


def test_a_kept_vote_takes_the_place_of_no_column(project):
    pyarrow.parquet.write_table(
        pa.table({"id": [1], "title": ["red"], "color_right": ["mine"]}), project.folder / "in.parquet"
    )
    with pytest.raises(Faults, match="would take the place of the column 'color_right'"):
        project(classify(models=["right", "wrong"], keep_votes=True))


def test_one_voter_alone_is_believed_also_beside_gold_rows(project):
    rows = "".join(f"{i},{'black' if i % 2 else 'red'}\n" for i in range(6))
    (project.folder / "gold.csv").write_text(f"id,color\n{rows}", encoding="utf-8")
    run = project(classify(models=["wrong"], gold={"path": "gold.csv", "key": "id"}))
    assert column(run) == ["blue"] * 5 + [None]

"""The shipped UDPs: each is whole, shows what it does, and is asked of a fake model and of the bundled one."""

import re
from pathlib import Path

import pytest

from gdo import api
from gdo.prompt import Udp
from gdo.udp import built_in, load_udp
from gdo.udptest import run_tests

LIBRARY = built_in()
NAMES = sorted(LIBRARY)
USES = {
    "standardize values": {"standardize_brand", "standardize_color", "standardize_unit", "standardize_date"},
    "convert types": {"convert_price"},
    "make structure consistent": {"consistent_structure"},
    "impute missing values": {"impute_brand"},
    "flag anomalies": {"flag_anomaly"},
    "classify": {"classify_sentiment", "classify_department"},
    "rate": {"rate_review"},
    "annotate": {"annotate_keywords"},
    "translate": {"translate_english"},
    "redact": {"redact_personal"},
    "tidy text": {"tidy_name"},
}
PASSED_BY_THE_BUNDLED_MODEL = {"classify_department": 6, "tidy_name": 5}
GUIDE = Path(__file__).parents[2] / "docs" / "udps.md"


@pytest.fixture(scope="module")
def udps() -> dict[str, Udp]:
    return {name: load_udp(path) for name, path in LIBRARY.items()}


def test_the_library_covers_its_uses_and_holds_nothing_else() -> None:
    assert set().union(*USES.values()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_udp_loads_and_is_named_as_its_file(name: str) -> None:
    udp = load_udp(LIBRARY[name])
    assert udp.name == name
    assert udp.description
    assert "\n" not in udp.description
    assert udp.system


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_udp_has_examples_and_other_rows_for_its_tests(name: str, udps: dict[str, Udp]) -> None:
    udp = udps[name]
    assert len(udp.examples) >= 3
    assert len(udp.tests) >= 4
    shown = [_folded(example.row) for example in udp.examples]
    asked = [_folded(test.row) for test in udp.tests]
    assert not [row for row in asked if row in shown]
    assert len({str(row) for row in shown + asked}) == len(shown) + len(asked)


def _folded(row: object) -> object:
    return {key: str(value).strip().casefold() for key, value in dict(row).items()}  # type: ignore[call-overload]


@pytest.mark.parametrize("name", NAMES)
def test_every_row_of_a_shipped_udp_renders_and_its_answer_fits(name: str, udps: dict[str, Udp]) -> None:
    udp = udps[name]
    for row in (*udp.examples, *udp.tests):
        rendered = udp.render(row.row)
        assert all(str(row.row[column]) in rendered for column in udp.columns)
        assert udp.output.check(dict(row.out)) == row.out
        assert set(row.row) == udp.columns, "a row states what the prompt reads, and no more"


@pytest.mark.parametrize("name", NAMES)
def test_no_line_of_the_prompt_begins_like_the_cue_of_the_answer(name: str, udps: dict[str, Udp]) -> None:
    udp = udps[name]
    rendered = udp.render(udp.tests[0].row)
    lines = {line.partition(":")[0].strip().casefold() for line in rendered.splitlines()}
    cues = {"json", *(field.replace("_", " ").casefold() for field in udp.output.names)}
    assert not lines & cues


@pytest.mark.parametrize("name", NAMES)
def test_every_label_of_a_small_set_stands_in_an_example(name: str, udps: dict[str, Udp]) -> None:
    for field in udps[name].output.fields:
        labels = getattr(field.type, "labels", ())
        shown = [example.out[field.name] for example in udps[name].examples]
        assert [label for label in labels if label not in shown] == []


def test_standardize_brand_reads_and_gives_what_its_sql_call_says(udps: dict[str, Udp]) -> None:
    assert udps["standardize_brand"].columns == {"brand", "title"}
    assert udps["standardize_brand"].output.names == ("brand",)


def test_a_fake_model_answers_every_udp_in_its_own_types(udps: dict[str, Udp]) -> None:
    results = run_tests(NAMES, "fake", {}, print)
    assert len(results) == sum(len(udp.tests) for udp in udps.values())
    for result in results:
        assert isinstance(result.said, dict), f"{result.udp} {result.number}: {result.said}"
        assert udps[result.udp].output.check(result.said) == result.said


@pytest.mark.model
@pytest.mark.parametrize("name", sorted(PASSED_BY_THE_BUNDLED_MODEL))
def test_the_bundled_model_passes_at_least_the_recorded_number_of_tests(name: str) -> None:
    results = run_tests([name], "local", {}, print)
    missed = [(result.wanted, result.said) for result in results if not result.passed]
    assert len(results) - len(missed) >= PASSED_BY_THE_BUNDLED_MODEL[name], missed


def _blocks(first_key: str) -> list[str]:
    return [
        block for block in re.findall(r"```yaml\n(.*?)```", GUIDE.read_text(), re.DOTALL) if block.startswith(first_key)
    ]


def test_the_guide_names_every_udp_with_its_columns_and_fields(udps: dict[str, Udp]) -> None:
    rows = {
        cells[0]: cells for cells in (re.findall(r"[^|]+", line) for line in GUIDE.read_text().splitlines()) if cells
    }
    for name, udp in udps.items():
        _, reads, gives, passed = rows[f" `{name}` "]
        assert set(re.findall(r"`(\w+)`", reads)) == udp.columns
        assert tuple(re.findall(r"`(\w+)`", gives)) == udp.output.names
        assert passed.split()[-1] == str(len(udp.tests))


def test_every_udp_in_the_guide_loads(tmp_path: Path) -> None:
    blocks = _blocks("udp:")
    assert blocks
    for block in blocks:
        path = tmp_path / "guide.yaml"
        path.write_text(block)
        load_udp(path)


def test_every_pipeline_in_the_guide_has_no_fault(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "products.csv").write_text(
        "title,brand,name,price,review,text\nAir Max,NIKE,AIR MAX,$9,Good.,Shoe\n"
    )
    (tmp_path / "udps").mkdir()
    for block in _blocks("udp:"):
        name = block.split(maxsplit=2)[1]
        (tmp_path / "udps" / f"{name}.yaml").write_text(block)
    blocks = _blocks("name:")
    assert blocks
    for block in blocks:
        path = tmp_path / "pipeline.yaml"
        path.write_text(block)
        api.load(path).check()

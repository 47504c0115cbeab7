"""The pipelines that ship with gdo: valid for an editor, without a fault, and worth reading when they run for real."""

from pathlib import Path

import jsonschema
import pytest

import gdo
from gdo.api import register_wings
from gdo.document import read_document
from gdo.fileschema import pipeline_schema
from gdo.project import make_project

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [*sorted((ROOT / "pipelines").glob("*.yaml")), ROOT / "pipelines" / "starter" / "pipeline.yaml"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_editor_finds_no_fault_in_a_shipped_pipeline(path):
    register_wings()
    jsonschema.validate(read_document(path).data, pipeline_schema())


def test_an_editor_sees_a_key_that_no_operator_has():
    register_wings()
    data = {"source": {"path": "a.csv"}, "steps": [{"op": "sql", "qery": "SELECT 1"}]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, pipeline_schema())


def test_the_catalogue_has_no_fault():
    gdo.load(ROOT / "pipelines" / "catalogue.yaml").check()


@pytest.mark.model
def test_the_catalogue_runs_on_the_bundled_model(tmp_path):
    text = (ROOT / "pipelines" / "catalogue.yaml").read_text(encoding="utf-8")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "products.csv").write_bytes((ROOT / "pipelines" / "data" / "products.csv").read_bytes())
    (tmp_path / "catalogue.yaml").write_text(text, encoding="utf-8")
    run = gdo.run(tmp_path / "catalogue.yaml")
    table = run.table()
    assert table.column_names == ["barcode", "typed", "product_name", "category", "confidence", "flavor"]
    assert 25 <= table.num_rows <= 80
    assert set(table.column("category").to_pylist()) <= {"dairy", "drink", "frozen dessert", "snack or sweet"}
    assert table.column("flavor").null_count == 0
    labels = dict(zip(table.column("typed").to_pylist(), table.column("category").to_pylist(), strict=True))
    assert labels["1% Lowfat Milk"] == "dairy"
    assert run.errors().num_rows == 0
    again = gdo.run(tmp_path / "catalogue.yaml")
    assert again.table().equals(table)
    assert all(count["calls"] == 0 for count in again.report.values())


@pytest.mark.model
def test_the_project_of_gdo_init_runs_as_it_is(tmp_path):
    make_project(tmp_path)
    rows = gdo.run(tmp_path / "pipeline.yaml").table().to_pylist()
    assert len(rows) == 10
    assert {row["shelf"] for row in rows} <= {"drinks", "sweets", "vegetables"}
    assert next(row for row in rows if row["typed"] == "Mineral Water 1.5L")["shelf"] == "drinks"


@pytest.mark.model
def test_three_prompts_to_the_bundled_model_vote(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "products.csv").write_bytes((ROOT / "pipelines" / "data" / "products.csv").read_bytes())
    (tmp_path / "voters.yaml").write_text((ROOT / "pipelines" / "voters.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    run = gdo.run(tmp_path / "voters.yaml", limit=4)
    rows = run.table().to_pylist()
    assert len(rows) == 4
    assert run.errors().num_rows == 0
    for row in rows:
        votes = [row[f"category_{voter}"] for voter in ("names", "shelves", "labels")]
        assert row["category"] in votes
        assert row["category_agreement"] == pytest.approx(votes.count(row["category"]) / 3)
    assert rows[0]["category"] == "dairy", "1% Lowfat Milk"

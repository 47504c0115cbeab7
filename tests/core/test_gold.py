"""Tables of right answers: what fits, and what is wrong with one that does not."""

import pyarrow as pa
import pytest

from gdo.errors import Faults
from gdo.gold import Gold, read_gold


@pytest.fixture
def write(tmp_path):
    def written(text, name="gold.csv"):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return written


def fault(folder, gold, attributes=("brand",)):
    with pytest.raises(Faults) as raised:
        read_gold(Gold.model_validate(gold), folder, attributes)
    return raised.value.findings[0]


def test_rows_are_found_by_keys_that_look_the_same(write):
    folder = write("sku,brand\n7,Nike\n8,\n")
    rows = read_gold(Gold(path="gold.csv", key="sku", column="brand"), folder, ["brand"])
    batch = pa.RecordBatch.from_pydict({"sku": ["8", "7", "9", None]})
    assert rows.places(batch).to_pylist() == [1, 0, None, None]
    assert rows.answers["brand"].to_pylist() == ["Nike", None]


def test_several_columns_may_be_the_key_and_several_attributes_have_their_columns(write):
    folder = write("shop,sku,b,color\nA,1,Nike,red\nB,1,Puma,blue\n")
    gold = Gold(path="gold.csv", key=["shop", "sku"], columns={"brand": "b", "color": "color"})
    rows = read_gold(gold, folder, ["brand", "color"])
    batch = pa.RecordBatch.from_pydict({"sku": [1, 1], "shop": ["B", "A"]})
    assert rows.places(batch).to_pylist() == [1, 0]
    assert rows.answers["brand"].to_pylist() == ["Nike", "Puma"]


GIVEN = {"path": "gold.csv", "key": "sku", "column": "brand"}


@pytest.mark.parametrize(
    ("text", "change", "where", "what"),
    [
        ("sku,brand\n1,a\n", {"path": "gld.csv"}, "path", "no such file 'gld.csv'"),
        ("sku,brand\n1,a\n", {"key": "sk"}, "key", "has no column 'sk'"),
        ("sku,brand\n1,a\n", {"column": "brnd"}, "column", "has no column 'brnd'"),
        ("sku,brand\n1,a\n", {"column": None, "columns": {"colr": "x"}}, "columns", "no attribute 'colr'"),
        ("sku,brand\n1,a\n1,b\n", {}, "key", "the key '1' more than once"),
        ("sku,brand\n,a\n2,b\n", {}, "key", "1 rows without a key"),
    ],
)
def test_what_is_wrong_is_told_at_its_key(write, text, change, where, what):
    found = fault(write(text), {**GIVEN, **change})
    assert found.where == where
    assert what in found.what


def test_one_column_for_several_attributes_is_a_fault(write):
    assert "name each in `columns`" in fault(write("sku,brand\n1,a\n"), GIVEN, ["brand", "color"]).hint

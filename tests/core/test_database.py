import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.database import Query, condition_columns, condition_mask, describe, literal, message, quote
from gdo.errors import Faults

NAMES = st.text(min_size=1, max_size=12).filter(lambda text: "\0" not in text and text.isprintable())
SCHEMA = pa.schema([("price", pa.int64()), ("title", pa.string()), ('odd "name"', pa.string())])


@given(NAMES)
def test_a_quoted_name_is_that_name(name):
    with duckdb.connect() as connection:
        connection.register("t", pa.table({name: [1]}))
        assert connection.execute(f"SELECT {quote(name)} FROM t").fetchall() == [(1,)]


@given(NAMES)
def test_a_quoted_text_is_that_text(text):
    with duckdb.connect() as connection:
        assert connection.execute(f"SELECT {literal(text)}").fetchone() == (text,)


@pytest.mark.parametrize(
    ("condition", "columns"),
    [
        ("price > 3", {"price"}),
        ("PRICE > 3", {"price"}),
        ("title LIKE 'a%' AND price IS NULL", {"price", "title"}),
        ("true", set()),
        ('"odd ""name""" = \'x\'', {'odd "name"'}),
        ("length(input.title) > 3 -- why", {"title"}),
        ("price IN (1, 2)", {"price"}),
    ],
)
def test_the_columns_of_a_condition_are_found(condition, columns):
    assert condition_columns(condition, SCHEMA) == columns


@pytest.mark.parametrize(
    "condition",
    [
        "price >",
        "nothing > 1",
        "price > 1; DROP TABLE x",
        "count(*) > 1",
        "price > (SELECT 1)",
        "sum(price) OVER () > 1",
        "[price]",
        "",
    ],
)
def test_what_is_no_condition_on_one_row_is_a_fault(condition):
    with pytest.raises(Faults):
        condition_columns(condition, SCHEMA)


def test_null_is_not_met():
    batch = pa.RecordBatch.from_pydict({"price": [1, None, 5]})
    assert condition_mask("price > 3", batch).to_pylist() == [False, False, True]


@pytest.mark.parametrize(
    ("query", "row_wise", "row_filter"),
    [
        ("SELECT * FROM input WHERE price > 3", True, True),
        ("SELECT title, price * 2 AS p FROM input", True, False),
        ("FROM input WHERE price > 3", True, True),
        ("SELECT * EXCLUDE (price) FROM input", True, False),
        ("SELECT * FROM input ORDER BY price", False, False),
        ("SELECT DISTINCT title FROM input", False, False),
        ("SELECT count(*) FROM input", False, False),
        ("SELECT title FROM input GROUP BY title", False, False),
        ("SELECT * FROM input LIMIT 3", False, False),
        ("SELECT *, row_number() OVER () FROM input", False, False),
        ("SELECT a.* FROM input a JOIN input b USING (price)", False, False),
        ("SELECT * FROM input WHERE price > (SELECT avg(price) FROM input)", False, False),
        ("SELECT * FROM input UNION ALL SELECT * FROM input", False, False),
        ("WITH x AS (SELECT * FROM input) SELECT * FROM x", False, False),
        ("SELECT * FROM input USING SAMPLE 1", False, False),
        ("SELECT unnest([1, 2]) AS n FROM input", True, False),
        ("SELECT * FROM 'other.csv'", False, False),
    ],
)
def test_a_query_on_single_rows_is_told_from_one_on_many(query, row_wise, row_filter):
    assert (Query(query).is_row_wise, Query(query).is_row_filter) == (row_wise, row_filter)


@pytest.mark.parametrize(
    "query",
    ["", "SELEC", "DROP TABLE input", "SELECT 1; SELECT 2", "COPY input TO 'x'", "INSERT INTO input VALUES (1)"],
)
def test_what_is_not_one_select_is_a_fault(query):
    with pytest.raises(Faults):
        Query(query).tree  # noqa: B018


def test_the_schema_of_a_query_is_known_without_rows():
    assert describe("SELECT price * 1.5 AS p, title FROM input", SCHEMA).names == ["p", "title"]
    with pytest.raises(Faults, match="titel"):
        describe("SELECT titel FROM input", SCHEMA)


def test_a_message_is_one_line_without_its_class():
    with pytest.raises(duckdb.Error) as caught:
        duckdb.sql("SELECT nothing FROM range(3)")
    assert "\n" not in message(caught.value)
    assert "Error:" not in message(caught.value)

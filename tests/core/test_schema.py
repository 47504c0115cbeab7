import json

import jsonschema
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.scalars import AnswerFault
from gdo.schema import Field, Labels, ListOf, Record, Scalar, parse_record


def record(declared):
    problems = []
    found = parse_record(declared, lambda loc, what, hint: problems.append((loc, what, hint)))
    assert not problems
    return found


def problems(declared):
    found = []
    parse_record(declared, lambda loc, what, hint: found.append((loc, what, hint)))
    return found


@given(data=st.data())
def test_a_checked_value_is_itself(types, data):
    answer = data.draw(types.RECORDS)
    value = data.draw(types.values(answer))
    assert answer.check(json.loads(types.as_json(value))) == value


@given(data=st.data())
def test_what_is_checked_fulfils_the_json_schema(types, data):
    answer = data.draw(types.RECORDS)
    value = json.loads(types.as_json(data.draw(types.values(answer))))
    checker = jsonschema.Draft202012Validator(answer.json_schema())
    checker.check_schema(answer.json_schema())
    checker.validate(value)


@given(data=st.data())
def test_what_is_checked_fits_its_arrow_type(types, data):
    answer = data.draw(types.RECORDS)
    value = data.draw(types.values(answer))
    assert pa.array([value, None], answer.arrow()).null_count == 1


@given(data=st.data())
def test_a_value_that_the_schema_refuses_is_not_taken_as_it_is(types, data):
    """Whatever check lets through has become a value of the type."""
    answer = data.draw(types.RECORDS)
    other = data.draw(types.RECORDS.flatmap(types.values))
    try:
        checked = answer.check(json.loads(types.as_json(other)))
    except AnswerFault:
        return
    jsonschema.validate(json.loads(types.as_json(checked)), answer.json_schema())


def test_words_and_their_aliases_are_types():
    declared = {
        "a": "string",
        "b": "str",
        "c": "int",
        "d": "float",
        "e": "bool",
        "f": "date",
        "g": "datetime",
        "h": "list[list[int]]",
    }
    found = record(declared).arrow()
    assert [found.field(i).type for i in range(8)] == [
        pa.string(),
        pa.string(),
        pa.int64(),
        pa.float64(),
        pa.bool_(),
        pa.date32(),
        pa.timestamp("us"),
        pa.list_(pa.list_(pa.int64())),
    ]


def test_a_field_is_described_nullable_or_labelled():
    found = record({"color": {"labels": ["red", "no"], "nullable": True, "description": "the main one"}}).fields[0]
    assert found == Field("color", Labels(("red", "no")), "the main one", nullable=True)
    assert found.json_schema() == {
        "type": ["string", "null"],
        "enum": ["red", "no", None],
        "description": "the main one",
    }


def test_a_mapping_without_words_of_ours_is_a_nested_record():
    found = record({"size": {"width": "number", "unit": "string"}})
    assert found.fields[0].type == Record((Field("width", Scalar("number")), Field("unit", Scalar("string"))))


def test_a_nested_record_may_hold_a_field_called_type():
    found = record({"item": {"type": {"labels": ["a", "b"]}, "name": "string"}})
    assert found.fields[0].type.names == ("type", "name")


def test_an_unanswered_nullable_field_is_null_and_another_one_a_fault():
    answer = Record((Field("a", Scalar("string"), nullable=True), Field("b", Scalar("string"))))
    assert answer.check({"b": "x"}) == {"a": None, "b": "x"}
    with pytest.raises(AnswerFault, match="the field 'b' is null"):
        answer.check({"b": None})
    with pytest.raises(AnswerFault, match="the field 'b' is missing"):
        answer.check({})


def test_the_place_of_a_fault_within_an_answer_is_told():
    answer = record({"size": {"width": "number"}, "tags": "list[string]"})
    with pytest.raises(AnswerFault, match="the field 'size': the field 'width': 'wide' is not a number"):
        answer.check({"size": {"width": "wide"}, "tags": []})


def test_keys_that_nobody_asked_for_are_dropped():
    assert record({"a": "string"}).check({"a": "x", "b": 1}) == {"a": "x"}


@pytest.mark.parametrize("said", ["Red", " red ", '"red"', "RED.", "`red`"])
def test_a_label_is_found_in_spite_of_case_and_punctuation(said):
    assert Labels(("red", "blue")).check(said) == "red"


@pytest.mark.parametrize(("said", "label"), [(True, "true"), (3, "3"), (2.5, "2.5")])
def test_a_label_that_looks_like_a_value_is_a_label(said, label):
    assert Labels((label, "other")).check(said) == label


def test_a_word_that_is_no_label_is_told_with_the_labels():
    with pytest.raises(AnswerFault, match="'green' is none of the labels red, blue"):
        Labels(("red", "blue")).check("green")


def test_the_fault_of_one_item_is_the_fault_of_the_list():
    with pytest.raises(AnswerFault, match="'x' is not a number"):
        ListOf(Scalar("number")).check([1, "x"])
    with pytest.raises(AnswerFault, match="is not a list"):
        ListOf(Scalar("number")).check("1")


@pytest.mark.parametrize(
    ("declared", "place", "phrase"),
    [
        ({}, (), "mapping of field names"),
        ({"a": "strng"}, ("a",), "unknown type 'strng'"),
        ({"a": "list[intt]"}, ("a",), "unknown type 'intt'"),
        ({"a": ["x", "y"]}, ("a",), "a list is no type"),
        ({"a": 5}, ("a",), "5 is no type"),
        ({"a": None}, ("a",), "is no type"),
        ({"a": {"labels": []}}, ("a", "labels"), "list of one or more words"),
        ({"a": {"labels": "red"}}, ("a", "labels"), "list of one or more words"),
        ({"a": {"labels": [["x"]]}}, ("a", "labels"), "list of one or more words"),
        ({"a": {"labels": ["red", "Red"]}}, ("a", "labels"), "stands twice"),
        ({"a": {"labels": ["x"], "type": "integer"}}, ("a", "type"), "labels are strings"),
        ({"a": {"type": "string", "nulable": True}}, ("a", "nulable"), "unknown key 'nulable'"),
        ({"a": {"type": "string", "nullable": "yes"}}, ("a", "nullable"), "must be true or false"),
        ({"__row__": "string"}, ("__row__",), "cannot be a field's name"),
        ({"": "string"}, ("",), "cannot be a field's name"),
        ({"a": {"b": {"c": "wrd"}}}, ("a", "b", "c"), "unknown type 'wrd'"),
    ],
)
def test_a_bad_type_is_placed_and_explained(declared, place, phrase):
    found = problems(declared)
    assert [loc for loc, _, _ in found] == [place]
    assert phrase in found[0][1]


def test_all_bad_types_are_told_at_once():
    assert len(problems({"a": "strng", "b": 5, "c": {"labels": []}})) == 3


def test_a_type_of_a_thousand_brackets_is_a_problem_and_no_crash():
    assert problems({"a": "list[" * 3000 + "string" + "]" * 3000})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["string", "list[int]"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "labels", "nullable", "a", "__b"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_whatever_is_declared_gives_a_record_or_problems(declared):
    found = []
    answer = parse_record(declared, lambda *problem: found.append(problem))
    if not found:
        assert answer.fields
        jsonschema.Draft202012Validator.check_schema(answer.json_schema())

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.document import Document, parse_document, plain_scalar, read_document, substitute
from gdo.errors import Faults


def data(text):
    return parse_document(text, "p.yaml").data


def faults(text):
    with pytest.raises(Faults) as caught:
        parse_document(text, "p.yaml")
    return [str(finding) for finding in caught.value.findings]


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "y", "n", "Yes", "NO"])
def test_a_label_no_is_a_word_and_not_false(word):
    assert data(f"labels: [{word}]") == {"labels": [word]}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        ("-7", -7),
        ("+5", 5),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-02", "2024-01-02"),
        ("12:30:00", "12:30:00"),
        ("007", "007"),
        ("1_000", "1_000"),
        ("tRUE", "tRUE"),
        ("<<", "<<"),
        ("=", "="),
        ("12 kg", "12 kg"),
    ],
)
def test_plain_words_have_the_types_of_yaml_1_2(text, value):
    found = data(f"a: {text}")["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["'12'", '"true"', "|\n  12\n", "''"])
def test_a_quoted_value_is_a_string_whatever_it_looks_like(text):
    assert isinstance(data(f"a: {text}")["a"], str)


def test_a_value_tagged_as_a_string_is_a_string():
    assert data("a: !!str 12") == {"a": "12"}


def test_a_number_of_thousands_of_digits_is_a_fault_or_a_text_and_no_crash():
    try:
        found = data("a: " + "1" * 5000)
    except Faults:
        return
    assert isinstance(found["a"], str)


@given(st.text(alphabet="0123456789+-.eE_x~ nulltrefasyo", max_size=12))
def test_a_plain_scalar_is_a_word_a_number_a_truth_or_nothing(text):
    assert plain_scalar(text) is None or type(plain_scalar(text)) in {str, int, float, bool}


def test_every_value_knows_its_line_and_column():
    document = parse_document("a: 1\nsteps:\n  - op: map\n    prompt: hi\n  - {op: sql, query: x}\n", "p.yaml")
    assert document.where(("a",)) == "p.yaml:1:1"
    assert document.where(("steps", 0)) == "p.yaml:3:5"
    assert document.where(("steps", 0, "prompt")) == "p.yaml:4:5"
    assert document.where(("steps", 1, "query")) == "p.yaml:5:15"


def test_a_value_that_is_not_there_is_placed_at_what_encloses_it():
    document = parse_document("a:\n  b: 1\n", "p.yaml")
    assert document.where(("a", "c", 3)) == "p.yaml:1:1"
    assert Document("p.yaml", None, {}).where(("x",)) == "p.yaml:1:1"


def test_a_key_that_stands_twice_is_a_fault_at_the_second():
    assert faults("a: 1\nb: 2\na: 3\n") == ["p.yaml:3:1: the key 'a' stands twice"]


def test_all_faults_of_the_form_are_told_at_once():
    assert len(faults("a: 1\na: 2\nb: !!python/name:os.system 1\nc: {{ d }}\n")) == 3


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.system ['echo hi']",
        "a: !!python/object:os.path {}",
        "a: !!python/name:os.system ''",
        "a: !thing 1",
        "!!python/object/new:dict {}",
        "a: !<tag:example.com,2024:x> 1",
    ],
)
def test_a_tag_that_would_make_an_object_is_refused_with_its_line(text):
    (fault,) = faults(text)
    assert fault.startswith("p.yaml:1:")
    assert "is not allowed" in fault


def test_aliases_cannot_blow_a_small_file_up():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (fault,) = faults("\n".join(levels))
    assert "values" in fault


def test_an_alias_of_itself_ends():
    (fault,) = faults("a: &a [*a]")
    assert "levels deep" in fault


def test_brackets_without_end_are_a_fault():
    (fault,) = faults("[" * 5000)
    assert "not YAML" in fault


def test_an_honest_alias_is_its_value():
    assert data("a: &x [1, 2]\nb: *x\n")["b"] == [1, 2]


def test_a_tab_is_named_with_its_line():
    (fault,) = faults("steps:\n\t- op: map\n")
    assert fault.startswith("p.yaml:2:1:")
    assert "spaces, not tabs" in fault


def test_two_documents_are_a_fault_at_the_second_one():
    (fault,) = faults("a: 1\n---\nb: 2\n")
    assert fault.startswith("p.yaml:2:1:")
    assert "one document" in fault or "single document" in fault


def test_a_template_without_quotes_gets_a_hint():
    (fault,) = faults("prompt: {{ title }}\n")
    assert fault.startswith("p.yaml:1:")
    assert "quotes" in fault


def test_a_colon_in_a_value_gets_a_hint():
    (fault,) = faults("prompt: Answer: yes\n")
    assert fault.startswith("p.yaml:1:")
    assert "quotes" in fault


def test_a_control_character_is_a_fault():
    assert "not YAML" in faults("a: \x00")[0]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_holds_nothing(text):
    assert data(text) is None


def test_a_file_that_is_not_utf_8_is_told_with_the_byte(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes("a: caf\u00e9".encode("latin-1"))
    with pytest.raises(Faults, match=r"not UTF-8 text \(byte 6\)"):
        read_document(path)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_document(path).data == {"a": 1}


def test_windows_line_ends_are_line_ends(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_bytes(b"a: 1\r\nb: no\r\n")
    assert read_document(path).data == {"a": 1, "b": "no"}


def test_a_file_that_is_not_there_names_its_neighbour(tmp_path):
    (tmp_path / "pipeline.yaml").write_text("a: 1")
    with pytest.raises(Faults, match=r"no such file \(did you mean 'pipeline.yaml'\?\)"):
        read_document(tmp_path / "pipelin.yaml")


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(Faults, match="is a folder"):
        read_document(tmp_path)


def put(text, given=None, environ=None):
    return substitute(parse_document(text, "p.yaml"), given or {}, environ or {})


def unset(text, given=None, environ=None):
    with pytest.raises(Faults) as caught:
        put(text, given, environ)
    return [str(finding) for finding in caught.value.findings]


def test_a_variable_alone_keeps_its_type_and_within_a_text_becomes_text():
    found = put("vars: {n: 3, who: Ann}\na: '${var:n}'\nb: 'for ${var:who}, ${var:n} times'\n").data
    assert (found["a"], found["b"]) == (3, "for Ann, 3 times")


def test_set_wins_over_the_file_and_is_read_like_yaml():
    assert put("vars: {n: 3}\na: ${var:n}\n", {"n": "7"}).data["a"] == 7
    assert put("vars: {n: 3}\na: ${var:n}\n", {"n": "no"}).data["a"] == "no"


def test_a_variable_without_a_default_is_given_by_set():
    assert put("vars: {n: ~}\na: ${var:n}\n", {"n": "x"}).data["a"] == "x"
    assert "p.yaml:2:1: ${var:n} is not set" in unset("vars: {n: ~}\na: ${var:n}\n")[0]


def test_an_environment_variable_is_text_and_remembered_as_a_secret():
    found = put("a: ${env:KEY}\nb: ['x-${env:KEY}']\n", environ={"KEY": "123"})
    assert found.data == {"a": "123", "b": ["x-123"]}
    assert set(found.secrets) == {("a",), ("b", 0)}


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}])
def test_an_unset_environment_variable_is_a_fault_with_its_line(environ):
    (fault,) = unset("a: 1\nb:\n  c: x${env:KEY}\n", environ=environ)
    assert fault == "p.yaml:3:3: ${env:KEY} is not set (set it first: export KEY=...)"


def test_all_unset_names_are_told_at_once():
    found = unset("vars: {limit: 3}\na: ${var:limt}\nb: ${env:NOPE}\nc: [1, '${var:other}']\n")
    assert len(found) == 3
    assert "did you mean 'limit'?" in found[0]
    assert found[2].startswith("p.yaml:4:8:")


def test_set_of_an_unknown_variable_names_the_nearest():
    (fault,) = unset("vars: {limit: 3}\n", {"limt": "4"})
    assert fault.startswith("--set: ")
    assert "limt" in fault
    assert fault.endswith("(did you mean 'limit'?)")


@pytest.mark.parametrize("text", ["${HOME}", "$HOME", "${file:x}", "{{ env }}", "$${x}"])
def test_nothing_else_is_substituted(text):
    assert put(f"a: '{text}'").data["a"] == text


def test_what_was_put_in_is_not_substituted_again():
    assert put("a: ${env:A}", environ={"A": "${env:B}", "B": "secret"}).data["a"] == "${env:B}"

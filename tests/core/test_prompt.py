import pickle

import pytest

from gdo.prompt import Example, Udp, plain_word
from gdo.schema import Field, Labels, ListOf, Record, Scalar
from gdo.template import Template, TemplateFault

BRAND = Record((Field("brand", Scalar("string")),))
BOTH = Record((Field("brand", Scalar("string")), Field("kids_only", Scalar("boolean"))))


def udp(output=BRAND, template="Title: {{ title }}", **more):
    return Udp("u", Template(template), output, **more)


def test_a_plain_head_shows_the_examples_as_they_will_be_continued():
    found = udp(system="Normalise.", task="Do it.", examples=(Example({"title": "NIKE AIR"}, {"brand": "Nike"}),)).head(
        "plain"
    )
    assert found.text == "Normalise.\n\nTitle: NIKE AIR\nBrand: Nike\n\n"


def test_a_plain_head_tells_the_task_where_no_example_shows_it():
    assert udp(task="Give the label.").head("plain").text == "Give the label.\n\n"


def test_the_body_ends_in_a_cue_for_the_one_field():
    made = udp(Record((Field("kids_only", Scalar("boolean")),)))
    assert made.body("Title: x", "plain") == "Title: x\nKids only:"
    assert made.body("Title: x", "chat") == "Title: x"


def test_a_prompt_that_ends_in_a_colon_is_its_own_cue():
    assert udp().body("Title: x\nIts brand:", "plain") == "Title: x\nIts brand:"


def test_several_fields_are_asked_and_shown_as_json():
    made = udp(BOTH, examples=(Example({"title": "a"}, {"brand": "Nike", "kids_only": False}),))
    assert made.head("plain").text == 'Title: a\nJSON: {"brand":"Nike","kids_only":false}\n\n'
    assert made.body("Title: b", "plain").endswith("\nJSON:")


def test_a_chat_head_has_the_system_words_and_the_examples_as_turns():
    made = udp(system="Normalise.", task="Do it.", examples=(Example({"title": "a"}, {"brand": "Nike"}),))
    assert [(m.role, m.content) for m in made.head("chat").messages] == [
        ("system", "Normalise.\n\nDo it."),
        ("user", "Title: a"),
        ("assistant", '{"brand":"Nike"}'),
    ]


def test_a_chat_head_without_words_has_no_system_turn():
    assert udp().head("chat").messages == ()


def test_a_server_that_takes_no_schema_is_told_it_in_words():
    (system,) = udp().head("chat", schema_in_prompt=True).messages
    assert '"required":["brand"]' in system.content


def test_heads_are_built_once_and_tell_what_decides_an_answer():
    made = udp()
    assert made.head("plain") is made.head("plain")
    assert udp().head("plain").digest == udp().head("plain").digest
    assert udp(system="x").head("plain").digest != udp().head("plain").digest
    assert udp(BOTH).head("chat").digest != udp().head("chat").digest
    nullable = Record((Field("brand", Scalar("string"), nullable=True),))
    assert udp(nullable).head("chat").digest != udp().head("chat").digest


def test_a_narrowed_prompt_asks_for_some_fields_and_shows_no_others():
    made = udp(BOTH, examples=(Example({"title": "a"}, {"brand": "Nike", "kids_only": True}),)).narrowed(["kids_only"])
    assert made.output.names == ("kids_only",)
    assert made.head("plain").text == "Title: a\nKids only: yes\n\n"


@pytest.mark.parametrize(
    ("value", "text"), [(True, "yes"), (False, "no"), (None, "null"), (3, "3"), (["a"], '["a"]'), ({"a": 1}, '{"a":1}')]
)
def test_a_plain_completion_writes_values_so(value, text):
    assert plain_word(value) == text


def test_fields_stands_for_all_declared_inputs_in_order():
    made = udp(template="{{ fields }}\nIn {{ lang }}", inputs=("title", "price"))
    assert made.names == made.columns == {"title", "price", "lang"}
    assert made.render({"title": "Hat", "price": None, "lang": "en"}) == "title: Hat\nprice: \nIn en"


def test_fields_shows_a_list_as_the_template_does():
    made = udp(template="{{ fields }}", inputs=("tags",))
    assert made.render({"tags": ["a", "b"]}) == 'tags: ["a", "b"]'


def test_without_declared_inputs_fields_is_a_column_like_any_other():
    made = udp(template="{{ fields }}")
    assert made.columns == {"fields"}
    assert made.render({"fields": "x"}) == "x"


def test_a_renamed_column_is_read_by_its_name_here():
    made = udp(template="{{ brand }}", renamed={"brand": "maker"})
    assert made.columns == {"maker"}
    assert made.render({"maker": "Nike"}) == "Nike"
    assert made.render({"brand": "Nike"}) == "Nike"


def test_the_rendered_prompt_has_no_blank_ends():
    assert udp(template="\n  {{ title }} \n\n").render({"title": "x"}) == "x"


def test_a_row_that_lacks_a_column_is_a_fault():
    with pytest.raises(TemplateFault, match="title"):
        udp().render({})


def test_a_udp_travels_between_processes():
    made = udp(Record((Field("l", ListOf(Labels(("a", "b")))),)), examples=(Example({"title": "a"}, {"l": ["a"]}),))
    there = pickle.loads(pickle.dumps(made))  # noqa: S301 (our own bytes)
    assert there.head("plain").text == made.head("plain").text
    assert there.render({"title": "x"}) == "Title: x"


def test_the_arguments_of_a_udp_are_in_the_order_of_its_inputs_then_its_example_then_its_template():
    output = Record((Field("a", Scalar("string")),))
    plain = Udp("p", Template("{{ title }} {{ brand }}"), output)
    assert plain.arguments == ("title", "brand")
    shown = Udp("p", Template("{{ title }} {{ brand }}"), output, examples=(Example({"brand": 1, "title": 2}, {"a": "x"}),))
    assert shown.arguments == ("brand", "title")
    declared = Udp("p", Template("{{ fields }} {{ extra }}"), output, inputs=("size", "brand"))
    assert declared.arguments == ("size", "brand", "extra")

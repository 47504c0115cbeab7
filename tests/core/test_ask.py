import re
from collections import Counter

import pyarrow as pa
import pytest

from gdo.ask import Policy
from gdo.errors import RunFailed
from gdo.prompt import Example, Udp
from gdo.schema import Field, Labels, ListOf, Record, Scalar
from gdo.seen import Seen
from gdo.template import Template

NAME = Record((Field("name", Scalar("string")),))
PAIR = Record((Field("n", Scalar("integer")), Field("name", Scalar("string"))))


def udp(output=NAME, template="{{ title }}", **more):
    return Udp("u", Template(template), output, **more)


def shout(request):
    return f'{{"name": "{request.body.upper()}"}}'


def test_a_thousand_and_one_rows_of_fifty_prompts_make_fifty_calls(bench, batch):
    here = bench(shout)
    titles = [f"t{(i * 7) % 50}" for i in range(1001)]
    answers = here.ask()(udp(), batch(title=titles, other=list(range(1001))))
    assert here.model.calls == 50
    assert answers.column("name").to_pylist() == [title.upper() for title in titles]


def test_rows_that_render_alike_share_a_call(bench, batch):
    here = bench(shout)
    here.ask()(udp(template="{{ title|lower }}"), batch(title=["A", "a", "B"]))
    assert here.model.calls == 2


def test_rows_are_looked_up_once_they_come_again_and_not_where_all_are_distinct(bench, batch, monkeypatch):
    looked_up = []
    keep = Seen.keep

    def kept(self, rows, outcomes):
        looked_up.append(rows.num_rows)
        keep(self, rows, outcomes)

    monkeypatch.setattr(Seen, "keep", kept)
    ask = bench(shout).ask()
    for start in range(0, 30, 10):
        titles = [f"t{i}" for i in range(start, start + 10)]
        assert ask(udp(), batch(title=titles)).column("name").to_pylist() == [title.upper() for title in titles]
    assert looked_up == []
    for titles in (["t5", "new"], ["t5", "new"], ["x", "x"]):
        assert ask(udp(), batch(title=titles)).column("name").to_pylist() == [title.upper() for title in titles]
    assert looked_up == [2, 1]


def test_the_order_is_kept_whatever_comes_first(bench, batch):
    here = bench(shout, latency_s=0.01, concurrency=3)
    titles = [f"t{i}" for i in range(40)][::-1]
    assert here.ask()(udp(), batch(title=titles)).column("name").to_pylist() == [title.upper() for title in titles]


def test_null_in_is_null_out_without_a_call(bench, batch):
    here = bench(shout)
    answers = here.ask()(udp(), batch(title=["a", None, "a", None]))
    assert answers.column("name").to_pylist() == ["A", None, "A", None]
    assert answers.failed.to_pylist() == [False] * 4
    assert here.model.calls == 1
    assert here.kept.failures == []


def test_a_row_with_one_null_of_two_is_asked(bench, batch):
    here = bench(shout)
    answers = here.ask()(udp(template="{{ title }}/{{ brand }}"), batch(title=["a", None], brand=[None, None]))
    assert answers.column("name").to_pylist() == ["A/", None]


def test_a_prompt_that_renders_to_nothing_is_an_error_of_its_row(bench, batch):
    here = bench(shout)
    answers = here.ask()(udp(), batch(title=["a", "  ", ""]))
    assert answers.column("name").to_pylist() == ["A", None, None]
    assert answers.failed.to_pylist() == [False, True, True]
    assert here.reasons() == [(1, "empty_prompt"), (2, "empty_prompt")]


def test_a_template_that_fails_on_a_row_is_an_error_of_its_row(bench, batch):
    here = bench(shout)
    answers = here.ask()(udp(template="{{ 6 // n }}"), batch(n=[3, 0, 2]))
    assert answers.column("name").to_pylist() == ["2", None, "3"]
    assert here.reasons() == [(1, "template")]


def test_a_faulty_reply_is_asked_again_with_the_fault_named(bench, batch):
    asked = []

    def answer(request):
        asked.append(request)
        return '{"n": 3, "name": "x"}' if request.turns else '{"n": "many", "name": "x"}'

    here = bench(answer)
    answers = here.ask(Policy(retries=1))(udp(PAIR), batch(title=["a"]))
    assert answers.record.to_pylist() == [{"n": 3, "name": "x"}]
    assert [turn.role for turn in asked[1].turns] == ["assistant", "user"]
    assert "the field 'n': 'many' is not a number" in asked[1].turns[1].content
    assert [call.attempts for call in here.kept.made] == [1, 1]
    assert here.ledger.step("step").calls == 2


def test_a_plain_model_is_told_the_fault_in_the_text(bench, batch):
    asked = []

    def answer(request):
        asked.append(request.body)
        return "7" if len(asked) > 1 else "many"

    here = bench(answer, style="plain")
    answers = here.ask()(udp(Record((Field("n", Scalar("integer")),))), batch(title=["a"]))
    assert answers.column("n").to_pylist() == [7]
    assert "'many' is not a number" in asked[1]
    assert asked[1].endswith("\nN:")


def test_only_faulty_rows_are_asked_again_and_no_more_than_told(bench, batch):
    asked = Counter()

    def answer(request):
        asked[request.body] += 1
        return "never" if request.body == "bad" else '{"n": 1, "name": "x"}'

    here = bench(answer)
    answers = here.ask(Policy(retries=3))(udp(PAIR), batch(title=["good", "bad", "bad", "fine"]))
    assert asked == {"good": 1, "bad": 4, "fine": 1}
    assert answers.failed.to_pylist() == [False, True, True, False]
    assert here.reasons() == [(1, "unparsable"), (2, "unparsable")]
    assert {failure.attempts for _, failure in here.kept.failures} == {4}
    assert here.kept.failures[0][1].raw_reply == "never"


def test_without_retries_a_row_is_asked_once(bench, batch):
    here = bench(lambda _: "never")
    here.ask(Policy(retries=0))(udp(PAIR), batch(title=["a"]))
    assert here.model.calls == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("no", "unparsable"),
        ('{"x": 1', "unparsable"),
        ('{"l": "JSON", "n": 1}', "invalid"),
        ('{"l": "a", "n": "x"}', "invalid"),
        ('{"l": "a"}', "invalid"),
    ],
)
def test_a_reply_without_json_is_told_from_one_of_another_type(bench, batch, reply, reason):
    here = bench(lambda _: reply)
    output = Record((Field("l", Labels(("a", "b"))), Field("n", Scalar("integer"))))
    here.ask()(udp(output), batch(title=["a"]))
    assert here.reasons() == [(0, reason)]


@pytest.mark.parametrize(
    "reply",
    [
        '{"n": %s, "name": "x"}' % ("1" * 5000),
        '{"n": 1, "name": "\\ud83d"}',
        '{"n": 1e400, "name": "x"}',
        "[" * 5000,
        "\x00",
    ],
)
def test_no_reply_ends_a_run(bench, batch, reply):
    here = bench(lambda _: reply)
    answers = here.ask()(udp(PAIR), batch(title=["a", "b"]))
    assert answers.record.type == PAIR.arrow()
    assert len(answers.failed) == 2


def test_a_refused_call_is_an_error_of_its_rows_and_not_asked_again(bench, batch):
    here = bench(fail_every=1, fail_with="timeout")
    answers = here.ask(Policy(retries=3))(udp(), batch(title=["a", "b", "a"]))
    assert answers.failed.to_pylist() == [True] * 3
    assert here.reasons() == [(0, "timeout"), (1, "timeout"), (2, "timeout")]
    assert here.model.calls == 2


def test_a_prompt_that_is_refused_is_not_asked_again_in_other_batches(bench, batch):
    here = bench(fail_every=1)
    for _ in range(3):
        answers = here.ask()(udp(), batch(title=["a", "b"]))
        assert answers.failed.to_pylist() == [True, True]
    assert here.model.calls == 2
    assert len(here.kept.failures) == 6


def test_on_error_fail_ends_the_run_with_step_row_and_reason(bench, batch):
    here = bench(lambda _: "never")
    with pytest.raises(RunFailed, match="step 'step', row 0: unparsable"):
        here.ask(Policy(on_error="fail"))(udp(PAIR), batch(title=["a"]))


def test_failed_rows_are_known_by_their_numbers(bench, batch):
    here = bench(lambda r: "never" if r.body == "b" else '{"n": 1, "name": "x"}')
    ask = here.ask(Policy(on_error="reject"))
    ask(udp(PAIR), batch(title=["a", "b", "c", "b"]).slice(1))
    assert ask.failed_rows == {1, 3}


def test_an_empty_batch_is_answered_by_an_empty_column(bench, batch):
    here = bench(shout)
    answers = here.ask()(udp(), batch(title=["a"]).slice(0, 0))
    assert answers.record.type == NAME.arrow()
    assert len(answers.record) == len(answers.failed) == len(answers.confidence) == 0
    assert here.model.calls == 0


def test_a_prompt_without_columns_is_asked_once_for_all_rows(bench, batch):
    here = bench(shout)
    assert here.ask()(udp(template="hello"), batch(title=["a", "b"])).column("name").to_pylist() == ["HELLO"] * 2
    assert here.model.calls == 1


def test_answers_are_cached_between_batches_and_runs(bench, batch, tmp_path):
    first = bench(shout, cache=tmp_path / "c.sqlite")
    first.ask()(udp(), batch(title=["a", "b"]))
    first.ask()(udp(), batch(title=["b", "c"]))
    assert first.model.calls == 3
    second = bench(shout, cache=tmp_path / "c.sqlite")
    assert second.ask()(udp(), batch(title=["c", "a"])).column("name").to_pylist() == ["C", "A"]
    assert second.model.calls == 0


def test_nested_answers_become_nested_columns(bench, batch):
    output = Record(
        (Field("sizes", ListOf(Record((Field("w", Scalar("number")), Field("d", Scalar("date"), nullable=True))))),)
    )
    here = bench(lambda _: '{"sizes": [{"w": 1.5, "d": "2024-01-02"}, {"w": "2"}]}')
    found = here.ask()(udp(output), batch(title=["a"])).column("sizes")
    assert found.type == output.fields[0].type.arrow()
    assert [item["w"] for item in found.to_pylist()[0]] == [1.5, 2.0]


# Labels by score: a plain model that gives log-probabilities

LABEL = Record((Field("label", Labels(("red", "blue"))),))


def test_labels_are_scored_and_calibrated_once(bench, batch):
    here = bench(style="plain")
    example = Example({"title": "sky"}, {"label": "blue"})
    made = udp(LABEL, examples=(example,))
    answers = here.ask()(made, batch(title=["a", "b", "a"]))
    assert here.model.calls == 3 + 1 + 2, "three content-free rows, an example, two distinct titles"
    assert set(answers.column("label").to_pylist()) <= {"red", "blue"}
    assert all(0.5 <= share <= 1 for share in answers.confidence.to_pylist())
    here.ask()(made, batch(title=["c"]))
    assert here.model.calls == 6 + 1, "the prior is asked once"


def test_the_prior_is_paid_for_once_with_a_cache(bench, batch, tmp_path):
    here = bench(style="plain", cache=tmp_path / "c.sqlite")
    for title in "abc":
        here.ask()(udp(LABEL), batch(title=[title]))
    assert here.model.calls == 3 + 3


def test_an_answer_does_not_depend_on_its_neighbours(bench, batch):
    titles = [f"t{i}" for i in range(20)]
    whole = bench(style="plain").ask()(udp(LABEL), batch(title=titles)).column("label").to_pylist()
    alone = [
        bench(style="plain").ask()(udp(LABEL), batch(title=[title])).column("label").to_pylist()[0] for title in titles
    ]
    assert whole == alone


def test_open_and_closed_fields_are_asked_apart_and_joined(bench, batch):
    here = bench(lambda request: re.sub(r"\W", "", request.body)[:5], style="plain")
    output = Record((*LABEL.fields, Field("name", Scalar("string")), Field("new", Scalar("boolean"))))
    found = here.ask()(udp(output), batch(title=["Shoe"])).record.to_pylist()[0]
    assert found["label"] in {"red", "blue"}
    assert found["name"] == "ShoeN"
    assert isinstance(found["new"], bool)


def test_a_chat_model_is_not_scored_and_has_no_confidence(bench, batch):
    here = bench(lambda _: '{"label": "blue"}')
    answers = here.ask()(udp(LABEL), batch(title=["a"]))
    assert here.model.calls == 1
    assert answers.confidence.null_count == 1


@pytest.mark.parametrize(
    ("template", "columns"),
    [
        ("{{ '%.2f'|format(price) }}", {"price": [1.5, 2.5]}),
        ("{% if price > 2 %}much{% else %}little{% endif %}", {"price": [1.5, 2.5]}),
        ("{{ price * 2 + 1 }}", {"price": [1.5, 2.5]}),
        ("{{ size.w }}", {"size": [{"w": 1}, {"w": 2}]}),
    ],
)
def test_a_template_that_fails_on_content_free_rows_can_still_be_scored(bench, batch, template, columns):
    here = bench(style="plain")
    answers = here.ask()(udp(LABEL, template), batch(**columns))
    assert answers.column("label").null_count == 0
    assert here.kept.failures == []


def test_a_row_whose_score_is_refused_is_an_error_of_its_row(bench, batch):
    here = bench(style="plain", fail_every=1)
    answers = here.ask()(udp(LABEL), batch(title=["a", "b"]))
    assert answers.column("label").to_pylist() == [None, None]
    assert here.reasons() == [(0, "refused"), (1, "refused")]


def test_the_answer_column_has_its_type_when_no_row_was_answered(bench, batch):
    here = bench(fail_every=1)
    answers = here.ask()(udp(PAIR), batch(title=["a"]))
    assert answers.column("n").type == pa.int64()
    assert answers.column("n").to_pylist() == [None]

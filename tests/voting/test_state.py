"""What was learned, as a file and back."""

import json
from typing import get_args

import pytest

from gdo.voting.fit import combine, fit
from gdo.voting.rules import Method
from gdo.voting.show import shown
from gdo.voting.state import State

LABELS = "abcd"


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("labels", [LABELS, None], ids=["closed", "open"])
def test_a_saved_ensemble_decides_as_before(votes, followers, method, labels):
    if labels is None and method in {"dawid_skene", "confusion"}:
        pytest.skip("needs closed labels")
    said, right = followers(40, 3)
    own = votes(said, labels, right)
    state = fit({"x": own}, method)
    again = State.from_json(state.to_json())
    assert again == state
    assert combine(again, "x", own).code.equals(combine(state, "x", own).code)
    text = shown(again)
    assert all(f"m{i}" in text for i in range(4))
    assert "say the same" in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no saved ensemble"),
        ("[]", "no saved ensemble"),
        ('{"gdo": "ensemble"}', "voters: field required"),
        ('{"gdo": "ensemble", "version": 2, "voters": ["a"], "contests": {}}', "version"),
        ('{"gdo": "ensemble", "version": 1, "voters": "a", "contests": {}}', "voters"),
    ],
)
def test_a_file_that_is_no_ensemble_is_told_in_words(text, told):
    with pytest.raises(ValueError, match="no saved ensemble") as raised:
        State.from_json(text)
    assert told in str(raised.value)


def test_an_ensemble_of_others_is_told_before_it_decides(votes):
    state = fit({"x": votes([["a", "b", "a"]], LABELS)}, "iwmv")
    assert state.misfits("x", ("m0", "m1", "m2"), tuple(LABELS)) == []
    assert "its voters are m0, m1, m2, the step's p" in state.misfits("x", ("p",), tuple(LABELS))[0]
    assert "labels of 'x' are others" in state.misfits("x", ("m0", "m1", "m2"), ("a",))[0]
    assert "not on 'y'" in state.misfits("y", ("m0",), None)[0]


def test_a_file_holds_plain_json(votes):
    whole = json.loads(fit({"x": votes([["a", "b", "a"]], LABELS)}, "iwmv").to_json())
    assert whole["contests"]["x"]["rule"]["kind"] == "weights"

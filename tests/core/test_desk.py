"""A desk that is asked again after it was stopped, or after a model was halted."""

import pytest

from gdo.ask import Policy
from gdo.errors import RunFailed, Stopped
from gdo.prompt import Udp
from gdo.schema import Field, Record, Scalar
from gdo.template import Template

UDP = Udp("u", Template("{{ t }}"), Record((Field("a", Scalar("integer")),)))


def test_after_a_stop_nothing_is_asked_until_the_desk_is_renewed(bench, batch):
    here = bench()
    here.ask()(UDP, batch(t=["one"]))
    here.desk.stop()
    with pytest.raises(Stopped):
        here.ask()(UDP, batch(t=["two"]))
    here.desk.renew()
    assert here.ask()(UDP, batch(t=["two"])).column("a").null_count == 0
    assert here.model.calls == 2


def test_a_model_that_was_halted_is_started_anew_and_the_others_stay(bench, batch):
    here = bench()
    halted = here.desk.caller("m")
    here.ask()(UDP, batch(t=["one"]))
    halted.halt(RunFailed("the model is gone"))
    with pytest.raises(RunFailed, match="the model is gone"):
        here.ask()(UDP, batch(t=["two"]))
    here.desk.renew()
    assert here.desk.caller("m") is not halted
    assert here.ask()(UDP, batch(t=["two"])).column("a").null_count == 0
    other = here.desk.caller("m")
    here.desk.renew()
    assert here.desk.caller("m") is other


def test_a_failure_of_a_named_row_tells_its_name_and_ends_no_model(bench, batch):
    here = bench(answer=lambda _: "no number")
    ask = here.ask(Policy(on_error="fail", retries=0))
    ask.named = lambda row: f"the row called {row + 1}"
    with pytest.raises(RunFailed, match="step 'step', the row called 1: "):
        ask(UDP, batch(t=["x"]))
    assert not here.desk.caller("m").stopping
    keeps = here.ask(Policy(retries=0))
    keeps.named = ask.named
    keeps(UDP, batch(t=["x"]))
    assert here.kept.failures[0][1].detail.endswith("(the row called 1)")

"""Progress: what came to a ledger since a moment."""

import io
import time

from gdo.ledger import Call, Failure, Ledger, Unrecorded
from gdo.progress import Progress, Since


def test_what_was_there_before_is_not_counted() -> None:
    ledger = Ledger(Unrecorded())
    ledger.add("f", rows_in=10, rows_out=10)
    ledger.step("f").total = 10
    ledger.failed("f", [(1, Failure("refused", "no"))])
    since = Since(ledger)
    assert since.steps["f"].rows_in == 0
    ledger.add("f", rows_in=3, rows_out=3)
    ledger.step("f").total = 15
    ledger.spent(Call("f", "m", 5, 2, 0.1, cached=False, attempts=1))
    ledger.add("g", rows_in=1)
    found = since.steps
    assert (found["f"].rows_in, found["f"].total, found["f"].calls, found["f"].errors) == (3, 5, 1, 0)
    assert found["f"].prompt_tokens + found["f"].completion_tokens == 7
    assert found["g"].rows_in == 1


def test_what_is_over_soon_shows_nothing() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with Progress({"f": 1}, Ledger(Unrecorded()), stream, after_s=60).shown():
        time.sleep(0.01)
    assert stream.getvalue() == ""


def test_a_step_that_learns_first_says_from_how_many_rows() -> None:
    ledger = Ledger(Unrecorded())
    ledger.step("source").total = 40
    shown = Progress({"vote": 0}, ledger)
    ledger.add("vote", seen=10)
    assert shown._amount("vote", ledger.step("vote")) == "learns from 10/40"
    ledger.add("vote", rows_in=5)
    assert shown._amount("vote", ledger.step("vote")) == "5/40"

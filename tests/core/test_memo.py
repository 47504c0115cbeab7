import contextlib
import threading
import time

import pytest

from gdo.answers import Outcome
from gdo.ledger import Failure
from gdo.memo import LONGEST, REMEMBERED, Memo


def test_a_memo_forgets_the_oldest_and_stays_bounded():
    memo = Memo()
    for start in range(0, REMEMBERED + 1000, 1000):
        memo.keep({str(i): i for i in range(start, start + 1000)})
    assert len(memo.known) <= REMEMBERED
    assert "0" not in memo.known
    assert memo.known[str(REMEMBERED + 999)] == REMEMBERED + 999


def test_a_memo_keeps_no_long_prompts():
    memo = Memo()
    memo.keep({"x" * (LONGEST + 1): 1})
    assert not memo.known


def test_a_memo_may_be_used_from_several_threads():
    memo = Memo()
    threads = [
        threading.Thread(target=lambda own=own: [memo.keep({f"{own} {i}": i}) for i in range(REMEMBERED // 2)])
        for own in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(memo.known) == REMEMBERED


def in_threads(count, work):
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def told(text):
    return Outcome({"answer": text})


LOST, UNASKED = Outcome(failure=Failure("timeout", "", attempts=1)), Outcome(failure=Failure("refused", "not asked"))


def test_what_several_threads_want_at_once_is_asked_once():
    memo, asked, found = Memo(), [], {}
    all_there = threading.Barrier(4)

    def work(number):
        def ask(texts):
            asked.extend(texts)
            time.sleep(0.05)
            return [LOST if text == "b" else told(text) for text in texts]

        wanted = [str(number), "a", "b"][:: (-1) ** number]
        all_there.wait()
        found[number] = memo.settle(wanted, ask)

    in_threads(4, work)
    assert sorted(asked) == ["0", "1", "2", "3", "a", "b"]
    assert all(found[number] == {str(number): told(str(number)), "a": told("a"), "b": LOST} for number in range(4))
    assert set(memo.known) == {"0", "1", "2", "3", "a"}, "what may fare better the next time is not remembered"


@pytest.mark.parametrize("how", ["raised", "was not asked"])
def test_who_waited_in_vain_asks_for_itself(how):
    memo, found = Memo(), {}
    begun = threading.Event()

    def work(number):
        def ask(texts):
            begun.set()
            if number:
                return [told("second")]
            time.sleep(0.05)
            if how == "raised":
                raise ValueError(how)
            return [UNASKED]

        if number:
            begun.wait()
        with contextlib.suppress(ValueError):
            found[number] = memo.settle(["x"], ask)

    in_threads(2, work)
    assert found[1] == {"x": told("second")}
    assert memo.known == found[1]

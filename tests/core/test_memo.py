import threading

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

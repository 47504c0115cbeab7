# Two caches on one file stand for two runs: each has a connection of its own, as two processes have.
from types import SimpleNamespace

import pytest

from gdo.cache import Cache
from gdo.model import Reply


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(s=1000.0)
    monkeypatch.setattr("gdo.claims.time", SimpleNamespace(monotonic=lambda: now.s))
    return now


@pytest.fixture
def pair(tmp_path, clock):
    caches = [Cache(tmp_path / "c.sqlite") for _ in range(2)]
    yield caches
    for cache in caches:
        cache.close()


def store(cache, *keys):
    cache.put([(key, "m", "s", Reply(text="hi")) for key in keys])


def claimed(cache):
    return {key for (key,) in cache._reads.execute("SELECT key FROM claims")}


def test_a_run_that_is_alone_may_ask_for_all_and_claims_nothing(pair):
    one = pair[0]
    assert not one.claims.join()
    assert set(one.claims.take([b"a", b"b"])) == {b"a", b"b"}
    assert claimed(one) == set()


def test_what_one_run_asks_for_another_does_not(pair):
    one, two = pair
    one.claims.join()
    one.claims.take([b"a", b"b"])
    assert two.claims.join(), "there is another one"
    one.claims.look()  # it sees that it is not alone, and says what it has in flight
    assert set(two.claims.take([b"a", b"b", b"c"])) == {b"c"}
    assert set(one.claims.take([b"c", b"d"])) == {b"d"}


def test_what_another_run_has_stored_in_the_meantime_is_not_asked_for(pair):
    one, two = pair
    one.claims.join()
    two.claims.join()
    one.claims.take([b"a"])
    store(one, b"a")
    assert set(two.claims.take([b"a", b"b"])) == {b"b"}
    assert claimed(two) == {b"b"}, "a reply that is stored ends its claim"


def test_what_a_run_gives_back_another_may_ask_for(pair):
    one, two = pair
    one.claims.join()
    two.claims.join()
    one.claims.take([b"a"])
    assert not two.claims.take([b"a"])
    one.claims.give_back([b"a"])
    assert set(two.claims.take([b"a"])) == {b"a"}


def test_a_run_that_ends_leaves_nothing_behind(pair, tmp_path):
    one, two = pair
    one.claims.join()
    two.claims.join()
    one.claims.take([b"a"])
    one.close()
    assert set(two.claims.take([b"a"])) == {b"a"}
    two.close()
    pair[:] = [Cache(tmp_path / "c.sqlite")]
    assert claimed(pair[0]) == set()
    assert not pair[0].claims.join()


def test_a_run_that_was_killed_counts_as_dead_when_its_pulse_has_stood_still(pair, clock):
    one, two = pair
    one.claims.join()
    two.claims.join()
    one.claims.take([b"a"])
    two.claims.look()
    clock.s += 9
    assert not two.claims.take([b"a"]), "it may still live"
    clock.s += 2
    assert set(two.claims.take([b"a"])) == {b"a"}
    clock.s += 100
    assert set(two.claims.take([b"b"])) == {b"b"}
    assert b"b" not in claimed(two), "alone again"


def test_a_run_that_lives_is_never_taken_for_dead_however_long_its_call(pair, clock):
    one, two = pair
    one.claims.join()
    two.claims.join()
    one.claims.take([b"a"])
    for _ in range(60):
        clock.s += 1
        one.claims.look()
        assert not two.claims.take([b"a"])


def test_a_run_that_was_held_up_and_taken_for_dead_is_seen_again(pair, clock):
    one, two = pair
    one.claims.join()
    two.claims.join()
    one.claims.look()
    two.claims.look()
    clock.s += 20
    two.claims.look()  # buries it
    clock.s += 1
    one.claims.look()
    one.claims.take([b"a"])
    assert not two.claims.take([b"a"])


def test_a_file_that_cannot_be_written_makes_a_run_ask_as_if_it_were_alone(pair):
    one, two = pair
    one.claims.join()
    two.claims.join()
    one._writes.execute("PRAGMA query_only = 1")
    assert set(one.claims.take([b"a"])) == {b"a"}
    one.claims.give_back([b"a"])
    one.claims.look()
    one._writes.execute("PRAGMA query_only = 0")

# ruff: noqa: PT012 (what is opened is closed)
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gdo.cache import Cache, decode
from gdo.errors import Faults, RunFailed
from gdo.model import Head, Message, Reply, Request, Sampling, Usage, cache_keys


def row(key, text="hi", **more):
    return key, "model", "step", Reply(text=text, usage=Usage(3, 4), **more)


@pytest.fixture
def cache(tmp_path):
    opened = Cache(tmp_path / ".gdo" / "cache.sqlite")
    yield opened
    opened.close()


def key_of(request, identity):
    return next(cache_keys([request], identity))


def test_a_reply_comes_back_as_it_was(cache):
    replies = {b"a": Reply(text="é\n{}", usage=Usage(1, 2)), b"b": Reply(scores=(-0.5, -1e-9)), b"c": Reply()}
    cache.put([(key, "m", "s", reply) for key, reply in replies.items()])
    assert cache.get([b"a", b"b", b"c", b"d"]) == replies
    assert len(cache) == 3


@given(texts=st.lists(st.text(alphabet=st.characters(codec="utf-8")), min_size=1, max_size=5))
def test_any_text_survives(tmp_path_factory, texts):
    cache = Cache(tmp_path_factory.mktemp("any") / "cache.sqlite")
    cache.put([row(bytes([i]), text) for i, text in enumerate(texts)])
    assert [cache.get([bytes([i])])[bytes([i])].text for i in range(len(texts))] == texts
    cache.close()


def test_thousands_of_keys_are_looked_up_at_once(cache):
    keys = [i.to_bytes(4, "big") for i in range(3001)]
    cache.put([row(key) for key in keys[::2]])
    assert cache.get(keys).keys() == set(keys[::2])


def test_nothing_is_found_for_no_keys(cache):
    assert cache.get([]) == {}


def test_the_first_reply_stays(cache):
    cache.put([row(b"a", "first")])
    cache.put([row(b"a", "second")])
    assert cache.get([b"a"])[b"a"].text == "first"


def test_what_was_put_is_there_after_a_restart(tmp_path):
    path = tmp_path / "cache.sqlite"
    first = Cache(path)
    first.put([row(b"a")])
    first.close()
    second = Cache(path)
    assert second.get([b"a"])[b"a"].text == "hi"
    second.close()


def test_two_connections_read_and_write_at_once(tmp_path):
    path = tmp_path / "cache.sqlite"
    caches = [Cache(path), Cache(path)]

    def work(cache, own):
        for i in range(100):
            cache.put([row(f"{own}-{i}".encode()), row(f"both-{i}".encode())])

    threads = [threading.Thread(target=work, args=(cache, own)) for own, cache in enumerate(caches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(cache) for cache in caches] == [300, 300]
    for cache in caches:
        cache.close()


FILL = """
import sys
from pathlib import Path
from gdo.cache import Cache
from gdo.model import Reply
cache = Cache(Path(sys.argv[1]))
for i in range(50):
    cache.put([(f"{sys.argv[2]}-{i}".encode(), "model", "step", Reply(text="hi"))])
cache.close()
"""


def test_two_processes_share_a_file(tmp_path):
    path = tmp_path / "cache.sqlite"
    # Programs of their own: a fork of this one would copy locks that its other threads hold.
    workers = [subprocess.Popen([sys.executable, "-c", FILL, str(path), str(own)]) for own in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    cache = Cache(path)
    assert len(cache) == 100
    cache.close()


def test_a_file_that_is_no_cache_is_told_and_left_alone(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_text("these are my notes, not a cache; " * 100)
    with pytest.raises(Faults, match=r"cannot be used as a cache: .*\(move the file away, or run with --no-cache\)"):
        Cache(path)
    assert path.read_text().startswith("these are my notes")


def test_a_database_of_another_kind_is_told(tmp_path):
    path = tmp_path / "cache.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE replies (a, b)")
    other.close()
    with pytest.raises(Faults, match="cache"):
        cache = Cache(path)
        try:
            cache.get([b"a"])
        finally:
            cache.close()


def test_a_folder_in_its_place_is_told(tmp_path):
    with pytest.raises(Faults, match="cannot be used as a cache"):
        Cache(tmp_path)


def test_a_file_that_was_cut_is_told(tmp_path):
    path = tmp_path / "cache.sqlite"
    whole = Cache(path)
    whole.put([row(i.to_bytes(4, "big"), "x" * 500) for i in range(500)])
    whole.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises((Faults, RunFailed), match=r"cache\.sqlite.*malformed"):
        cut = Cache(path)
        try:
            cut.get([i.to_bytes(4, "big") for i in range(500)])
        finally:
            cut.close()


def test_a_reply_that_was_spoilt_counts_as_missing_and_another_takes_its_place(tmp_path):
    path = tmp_path / "cache.sqlite"
    cache = Cache(path)
    cache.put([row(b"a"), row(b"b")])
    cache._writes.execute("UPDATE replies SET reply = x'7b' WHERE key = x'61'")
    cache._writes.execute("UPDATE replies SET reply = '[1]' WHERE key = x'62'")
    cache.put([row(b"c")])
    assert set(cache.get([b"a", b"b", b"c"])) == {b"c"}
    cache.put([row(b"a", "anew")])
    assert cache.get([b"a"])[b"a"].text == "anew"
    cache.close()


def test_no_prompt_is_on_disk(tmp_path):
    head = Head("chat", messages=(Message("system", "SECRETSYSTEM"),))
    key = key_of(Request(head, "SECRETBODY", Sampling()), "model")
    cache = Cache(tmp_path / "cache.sqlite")
    cache.put([(key, "model", "step", Reply(text="answer"))])
    cache.close()
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"answer" in content
    assert b"SECRET" not in content


@pytest.mark.parametrize(
    "other",
    [
        Request(Head("chat"), "b", Sampling()),
        Request(Head("plain"), "a", Sampling()),
        Request(Head("chat"), "a", Sampling(temperature=0.1)),
        Request(Head("chat"), "a", Sampling(max_tokens=9)),
        Request(Head("chat"), "a", Sampling(seed=1)),
        Request(Head("chat"), "a", Sampling(stop=("x",))),
        Request(Head("chat"), "a", Sampling(), constrained=True),
        Request(Head("chat"), "a", Sampling(), candidates=("x",)),
        Request(Head("chat"), "a", Sampling(), turns=(Message("user", "x"),)),
        Request(Head("chat", text="x"), "a", Sampling()),
    ],
)
def test_all_that_decides_a_reply_is_in_the_key(other):
    one = Request(Head("chat"), "a", Sampling())
    assert key_of(one, "m") == key_of(Request(Head("chat"), "a", Sampling()), "m")
    assert key_of(one, "m") != key_of(other, "m")
    assert key_of(one, "m") != key_of(one, "n")


def test_a_reply_that_was_altered_on_disk_is_not_believed(tmp_path):
    cache = Cache(tmp_path / "cache.sqlite")
    cache.put([row(b"k")])
    with closing(sqlite3.connect(tmp_path / "cache.sqlite")) as other, other:
        (blob,) = other.execute("SELECT reply FROM replies").fetchone()
        place = blob.index(b"hi")
        other.execute("UPDATE replies SET reply = ?", (blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :],))
    assert cache.get([b"k"]) == {}
    cache.close()


def test_how_a_reply_ended_is_kept(tmp_path):
    cache = Cache(tmp_path / "cache.sqlite")
    cache.put([(b"k", "m", "s", Reply(text="half", ended="length"))])
    assert cache.get([b"k"])[b"k"].ended == "length"
    cache.close()


def test_a_reply_that_was_stored_without_a_checksum_is_read():
    assert decode(b'["x", [], 3, 4]') == Reply(text="x", usage=Usage(3, 4))


def test_a_cache_that_another_program_holds_is_told_as_that(tmp_path, monkeypatch):
    monkeypatch.setattr("gdo.cache._PATIENCE_S", 0.1)
    cache = Cache(tmp_path / "cache.sqlite")
    with closing(sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RunFailed, match="another program holds it"):
            cache.put([row(b"k")])
    cache.close()

import os
import sqlite3
import time
from contextlib import closing

import pytest

from gdo.cache import Cache
from gdo.cachecare import find_cache, parts, prune, table, verify
from gdo.errors import Faults
from gdo.model import Reply


@pytest.fixture
def filled(tmp_path):
    """Ten replies of a model `big` and five of `small`, in a pipeline's folder."""
    path = tmp_path / ".gdo" / "cache.sqlite"
    cache = Cache(path)
    cache.put([(f"b{i}".encode(), "endpoint/big/chat", "map", Reply(text="x" * 100)) for i in range(10)])
    cache.put([(f"s{i}".encode(), "local/small", "classify", Reply(scores=(0.5,))) for i in range(5)])
    cache.close()
    (tmp_path / "pipeline.yaml").write_text("x")
    return path


def test_a_cache_is_told_by_model_and_step_the_largest_first(filled):
    found = parts(filled)
    assert [(part.model, part.step, part.replies) for part in found] == [
        ("endpoint/big/chat", "map", 10),
        ("local/small", "classify", 5),
    ]
    assert found[0].size > 1000
    lines = table(found).splitlines()
    assert lines[0].split() == ["model", "step", "replies", "MB", "oldest", "newest"]
    assert lines[1].split()[:3] == ["endpoint/big/chat", "map", "10"]


def test_a_cache_is_found_by_its_pipeline_its_folder_or_itself(filled, tmp_path):
    for place in (tmp_path / "pipeline.yaml", tmp_path, tmp_path / ".gdo", filled):
        assert find_cache(place) == filled
    with pytest.raises(Faults, match="no cache here"):
        find_cache(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        ({"model": "big"}, ["classify"]),
        ({"step": "classify"}, ["map"]),
        ({"model": "big", "step": "classify"}, ["map", "classify"]),
        ({"model": "b%g"}, ["map", "classify"]),
        ({"older_than_s": 3600}, ["map"]),
        ({"older_than_s": 3600, "model": "big"}, ["map", "classify"]),
    ],
)
def test_what_meets_all_conditions_is_removed(filled, conditions, left):
    with sqlite3.connect(filled) as db:
        db.execute(
            "UPDATE replies SET created = ? WHERE origin = (SELECT id FROM origins WHERE step = 'classify')",
            (int(time.time()) - 7200,),
        )
    before = sum(part.replies for part in parts(filled))
    removed = prune(filled, **conditions)
    after = parts(filled)
    assert [part.step for part in after] == left
    assert removed == before - sum(part.replies for part in after)
    cache = Cache(filled)
    assert len(cache) == before - removed
    cache.put([(b"new", "endpoint/big/chat", "map", Reply(text="y"))])
    cache.close()


def test_damaged_replies_are_found(filled):
    assert verify(filled) == (15, [])
    with sqlite3.connect(filled) as db:
        db.execute("UPDATE replies SET reply = x'7b' WHERE key = ?", (b"b3",))
    whole, faults = verify(filled)
    assert whole == 14
    assert faults[0].startswith(f"reply {b'b3'.hex()}: ")


def test_a_file_that_is_no_cache_is_told(tmp_path):
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(Faults, match="can be read"):
        parts(path)
    whole, faults = verify(path)
    assert (whole, len(faults)) == (0, 1)


def test_one_flipped_bit_in_a_reply_is_found(filled):
    with closing(sqlite3.connect(filled)) as other, other:
        (blob,) = other.execute("SELECT reply FROM replies WHERE key = ?", (b"b3",)).fetchone()
        other.execute("UPDATE replies SET reply = ? WHERE key = ?", (blob.replace(b"xx", b"xy", 1), b"b3"))
    whole, faults = verify(filled)
    assert whole == 14
    assert len(faults) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_in_a_folder_that_cannot_be_written_is_read(filled):
    filled.chmod(0o444)
    filled.parent.chmod(0o555)
    try:
        assert len(parts(filled)) == 2
        assert verify(filled) == (15, [])
    finally:
        filled.parent.chmod(0o755)


def test_a_pipeline_whose_replies_are_on_a_server_is_told_so(tmp_path):
    (tmp_path / "p.yaml").write_text("cache: redis://localhost:6379/0\nsource: {path: x}\n")
    with pytest.raises(Faults, match="kept by a Redis server"):
        find_cache(tmp_path / "p.yaml")


def test_a_file_that_is_neither_a_pipeline_nor_a_cache_is_told(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"PAR1\xff\xfe\x00")
    with pytest.raises(Faults, match="no cache here"):
        find_cache(tmp_path / "rows.parquet")

"""A cache in a Redis server: a real one, started for these tests on a free port."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import gdo
from gdo.model import Reply, Usage
from gdo.rediscache import PREFIX, RedisCache, open_store, shown


@contextlib.contextmanager
def started(folder: Path) -> Iterator[str]:
    """The URL of a server; where there is no redis-server, the test is skipped (CI installs one)."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server here (Debian package redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        for _ in range(200):
            with socket.socket() as line:
                if line.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
        process.terminate()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with started(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def url(server: str) -> str:
    """The server, emptied."""
    import redis

    with redis.Redis.from_url(server) as line:
        line.flushdb()
    return server


def kept(text: str) -> Reply:
    return Reply(text=text, usage=Usage(3, 4), scores=(-0.5, -1.25))


def test_what_is_put_is_there_for_everybody(url: str) -> None:
    one, other = RedisCache(url), RedisCache(url)
    one.put([(bytes([i]), "model", "step", kept(f"reply {i} ünïcode")) for i in range(200)])
    found = other.get([bytes([i]) for i in range(256)])
    assert found == {bytes([i]): kept(f"reply {i} ünïcode") for i in range(200)}
    assert len(other) == 200
    one.close()
    other.close()


def test_what_is_there_stays(url: str) -> None:
    cache = RedisCache(url)
    cache.put([(b"k", "m", "s", kept("first"))])
    cache.put([(b"k", "m", "s", kept("second"))])
    assert cache.get([b"k"])[b"k"].text == "first"


def test_a_damaged_reply_counts_as_missing_and_another_takes_its_place(url: str) -> None:
    import redis

    with redis.Redis.from_url(url) as line:
        line.set(PREFIX + b"k", b"[broken")
    cache = RedisCache(url)
    assert cache.get([b"k"]) == {}
    cache.put([(b"k", "m", "s", kept("whole"))])
    assert cache.get([b"k"])[b"k"].text == "whole"


def test_a_server_that_cannot_be_reached_is_a_fault_without_the_password() -> None:
    with pytest.raises(gdo.Faults, match=r"redis://127\.0\.0\.1:1/0 cannot be used") as told:
        RedisCache("redis://user:secret@127.0.0.1:1/0")
    assert "secret" not in str(told.value)
    assert shown("redis://user:secret@h:1/0?password=secret") == "redis://h:1/0"


def test_a_server_that_goes_away_ends_the_run_with_its_name(tmp_path: Path) -> None:
    with started(tmp_path) as url:
        cache = RedisCache(url)
    with pytest.raises(gdo.RunFailed, match="could not be stored in the cache redis://"):
        cache.put([(b"k", "m", "s", kept("lost"))])
    with pytest.raises(gdo.RunFailed, match="cannot be read"):
        cache.get([b"k"])


def test_a_place_is_a_file_or_a_url(url: str, tmp_path: Path) -> None:
    assert open_store(None) is None
    files, shared = open_store(str(tmp_path / "c.sqlite")), open_store(url)
    assert (type(files).__name__, type(shared).__name__) == ("Cache", "RedisCache")
    for store in (files, shared):
        assert store is not None
        store.close()


STEP = '{op: map, model: m, prompt: "{{ n }}", output: {a: string}}'


@pytest.mark.parametrize("runner", ["duckdb", "beam"])
def test_two_machines_share_what_is_paid_for(url: str, tmp_path: Path, runner: str) -> None:
    rows = pa.table({"n": list(range(300))})
    runs = []
    for machine in ("one", "two"):
        (tmp_path / machine).mkdir()
        path = tmp_path / machine / "p.yaml"
        path.write_text(f"cache: {url}\nmodels: {{m: {{backend: fake}}}}\nsteps:\n  - {STEP}\n", encoding="utf-8")
        runs.append(gdo.run(path, source=rows, runner=runner, batch_rows=50))
        assert not (tmp_path / machine / ".gdo" / "cache.sqlite").exists()
    assert [run.report["map"]["calls"] for run in runs] == [300, 0]
    assert runs[0].table().equals(runs[1].table())


def test_a_cache_that_is_no_url_is_a_fault_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"cache: redis.local\nmodels: {{m: {{backend: fake}}}}\nsteps:\n  - {STEP}\n", encoding="utf-8")
    with pytest.raises(gdo.Faults, match=r"p\.yaml:1:1: .*'redis\.local' is no URL of a Redis server"):
        gdo.run(path, source=pa.table({"n": [1]}))

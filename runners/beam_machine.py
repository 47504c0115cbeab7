"""One desk a machine: the processes of a run on one machine ask a server there, which owns models, cache and budget.

The server is started by the first process that wants it, and ends by itself when none is left. It listens on a socket in
a folder that only its user may enter.
"""

import contextlib
import fcntl
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, TextIO

from gdo.ask import Answering
from gdo.errors import Faults, GdoError, RunFailed
from gdo.ledger import Call, Ledger, StepCount
from gdo.model import Model, Reply, Request
from gdo.runners.beam_desk import DeskSpec, Tally, unstarted

HERE = ("here",)
"""What a process says first to the server."""
ENDS_S = 1.0
"""How long a server may take to end that hung up."""
_STARTED: dict[str, "subprocess.Popen[bytes]"] = {}
"""The servers that this process has started."""


def _home() -> Path:
    folder = Path(tempfile.gettempdir()) / f"gdo-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise RunFailed(f"{folder}: belongs to another user, or others may enter it (remove it)")
    return folder


def socket_of(run_id: str) -> str:
    """Where the server of a run listens."""
    return str(_home() / f"{run_id}.sock")


def _lock_of(run_id: str) -> Path:
    """What a process holds that starts the server of a run."""
    return _home() / f"{run_id}.lock"


class Machine:
    """The desk that all processes of a run on this machine share, seen from one of them."""

    def __init__(self, spec: DeskSpec) -> None:
        self._spec = spec
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[Connection] = []
        self._models: dict[str, Model] = {}
        # The server takes the end of this line for the end of this process: batches ask on lines of their own.
        self._send(HERE)

    @property
    def whole(self) -> Ledger | None:
        """It is in the server."""
        return None

    def answering(self, name: str, tally: Tally) -> Answering:
        """A model, its calls counted in a tally."""
        return There(self, name, tally)

    def model(self, name: str) -> Model:
        """A model for what it says of itself; the server's is the one that answers."""
        with self._lock:
            if name not in self._models:
                self._models[name] = unstarted(self._spec, name)
            return self._models[name]

    def replies(self, name: str, step: str, requests: Sequence[Request], order: int) -> tuple[list[Reply], list[Call]]:
        """The replies, and what they took."""
        replies, calls = self._send(("replies", name, step, list(requests), order))
        return replies, calls

    def halt(self, name: str, cause: GdoError) -> None:
        """Send nothing more to a model."""
        self._send(("halt", name, cause))

    def _send(self, message: tuple[object, ...]) -> Any:
        """The answer to a message: of the type that `beam_server` gives for it."""
        try:
            connection = self._connection()
            connection.send(message)
            answer = connection.recv()
        except (EOFError, OSError):
            self._local.connection = None
            raise RunFailed(f"the machine's model server ended: {_how_ended(self._spec.run_id)}") from None
        if isinstance(answer, GdoError):
            raise answer
        return answer

    def _connection(self) -> Connection:
        """One a thread: each waits for its own answers."""
        found: Connection | None = getattr(self._local, "connection", None)
        if found is None:
            found = self._local.connection = connected(self._spec)
            with self._lock:
                self._open.append(found)
        return found

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open.clear()


class There:
    """A model of the machine's server, as one batch sees it."""

    def __init__(self, machine: Machine, name: str, tally: Tally) -> None:
        self._machine = machine
        self._name = name
        self._tally = tally

    @property
    def model(self) -> Model:
        """What it can do."""
        return self._machine.model(self._name)

    def replies(self, step: str, requests: Sequence[Request], order: int = 0) -> list[Reply]:
        """The replies in the order of the requests."""
        replies, calls = self._machine.replies(self._name, step, requests, order)
        self._tally.take(calls)
        return replies

    def halt(self, cause: GdoError) -> None:
        """Send nothing more."""
        self._machine.halt(self._name, cause)


def connected(spec: DeskSpec) -> Connection:
    """A line to the server of a run on this machine, which is started where there is none.

    Raises:
        Faults, RunFailed: it does not come up.
    """
    line = _called(spec.run_id)
    if line is not None:
        return line
    with _alone(spec.run_id):  # one process starts it, the others wait
        line = _called(spec.run_id)
        if line is None:
            _start(spec)
            line = _called(spec.run_id)
    if line is None:
        raise RunFailed("the machine's model server does not answer")
    return line


@contextlib.contextmanager
def _alone(run_id: str) -> Iterator[None]:
    """No other process of this machine is within at the same time."""
    path = _lock_of(run_id)
    while True:
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if _is_at(lock, path):
                yield
                return


def _is_at(lock: TextIO, path: Path) -> bool:
    """Whether an open file is still the one of that name: who had it before may have removed it."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False


def sweep() -> None:
    """Remove what servers left that were killed."""
    for left in {path.stem for path in _home().iterdir() if path.suffix in {".lock", ".sock"}}:
        tidy(left)


def tidy(run_id: str) -> None:
    """Remove the lock and the socket of a run whose server is gone, unless somebody is starting one."""
    path = _lock_of(run_id)
    with contextlib.suppress(OSError), path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        line = _called(run_id)
        if line is not None:
            line.close()
        elif _is_at(lock, path):
            Path(socket_of(run_id)).unlink(missing_ok=True)
            path.unlink()


def _called(run_id: str) -> Connection | None:
    try:
        return Client(socket_of(run_id), "AF_UNIX")
    except (FileNotFoundError, ConnectionRefusedError):
        return None


def _start(spec: DeskSpec) -> None:
    sweep()
    command = [sys.executable, "-m", "gdo.runners.beam_server"]
    # A session of its own: Ctrl-C is for the launcher, which tells the server.
    process = subprocess.Popen(  # noqa: S603 (this interpreter, this module)
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None  # noqa: S101 (asked for)
    assert process.stdout is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(pickle.dumps((list(sys.path), pickle.dumps(spec))))
        process.stdin.close()
    said = process.stdout.readline().decode().strip()
    process.stdout.close()
    _STARTED[spec.run_id] = process
    threading.Thread(target=process.wait, daemon=True).start()  # no zombie is left where this process lives on
    if said != "ready":
        status, _, why = said.partition(" ")
        if status == str(Faults.exit_status):
            raise Faults.one("the machine's model server", f"it does not start: {why}")
        raise RunFailed(f"the machine's model server does not start: {why or 'it ended at once'}")


def _how_ended(run_id: str) -> str:
    """What became of a server, as far as this process can know."""
    process = _STARTED.get(run_id)
    with contextlib.suppress(subprocess.TimeoutExpired):
        if process is not None:
            status = process.wait(timeout=ENDS_S)
            return f"it was killed by signal {-status}" if status < 0 else f"it ended with status {status}"
    return "it was killed, or the line to it broke"


def dismiss(run_id: str, wait_s: float = 0.0) -> None:
    """End the server of a run on this machine, if there is one; wait for what it has in flight, but not for ever."""
    _tell(run_id, "end", wait_s)
    for left in (Path(socket_of(run_id)), _lock_of(run_id)):
        left.unlink(missing_ok=True)


def stop(run_id: str) -> None:
    """Let the server of a run on this machine send nothing more."""
    _tell(run_id, "stop")


def totals(run_id: str) -> dict[str, StepCount]:
    """What the server of a run on this machine has counted so far: calls and tokens."""
    return _tell(run_id, "totals") or {}


def _tell(run_id: str, word: str, wait_s: float = 0.0) -> Any:
    """The answer of a server to a word; None where there is no server. `wait_s` is for it to end."""
    line = _called(run_id)
    if line is not None:
        with contextlib.suppress(EOFError, OSError), line:
            line.send((word,))
            answer = line.recv()
            line.poll(wait_s)  # it hangs up with its end
            return answer
    return None

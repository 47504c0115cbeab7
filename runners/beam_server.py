"""The server of one machine: it runs the models of a run, keeps its replies, and minds its budget, for all processes there.

Started by `beam_machine`; it ends when the last process has hung up, however that came about.
"""

import contextlib
import pickle
import sys
import threading
import time
from multiprocessing.connection import Connection, Listener
from pathlib import Path

from gdo.desk import Desk
from gdo.errors import GdoError, RunFailed, Stopped
from gdo.ledger import Ledger, Unrecorded
from gdo.model import Request
from gdo.runners.beam_desk import DeskSpec, Tally, open_cache
from gdo.runners.beam_machine import HERE, socket_of, tidy
from gdo.runners.beam_notes import Notes

LINGER_S = 10.0
"""How long a server waits for another process once none is there: stages follow each other."""


class Server:
    """Answers the processes of one machine until the last has hung up."""

    def __init__(self, spec: DeskSpec) -> None:
        self._spec = spec
        # The calls go back with the replies.
        self._ledger = Ledger(Unrecorded(), max_calls=spec.max_calls, max_tokens=spec.max_tokens)
        self._desk = Desk(spec.models, spec.folder, self._ledger, open_cache(spec))
        self._notes = Notes(spec.notes) if spec.notes else Unrecorded()
        self._lock = threading.Condition()
        self._lines = 0
        self._workers = 0
        """Processes that work for the run: each keeps one line on which it only says that it is there."""
        self._asking = 0
        self._left = False
        """Whether the last worker went away while its questions were being asked."""
        self._stopped = False
        self._idle_since = time.monotonic()
        self._ended = threading.Event()

    def serve(self) -> None:
        """Listen; return when nobody has been there for a while."""
        path = socket_of(self._spec.run_id)
        Path(path).unlink(missing_ok=True)
        # Who dismisses a server removes its socket, too.
        with contextlib.suppress(FileNotFoundError), self._desk, Listener(path, "AF_UNIX", backlog=64) as listener:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
            print("ready", flush=True)
            while not self._ended.wait(LINGER_S / 10) and not self._alone():
                pass
            self._desk.stop()
            with self._lock:
                self._lock.wait_for(lambda: not self._asking)
        tidy(self._spec.run_id)

    def _alone(self) -> bool:
        with self._lock:
            return not self._lines and time.monotonic() - self._idle_since > LINGER_S

    def _accept(self, listener: Listener) -> None:
        while not self._ended.is_set():
            try:
                line = listener.accept()
            except (OSError, EOFError):
                return
            with self._lock:
                self._lines += 1
            threading.Thread(target=self._talk, args=(line,), daemon=True).start()

    def _talk(self, line: Connection) -> None:
        works = False
        try:
            while True:
                message = line.recv()
                if message == HERE:
                    works = True
                    self._came()
                line.send(self._answer(message))
        except (EOFError, OSError):
            pass
        finally:
            line.close()
            with self._lock:
                self._lines -= 1
                self._idle_since = time.monotonic()
            if works:
                self._went()

    def _came(self) -> None:
        with self._lock:
            self._workers += 1
            again, self._left = self._left and not self._stopped, False
        if again:  # an engine tries a bundle again
            self._desk.renew()

    def _went(self) -> None:
        """What nobody will take any more is not sent; what is in flight is finished and stored."""
        with self._lock:
            self._workers -= 1
            self._left = not self._workers and self._asking > 0
            left = self._left
        if left:
            self._desk.stop()

    def _replies(self, name: str, step: str, requests: list[Request], order: int) -> object:
        tally = Tally(self._ledger)
        with self._lock:
            if not self._workers:
                raise Stopped("nobody waits for it")
            self._asking += 1
        try:
            with contextlib.ExitStack() as last:
                last.callback(lambda: self._notes.calls(tally.kept.requests))
                replies = self._desk.caller(name).replies(step, requests, order, tally)
        finally:
            with self._lock:
                self._asking -= 1
                self._lock.notify_all()
        return replies, tally.kept.requests

    def _answer(self, message: tuple[object, ...]) -> object:
        try:
            match message:
                case ("replies", str(name), str(step), list(requests), int(order)):
                    return self._replies(name, step, requests, order)
                case ("halt", str(name), GdoError() as cause):
                    self._desk.caller(name).halt(cause)
                case ("stop" | "end" as word,):
                    self._stopped = True
                    self._desk.stop()
                    if word == "end":
                        self._ended.set()
                case ("totals",):
                    return self._ledger.steps
        except GdoError as error:
            return error
        except Exception as error:  # noqa: BLE001 (a worker's edge: who waits must hear of it)
            return RunFailed(f"the machine's model server: {type(error).__name__}: {error}")
        return None


def main() -> None:
    """Serve the run that is told on standard input."""
    paths, packed = pickle.loads(sys.stdin.buffer.read())  # noqa: S301 (from the process that started this one)
    sys.path[:] = paths
    spec: DeskSpec = pickle.loads(packed)  # noqa: S301
    try:
        server = Server(spec)
    except GdoError as error:
        print(error.exit_status, error, flush=True)
        return
    server.serve()


if __name__ == "__main__":
    main()

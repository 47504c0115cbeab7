"""The desk that all bundles of a run in one process share: the launcher's where it is here, else that of the machine."""

import threading

from gdo.desk import Desk
from gdo.runners.beam_desk import Counter, DeskSpec, Here, WorkerDesk
from gdo.runners.beam_machine import Machine
from gdo.runners.beam_notes import Notes

_LOCK = threading.Lock()
_HERE: dict[str, Desk] = {}
_OPEN: dict[str, tuple[WorkerDesk, int]] = {}


def offer(run_id: str, desk: Desk) -> None:
    """Let the workers of a run that are in this process use its desk."""
    _HERE[run_id] = desk


def withdraw(run_id: str) -> None:
    """The run is over; what is in flight is waited for."""
    _HERE.pop(run_id, None)
    with _LOCK:
        worker, _ = _OPEN.pop(run_id, (None, 0))
    if worker is not None:
        worker.close(wait=True)


def acquire(spec: DeskSpec) -> WorkerDesk:
    """The desk of a run in this process, opened at the first call; each call is answered by a `release`."""
    with _LOCK:
        worker, users = _OPEN.get(spec.run_id, (None, 0))
        if worker is None:
            worker = WorkerDesk(_counter(spec), Notes(spec.notes) if spec.notes else None)
        _OPEN[spec.run_id] = (worker, users + 1)
        return worker


def release(spec: DeskSpec) -> None:
    """Let the desk go; the last one closes it."""
    with _LOCK:
        worker, users = _OPEN.get(spec.run_id, (None, 0))
        if worker is None:
            return
        if users > 1:
            _OPEN[spec.run_id] = (worker, users - 1)
            return
        if spec.run_id in _HERE:  # the launcher closes it: another stage may come
            _OPEN[spec.run_id] = (worker, 0)
            return
        del _OPEN[spec.run_id]
    worker.close()


def _counter(spec: DeskSpec) -> Counter:
    if spec.run_id in _HERE:
        return Here(_HERE[spec.run_id])
    return Machine(spec)

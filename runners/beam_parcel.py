"""What travels to the workers: steps and functions, packed by the launcher.

Modules that stand beside the pipeline file go along by value, so that a far worker need not have them; one that cannot
(it holds a lock, a connection) goes by its name, and the worker imports it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from apache_beam.internal.cloudpickle import cloudpickle

from gdo.errors import RunFailed

Thing = TypeVar("Thing")


class Unpackable(Exception):
    """A thing that cannot travel, and why."""


@dataclass(frozen=True, slots=True)
class Parcel(Generic[Thing]):
    """A thing as bytes, and the folder whose modules it may need."""

    payload: bytes
    folder: str

    def opened(self) -> Thing:
        """The thing.

        Raises:
            RunFailed: a module is not on this machine.
        """
        if self.folder not in sys.path and Path(self.folder).is_dir():
            sys.path.insert(0, self.folder)
        try:
            found: Thing = cloudpickle.loads(self.payload)
        except ImportError as error:
            hint = "send it along: -- --setup_file=./setup.py, or install it on the workers"
            raise RunFailed(f"a worker cannot import what the pipeline needs: {error} ({hint})") from None
        return found


def pack(thing: Thing, folder: Path) -> Parcel[Thing]:
    """A thing that can travel.

    Raises:
        Unpackable: it holds something that is of this process alone.
    """
    place = str(folder.resolve())
    try:
        with _by_value(folder.resolve()):
            return Parcel(cloudpickle.dumps(thing), place)
    except Exception:  # noqa: BLE001 (whatever a user's object raises while it is looked into)
        try:
            return Parcel(cloudpickle.dumps(thing), place)
        except Exception as error:  # noqa: BLE001
            raise Unpackable(str(error)) from None


@contextmanager
def _by_value(folder: Path) -> Iterator[None]:
    modules = [module for module in list(sys.modules.values()) if _is_beside(module, folder)]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)


def _is_beside(module: ModuleType, folder: Path) -> bool:
    """Whether a module is the pipeline's own."""
    file = getattr(module, "__file__", None)
    name = getattr(module, "__name__", "")
    if not isinstance(file, str) or name.split(".")[0] in {"gdo", "__main__"}:
        return False
    path = Path(file)
    installed = {"site-packages", "dist-packages", "__editable__"} & set(path.parts)
    return not installed and path.is_relative_to(folder) and not path.is_relative_to(sys.prefix)

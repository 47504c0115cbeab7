"""User-defined prompts over tables: the logic of a row is a sentence, its answer has a type, a model is the runtime."""

from typing import TYPE_CHECKING

from gdo.version import __version__ as __version__

if TYPE_CHECKING:
    from gdo.api import Options, Pipeline, Run, load, run
    from gdo.errors import BudgetSpent, Faults, GdoError, ModelUnready, RunFailed, Stopped
    from gdo.insql import register, relation, sql

__all__ = [
    "BudgetSpent", "Faults", "GdoError", "ModelUnready", "Options", "Pipeline", "Run", "RunFailed", "Stopped",
    "load", "register", "relation", "run", "sql",
]  # fmt: skip

_IN_SQL = {"register", "relation", "sql"}
_ERRORS = {"BudgetSpent", "Faults", "GdoError", "ModelUnready", "RunFailed", "Stopped"}


def __getattr__(name: str) -> object:
    # Loaded when first used: `import gdo` and `gdo --help` stay light.
    if name not in (*__all__, "beam"):
        raise AttributeError(f"module 'gdo' has no attribute '{name}'")
    import importlib

    if name == "beam":
        return importlib.import_module("gdo.beam")
    home = "gdo.errors" if name in _ERRORS else "gdo.insql" if name in _IN_SQL else "gdo.api"
    return getattr(importlib.import_module(home), name)

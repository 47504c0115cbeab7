"""User-defined prompts over tables: the logic of a row is a sentence, its answer has a type, a model is the runtime."""

from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gdo.api import Options, Pipeline, Run, load, run
    from gdo.errors import BudgetSpent, Faults, GdoError, ModelUnready, RunFailed, Stopped

__all__ = [
    "BudgetSpent", "Faults", "GdoError", "ModelUnready", "Options", "Pipeline", "Run", "RunFailed", "Stopped",
    "load", "run",
]  # fmt: skip

_ERRORS = {"BudgetSpent", "Faults", "GdoError", "ModelUnready", "RunFailed", "Stopped"}


def __getattr__(name: str) -> object:
    # Loaded when first used: `import gdo` and `gdo --help` stay light.
    if name not in (*__all__, "beam"):
        raise AttributeError(f"module 'gdo' has no attribute '{name}'")
    import importlib

    if name == "beam":
        return importlib.import_module("gdo.beam")
    return getattr(importlib.import_module("gdo.errors" if name in _ERRORS else "gdo.api"), name)

"""PyArrow's look for pandas, put off."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder


class _Later(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: object = None) -> None:
        """Not now."""
        if fullname.partition(".")[0] == "pandas":
            raise ImportError("pandas is put off")


def put_off_pandas() -> None:
    """Keep PyArrow from importing pandas with the first array, where it is installed: a third of a second, for nothing.

    What is asked for later (`to_pandas`) imports it all the same. Until then an array of a pandas Series keeps its NaN, which is
    null otherwise: who runs a user's code calls `expect_pandas` before.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    later = _Later()
    sys.meta_path.insert(0, later)
    try:
        pa.array([None])
    finally:
        sys.meta_path.remove(later)


def expect_pandas() -> None:
    """Let PyArrow know pandas where it is installed."""
    import pyarrow as pa

    with suppress(ImportError):
        pa.nulls(0).to_pandas()

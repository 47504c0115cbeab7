"""Tables of Python that a query names: variables of whoever called gdo, as DuckDB itself finds them in `con.sql`."""

import contextlib
import re
import sys
from types import FrameType

import duckdb

from gdo.runners.result import Result


class Variables:
    """Variables as tables of a connection, until they are let go.

    DuckDB would look for them among gdo's own variables, so meanwhile it looks for none.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._names: list[str] = []
        rows = connection.sql("SELECT current_setting('python_enable_replacements')").fetchall()
        self._wanted = bool(rows[0][0])
        if self._wanted:
            connection.sql("SET python_enable_replacements = false")

    def bring(self, error: duckdb.Error) -> bool:
        """Make the table known that an error says is missing; false where no variable of that name is a table."""
        missing = re.search(r"Table with name (.+?) does not exist", str(error))
        name = missing[1] if missing else ""
        found = _variable(name, sys._getframe()) if self._wanted and name not in self._names else None  # noqa: SLF001 (the only way to a caller)
        if found is None:
            return False
        self._connection.register(name, found.table if isinstance(found, Result) else found)
        self._names.append(name)
        return True

    def close(self) -> None:
        """Leave the connection as it was."""
        with contextlib.suppress(duckdb.Error):
            while self._names:
                self._connection.unregister(self._names.pop())
            if self._wanted:
                self._connection.sql("SET python_enable_replacements = true")


def _variable(name: str, frame: FrameType | None) -> object:
    """The innermost variable of a name outside gdo that is a table."""
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module != "gdo" and not module.startswith("gdo."):
            for place in (frame.f_locals, frame.f_globals):
                if hasattr(place.get(name), "__arrow_c_stream__"):
                    return place[name]
        frame = frame.f_back
    return None

"""Prompt functions in a DuckDB database: registered once, known to every connection on it."""

import atexit
import contextlib
import inspect
import itertools
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial

import duckdb
import pyarrow as pa
from duckdb.func import FunctionNullHandling, PythonUDFType

from gdo.database import message, scratch
from gdo.errors import Faults, Finding, GdoError, RunFailed, nearest
from gdo.runners.function import Function
from gdo.runners.session import Session
from gdo.udp import built_in

OWN = "__gdo_"
"""How the names of functions begin that no user calls."""
_TOKEN = f"{OWN}functions"
_numbers = itertools.count(1)


@dataclass
class Registry:
    """The prompt functions of one database by their names in lower case, each with the session that answers it."""

    functions: dict[str, tuple[Function, Session]] = field(default_factory=dict)

    def add(self, connection: duckdb.DuckDBPyConnection, functions: Iterable[Function], session: Session) -> None:
        """Make functions known to a database; one that has the name of an earlier one takes its place.

        Raises:
            Faults: the database has a function of that name which is none of ours.
        """
        added = list(functions)
        before = {owner for _, owner in self.functions.values()}
        theirs = _names(connection) - self.functions.keys()
        clashes = [function.name for function in added if not function.json and function.name.lower() in theirs]
        if clashes:
            hint = "give the UDP another name, or drop what has it"
            raise Faults(Finding("udps", f"'{name}' is a function of this database already", hint) for name in clashes)
        connection.execute("DROP MACRO IF EXISTS temp.prompt").fetchall()
        for function in added:
            if function.struct is not None:
                put(
                    connection, internal(function.key), function.count, function.kind, partial(session.answer, function)
                )
            if not function.json:
                session.names.append(function.name)
                put(connection, function.name, function.count, function.kind, partial(session.answer, function))
            self.functions[function.key] = (function, session)
        for owner in before - {owner for _, owner in self.functions.values()}:
            owner.close()

    def macros(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make `prompt` of two and of three arguments known to a connection: a function cannot be both, a macro can.

        The type of a result must be known before any row is: DuckDB asks the schema's shape when it binds the query.
        """
        if "prompt json" in self.functions:
            text, shape = internal("prompt json"), f"{OWN}shape"
            typed = f"from_json({text}(template, args, answer), {shape}(answer))"
            plain = f"{internal('prompt')}(template, args)"
            parts = f"(template, args) AS {plain}, (template, args, answer) AS {typed}"
            connection.execute(f"CREATE OR REPLACE TEMP MACRO prompt{parts}").fetchall()

    def told(self, error: duckdb.Error, *, bound: bool = False) -> BaseException:
        """An error of DuckDB's as gdo's: what a function raised, or a fault of the query where it was only `bound`."""
        for session in {session for _, session in self.functions.values()}:
            if session.fault is not None and "Python exception occurred" in str(error):
                return session.fault
        if bound:
            return Faults.one("query", message(error), self._hint(str(error)))
        return RunFailed(f"query: {message(error)}")

    def _hint(self, said: str) -> str:
        """What DuckDB would suggest; the prompt functions where it knows no function of a name."""
        _, unknown, rest = said.partition("Scalar Function with name ")
        if unknown:
            ours = [function.name for function, _ in self.functions.values() if not function.json]
            name = rest.split(" ")[0]
            if name in built_in():
                return f"gdo.register(connection, ['{name}']) makes it one"
            return nearest(name, {*ours, *built_in()})
        hints = [line for line in said.splitlines()[1:] if line.startswith(("Did you mean", "Candidate bindings"))]
        return hints[0] if hints else ""


def internal(name: str) -> str:
    """The name that a macro calls a function by."""
    return f"{OWN}{name.lower().replace(' ', '_')}"


def check_connection(connection: object) -> None:
    """Refuse what is no connection.

    Raises:
        Faults: it is none.
    """
    if not isinstance(connection, duckdb.DuckDBPyConnection):
        what = f"a {type(connection).__name__} is no connection of DuckDB's"
        raise Faults.one("connection", what, "for example duckdb.connect()")


_registries: dict[int, Registry] = {}
_called: dict[str, list[Callable[..., pa.Array]]] = {}
"""What DuckDB calls. It lets go of it with the connection that registered it, and would still call it on a cursor."""


def registry_of(connection: duckdb.DuckDBPyConnection) -> Registry | None:
    """The prompt functions of a connection's database; None where there are none."""
    check_connection(connection)
    try:
        # By `sql`, not `execute`: what that refuses would end a transaction of the user's.
        rows = connection.sql(f"SELECT {_TOKEN}(0)").fetchall()
    except duckdb.CatalogException:
        return None
    except duckdb.Error as error:
        raise Faults.one("connection", message(error)) from None
    return _registries[rows[0][0]]


def make_registry(connection: duckdb.DuckDBPyConnection) -> Registry:
    """The prompt functions of a connection's database; none yet where there were none.

    Raises:
        Faults: the connection is closed, or in the midst of something.
    """
    found = registry_of(connection)
    if found is None:
        number = next(_numbers)
        found = _registries[number] = Registry()
        _create(connection, _TOKEN, lambda column: pa.array([number] * len(column), pa.int64()), pa.int64())
    return found


def put(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    count: int,
    kind: pa.DataType,
    answer: Callable[[list[pa.Array]], pa.Array],
) -> None:
    """Make a function of some arguments known to a database."""

    def called(*columns: pa.ChunkedArray) -> pa.Array:
        return answer([column.combine_chunks() for column in columns])

    _create(connection, name, called, kind, count)


def drop(connection: duckdb.DuckDBPyConnection, name: str) -> None:
    """Make a function unknown again."""
    connection.remove_function(name)
    _called.pop(name, None)


def put_shape(connection: duckdb.DuckDBPyConnection, shape: Callable[[str], str]) -> None:
    """Make the function known that gives a schema as DuckDB's `from_json` wants it."""

    def called(column: pa.ChunkedArray) -> pa.Array:
        return pa.array([None if text is None else shape(text) for text in column.to_pylist()], pa.string())

    _create(connection, f"{OWN}shape", called, pa.string())


def _create(
    connection: duckdb.DuckDBPyConnection, name: str, called: Callable[..., pa.Array], kind: pa.DataType, count: int = 1
) -> None:
    # DuckDB reads the number of arguments off the signature; without types each of them is of any type.
    names = [inspect.Parameter(f"a{place}", inspect.Parameter.POSITIONAL_OR_KEYWORD) for place in range(count)]
    called.__signature__ = inspect.Signature(names)  # type: ignore[attr-defined]
    with contextlib.suppress(duckdb.Error):  # it is not there, or another connection's
        connection.remove_function(name)
    _called.setdefault(name, []).append(called)
    connection.create_function(
        name, called, None, database_type(kind), type=PythonUDFType.ARROW, null_handling=FunctionNullHandling.SPECIAL
    )


@lru_cache(maxsize=64)
def database_type(kind: pa.DataType) -> "duckdb.sqltypes.DuckDBPyType":
    """An Arrow type as DuckDB calls it."""
    with scratch() as connection:
        return connection.from_arrow(pa.schema([("answer", kind)]).empty_table()).types[0]


def _names(connection: duckdb.DuckDBPyConnection) -> set[str]:
    rows = connection.execute("SELECT DISTINCT lower(function_name) FROM duckdb_functions()").fetchall()
    return {str(name) for (name,) in rows}


def close_with(connection: duckdb.DuckDBPyConnection, session: Session) -> None:
    """Close a session when its connection is gone, or when Python ends."""

    def close() -> None:
        with contextlib.suppress(OSError, GdoError):  # the folder may be gone before us, and nobody would hear of it
            session.close()

    weakref.finalize(connection, close)
    atexit.register(close)  # a cursor may ask when the connection is gone

"""gdo from SQL: prompts as functions of DuckDB, queries that ask in one stream, pipelines as relations."""

import glob
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from gdo import api
from gdo.errors import Faults
from gdo.sink import suffix
from gdo.spec import Given

if TYPE_CHECKING:
    import duckdb

    from gdo.runners.parameters import Values
    from gdo.runners.register import Models, Udps
    from gdo.runners.result import Result
    from gdo.runners.session import Session
    from gdo.runners.sql import Prepared


def register(
    connection: "duckdb.DuckDBPyConnection",
    udps: "Udps" = (),
    *,
    model: str | None = None,
    models: "Models | None" = None,
    **options: object,
) -> "Session":
    """Make prompts functions of a DuckDB database: each UDP of `udps`, and `prompt`, `ask_bool`, `classify`.

    `udps` are folders, files, or names of shipped UDPs; `models` is like `models:` in a pipeline file, `model` one of them,
    a backend's name or a GGUF file (the only one of `models`, or else the bundled model). Options: `on_error` ("keep" or
    "fail"), `retries`, `temperature`, `cache`, `max_calls`, `max_tokens`, and `folder`, where `.gdo` is.

    Nothing is asked here. A query costs one call for each distinct prompt that is not in the cache. A null argument gives
    null without a call; a failure gives null and a row in `.errors()` of what is returned, or ends the query under
    `on_error="fail"`.

    Raises:
        Faults: a UDP, a model or an option is wrong; or a UDP has the name of a function that is there already.
    """
    from gdo.runners.register import given_options
    from gdo.runners.register import register as registered

    api.register_wings()
    return registered(connection, udps, model, models or {}, given_options(options))


def sql(
    connection: "duckdb.DuckDBPyConnection", query: str, params: "Values | None" = None, *, progress: bool = True
) -> "Result":
    """Run a SELECT whose prompts are asked first: over the distinct inputs that the rest of it leaves, in one stream.

    The rows are those that `connection.sql(query)` gives. What is returned is a relation that is there already, with
    `explain`, which says what was asked over which inputs. Where nothing was registered, `prompt`, `ask_bool` and `classify`
    of the bundled model are. `params` are the values of `?`, `$1` and `$name` in the query. With `progress`, a query that
    takes long says on standard error how far it is, and inputs that were not answered are told there.

    Costs one call for each distinct prompt that is not in the cache.

    Raises:
        Faults: it is not one SELECT, or DuckDB does not accept it; nothing was asked.
        RunFailed: it did not end; what was paid for is in the cache.
    """
    from gdo.runners.result import Result, relation_of, rows_of

    with prepared(connection, query, params) as ready, ready.shown(quiet=not progress):
        before = _lost(ready)
        ready.ask()
        table = ready.run(lambda query: rows_of(connection, query, ready.columns))
        explain, report = ready.explain(), ready.report()
    if progress and (lost := _lost(ready) - before):
        what = "1 input was" if lost == 1 else f"{lost:,} inputs were"
        told = f"gdo.sql: {what} not answered and gave NULL: {_why(ready)}"
        print(f"{told} (all: .errors() of what gdo.register returned)", file=sys.stderr)
    names = [name for name, _ in ready.columns]
    return Result(relation_of(connection, table, ready.columns), table.rename_columns(names), explain, report)


def _lost(ready: "Prepared") -> int:
    """How many inputs were not answered so far."""
    return sum(int(str(facts["errors"])) for facts in ready.report().values())


def _why(ready: "Prepared") -> str:
    """The last of the reasons for it."""
    ledgers = [group.session.ledger for group in ready.groups.values() if group.session.ledger]
    told = [(reason, detail) for ledger in ledgers for (_, reason), (_, detail) in ledger.reasons.items()]
    return ": ".join(told[-1]) if told else "no reason is known"


def prepared(connection: "duckdb.DuckDBPyConnection", query: str, params: "Values | None" = None) -> "Prepared":
    """A query of a connection's prompt functions, read and not yet asked; a context manager.

    Raises:
        Faults: it is not one SELECT, or DuckDB does not accept it.
    """
    from gdo.runners.registry import registry_of
    from gdo.runners.sql import Prepared

    if not isinstance(query, str):
        raise Faults.one("query", f"a {type(query).__name__} is no query", "give a SELECT as text")
    registry = registry_of(connection)
    if registry is None:
        register(connection)
        registry = registry_of(connection)
    assert registry is not None  # noqa: S101 (it was made above)
    return Prepared(connection, registry, query, params)


def relation(
    connection: "duckdb.DuckDBPyConnection",
    path: str | Path,
    *,
    variables: Mapping[str, object] | None = None,
    source: Given | None = None,
    **options: object,
) -> "duckdb.DuckDBPyRelation":
    """Run a pipeline, and give its rows as a relation of a connection: `gdo.relation(con, "p.yaml").filter("price > 3")`.

    A pipeline of several sinks gives its first. Variables, source and options are those of `gdo.run`; a relation of the
    connection serves as source.

    Raises:
        Faults, ModelUnready, RunFailed: as `gdo.run` does.
    """
    run = api.run(path, variables=variables, source=source, **options)  # type: ignore[arg-type]
    sink = run.plan.sinks[0].sink
    place = run.plan.folder / (sink.path or "")
    if sink.path and suffix(place.name) == ".parquet":
        return connection.read_parquet(glob.escape(str(place)))
    return connection.from_arrow(run.table())

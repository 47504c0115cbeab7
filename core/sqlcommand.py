"""`gdo sql`: what the command does."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from gdo import api, insql
from gdo.database import connect, literal, message, nodes
from gdo.errors import BudgetSpent, Faults, RunFailed, Stopped, nearest
from gdo.progress import clock
from gdo.runners.result import relation_of, rows_of
from gdo.runners.session import Session
from gdo.runners.sql import Prepared
from gdo.runners.syntax import parse
from gdo.sink import part_of
from gdo.udp import built_in

COPY = {
    "csv": "FORMAT csv, HEADER true",
    "json": "FORMAT json, ARRAY true",
    "lines": "FORMAT json, ARRAY false",
    "parquet": "FORMAT parquet, COMPRESSION zstd",
}
GOES_ON = "replies so far are kept, and the same command goes on from there"
SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "lines", ".ndjson": "lines", ".parquet": "parquet"}


def sql(options: argparse.Namespace) -> int:
    """Run one query; its rows go to standard output or to a file, all else to standard error."""

    def tell(text: str) -> None:
        if not options.quiet:
            print(text, file=sys.stderr, flush=True)

    query = _query(options)
    kind = _format(options)
    started = time.monotonic()
    _interruptible()
    goes_on = "without a cache no reply is kept" if options.no_cache else GOES_ON
    with _opened(options.db) as connection, _registered(connection, query, options, tell) as session:
        try:
            with insql.prepared(connection, query) as ready:
                if options.explain:
                    print(ready.explain())
                    return 0
                with ready.shown(quiet=options.quiet):
                    ready.ask()
                    rows = _written(connection, ready, kind, options.out)
        except KeyboardInterrupt:
            raise Stopped(f"stopped; {goes_on}") from None
        except BudgetSpent as spent:
            raise BudgetSpent(f"{spent}; {goes_on}") from None
        except RuntimeError as error:  # how DuckDB tells it, in the midst of its own work
            if "interrupted" not in str(error):
                raise
            raise Stopped(f"stopped; {goes_on}") from None
        told, *lost = _told(session, rows, time.monotonic() - started)
        tell(told)
        for line in lost:
            print(line, file=sys.stderr, flush=True)
    if options.out is not None:
        print(options.out)
    return 0


def _interruptible() -> None:
    """Ctrl-C stops a query also where the shell lets it be ignored, as it does for `gdo run`."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _query(options: argparse.Namespace) -> str:
    if options.query not in (None, "-"):
        return str(options.query)
    if sys.stdin.isatty():
        raise Faults.one("QUERY", "is missing", "give it as an argument, or on standard input")
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise Faults.one("QUERY", f"is not UTF-8 text (byte {error.start})") from None


def _format(options: argparse.Namespace) -> str:
    """The format of the rows, checked before anything is asked."""
    out: Path | None = options.out
    kind = options.format or (SUFFIXES.get(out.suffix.lower(), "") if out else "table")
    if not kind:
        raise Faults.one(
            "--out", f"'{out}' tells no format", "end it in .csv, .json, .jsonl or .parquet, or give --format"
        )
    if out is not None and kind == "table":
        raise Faults.one("--format", "a table is for reading, not for a file", "csv, json or parquet")
    if out is not None and (out.is_dir() or not out.absolute().parent.is_dir()):
        what = "is a folder" if out.is_dir() else f"there is no folder '{out.absolute().parent}'"
        raise Faults.one("--out", f"'{out}': {what}", "name a file")
    if kind == "parquet" and out is None and sys.stdout.isatty():
        raise Faults.one("--format", "parquet is not for a terminal", "give --out, or send it to a file")
    return kind


@contextmanager
def _opened(path: Path | None) -> Iterator[duckdb.DuckDBPyConnection]:
    if path is not None and not path.is_file():
        beside = [p.name for p in path.parent.glob("*") if p.suffix in {".db", ".ddb", ".duckdb"}]
        raise Faults.one("--db", f"no database file '{path}'", nearest(path.name, beside))
    if path is not None and not _is_database(path):
        raise Faults.one(
            "--db", f"'{path}' is no DuckDB database", f"a file of rows is read in the query: FROM '{path}'"
        )
    try:
        connection = connect(str(path), read_only=True) if path is not None else connect()
    except duckdb.Error as error:
        raise Faults.one("--db", f"'{path}' cannot be opened: {message(error)}") from None
    with connection:
        yield connection


def _is_database(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(12)[8:] == b"DUCK"
    except OSError as error:
        raise Faults.one("--db", f"'{path}' cannot be read: {error.strerror}") from None


def _registered(
    connection: duckdb.DuckDBPyConnection, query: str, options: argparse.Namespace, tell: Callable[[str], None]
) -> Session:
    """The functions of a query: those of `--udps`, and shipped UDPs that it calls."""
    pipeline = api.load(options.pipeline) if options.pipeline else None
    udps = options.udps if options.udps is not None else ["udps"] if Path("udps").is_dir() else []
    return insql.register(
        connection, [*udps, *_shipped(query, udps)], model=options.model, models=pipeline.spec.models if pipeline else None,
        cache=not options.no_cache, max_calls=options.max_calls, max_tokens=options.max_tokens,
        on_error=options.on_error, tell=tell, hide=pipeline.spec.document.hide if pipeline else str,
    )  # fmt: skip


def _shipped(query: str, udps: list[str]) -> list[str]:
    """The shipped UDPs that a query calls, where `--udps` brings none of that name."""
    given = {
        path.stem for place in udps for path in (Path(place).glob("*.y*ml") if Path(place).is_dir() else [Path(place)])
    }
    called = {str(node.get("function_name")).lower() for node in nodes(parse(query))}
    return sorted(called & built_in().keys() - given)


def _written(connection: duckdb.DuckDBPyConnection, ready: Prepared, kind: str, out: Path | None) -> int:
    """Write the rows where they go; how many they are. A file is there once it is whole."""
    if kind == "table":
        table = ready.run(lambda query: rows_of(connection, query, ready.columns))
        print(relation_of(connection, table, ready.columns))
        return int(table.num_rows)
    if out is None:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "rows"
            count = _copied(connection, ready, kind, place)
            sys.stdout.flush()
            with place.open("rb") as rows:
                shutil.copyfileobj(rows, sys.stdout.buffer)
            return count
    part = part_of(out.absolute(), str(os.getpid()))
    try:
        count = _copied(connection, ready, kind, part)
        part.replace(out)
    except OSError as error:
        raise RunFailed(f"{out}: cannot be written: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    return count


def _copied(connection: duckdb.DuckDBPyConnection, ready: Prepared, kind: str, place: Path) -> int:
    def copy(query: str) -> int:
        rows = connection.execute(f"COPY ({query}\n) TO {literal(str(place))} ({COPY[kind]})").fetchall()
        return int(rows[0][0])

    return ready.run(copy)


def _told(session: Session, rows: int, seconds: float) -> list[str]:
    """What the query took, and where its errors are."""
    facts = session.report.values()
    calls, cached, errors = (sum(int(str(f[key])) for f in facts) for key in ("calls", "cached", "errors"))
    told = ", ".join(f"{n:,} {word}{'' if n == 1 else 's'}" for n, word in ((rows, "row"), (calls, "call")))
    lines = [f"{told}, {cached:,} cached, {errors:,} {'error' if errors == 1 else 'errors'} in {clock(seconds)}"]
    if errors and session.folder is not None and session.ledger is not None:
        lines.append(f"errors: {errors:,} in {session.folder / 'errors.parquet'}")
        for (name, reason), (count, detail) in session.ledger.reasons.items():
            lines.append(f"  {name}: {count:,} x {reason}: {session.means.hide(detail)[:200]}")
    return lines

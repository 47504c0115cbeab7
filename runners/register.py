"""`gdo.register`: prompt functions for a DuckDB connection, and `gdo.sql` over them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path

import duckdb
from pydantic import ValidationError

from gdo.backend import DEFAULT_MODEL, Backend, resolve
from gdo.document import Document
from gdo.errors import Faults, Finding, nearest
from gdo.runners import library
from gdo.runners.function import Function
from gdo.runners.registry import check_connection, close_with, make_registry, put_shape
from gdo.runners.session import Means, Session
from gdo.tables import placed
from gdo.validation import findings

Udps = str | Path | Sequence[str | Path]
Models = Mapping[str, Backend | Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Given:
    """How the functions of one `gdo.register` ask."""

    on_error: str = "keep"
    retries: int = 1
    temperature: float = 0.0
    cache: bool = True
    max_calls: int | None = None
    max_tokens: int | None = None
    folder: str | Path = "."
    tell: Callable[[str], None] = lambda _: None
    hide: Callable[[str], str] = str


def given_options(options: Mapping[str, object]) -> Given:
    """Options by their names.

    Raises:
        Faults: one is not known, or `on_error` is neither keep nor fail.
    """
    known = [field.name for field in fields(Given) if field.name not in {"tell", "hide"}]
    unknown = sorted(options.keys() - {field.name for field in fields(Given)})
    faults = [Finding("gdo.register", f"unknown option '{name}'", nearest(name, known)) for name in unknown]
    if options.get("on_error", "keep") not in ("keep", "fail"):
        what = f"on_error cannot be '{options['on_error']}'"
        faults.append(Finding("gdo.register", what, "keep (null, and a row of the errors table) or fail"))
    if faults:
        raise Faults(faults)
    return Given(**options)  # type: ignore[arg-type]


def register(
    connection: duckdb.DuckDBPyConnection, udps: Udps, model: str | None, models: Models, given: Given
) -> Session:
    """Make `prompt`, `ask_bool`, `classify` and a function for each UDP known to a connection's database.

    Raises:
        Faults: a UDP, a model or an option is wrong; all at once.
    """
    check_connection(connection)
    folder = Path(given.folder)
    backends = _declared(models)
    word = model or (next(iter(backends)) if len(backends) == 1 else DEFAULT_MODEL)
    _check_model(word, backends, folder)
    keys = {"model": word, "on_error": given.on_error, "retries": given.retries, "temperature": given.temperature}
    terms = library.Terms(keys, folder)
    functions = _functions([udps] if isinstance(udps, str | Path) else udps, terms)
    means = Means(
        backends, folder, given.cache, given.max_calls, given.max_tokens, given.on_error, given.tell, given.hide
    )
    session = Session(means)
    registry = make_registry(connection)
    registry.add(connection, functions, session)
    put_shape(connection, lambda schema: library.shape(schema, terms))
    registry.macros(connection)
    close_with(connection, session)
    return session


def _declared(models: Models) -> dict[str, Backend]:
    """Models by name, each a backend or its options as they stand in a pipeline file."""
    found: dict[str, Backend] = {}
    faults: list[Finding] = []
    for name, options in models.items():
        if isinstance(options, Backend):
            found[name] = options
            continue
        where = f"models: {name}"
        word = str(options.get("backend")) if isinstance(options, Mapping) else ""
        kind = Backend.kinds.get(word)
        if kind is None:
            faults.append(Finding(where, f"unknown backend '{word}'", nearest(word, Backend.kinds)))
            continue
        try:
            found[name] = kind.model_validate(dict(options))
        except ValidationError as error:
            faults += [replace(f, where=where) for f in findings(error, kind, Document(where, options, {}))]
    if faults:
        raise Faults(faults)
    return found


def _check_model(word: str, backends: Mapping[str, Backend], folder: Path) -> None:
    try:
        what = resolve(word, dict(backends)).fault(folder)
    except Faults as error:
        raise Faults(placed(error, "model")) from None
    if what:
        raise Faults.one("model", what)


def _functions(udps: Iterable[str | Path], terms: library.Terms) -> list[Function]:
    """The general functions and those of UDPs, every fault of every file at once."""
    functions: list[Function] = []
    faults: list[Finding] = []
    with _gathered(faults):
        functions += library.general(terms)
    files: list[Path] = []
    for word in udps:
        with _gathered(faults):
            files += library.udp_files([word], terms.folder)
    for path in files:
        with _gathered(faults):
            functions.append(library.of_udp(path, terms))
    seen: dict[str, Function] = {}
    for function in functions:
        if function.key in seen:
            faults.append(Finding("udps", f"two functions are called '{function.name}'", "give one another name"))
        seen[function.key] = function
    if faults:
        raise Faults(dict.fromkeys(faults))
    return functions


@contextmanager
def _gathered(faults: list[Finding]) -> Iterator[None]:
    try:
        yield
    except Faults as error:
        faults += error.findings

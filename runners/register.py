"""`gdo.register`: prompt functions for a DuckDB connection, and `gdo.sql` over them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import duckdb
from pydantic import BaseModel, ConfigDict, Field, ValidationError

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


class Given(BaseModel):
    """How the functions of one `gdo.register` ask."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    on_error: Literal["keep", "fail"] = "keep"
    retries: int = Field(default=1, ge=0, le=20)
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    cache: bool = True
    max_calls: int | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=0)
    folder: str | Path = "."
    tell: Callable[[str], None] = lambda _: None
    hide: Callable[[str], str] = str


def given_options(options: Mapping[str, object]) -> Given:
    """Options by their names.

    Raises:
        Faults: one is not known, or has a value that it cannot have.
    """
    known = Given.model_fields.keys() - {"tell", "hide"}
    unknown = sorted(options.keys() - Given.model_fields.keys())
    faults = [Finding("gdo.register", f"unknown option '{name}'", nearest(name, known)) for name in unknown]
    try:
        given = Given.model_validate({name: value for name, value in options.items() if name not in unknown})
    except ValidationError as error:
        told = findings(error, Given, Document("gdo.register", dict(options), {(name,): (1, 1) for name in options}))
        faults += [replace(fault, where="gdo.register") for fault in told]
    if faults:
        raise Faults(faults)
    return given


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

"""The SQL functions that there are: the general ones, and one for each UDP."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from gdo.document import Document, parse_document
from gdo.errors import Faults, Finding
from gdo.op import Operator, Site
from gdo.prompted import Compiled
from gdo.runners.function import Function, Settled, answer_kind
from gdo.scalars import show
from gdo.udp import find_udp
from gdo.validation import findings

SCHEMA_HINT = "for example '{brand: string, size_ml: number}', or one type such as 'integer'"


_LISTS = re.compile(r"""(?<!["'\w])(list\[[\w\[\]]+\])""")
"""A list type in a schema of one line: within braces YAML would take its brackets for a list."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How functions ask: the keys of every step that hold for all of them, and the folder that names are relative to."""

    keys: Mapping[str, object]
    folder: Path

    def step(self, where: str, **keys: object) -> Compiled:
        """A step as a pipeline would have it.

        Raises:
            Faults: it is not one; `where` is told as the place.
        """
        document = Document(where, keys, {})
        kind = Operator.kinds[str(keys["op"])]
        try:
            op = kind.model_validate({**self.keys, **keys})
        except ValidationError as error:
            raise Faults(_told(findings(error, kind, document), where)) from None
        faults = op.prepare(Site(document, (), self.folder))
        if faults:
            raise Faults(_told(faults, where))
        assert isinstance(op, Compiled)  # noqa: S101 (only operators of one prompt are functions)
        return op


def _told(found: Iterable[Finding], where: str) -> Iterator[Finding]:
    """Findings whose place is the call, where they have no file of their own."""
    for finding in found:
        yield replace(finding, where=where) if finding.where == f"{where}:1:1" else finding


def general(terms: Terms) -> Iterator[Function]:
    """`prompt`, `ask_bool` and `classify`; `prompt` of three arguments gives JSON, for a macro to make a type of."""

    def prompted(settled: Settled) -> Compiled:
        return terms.step("prompt", op="map", prompt=settled[0], output={"answer": "string"})

    def typed(settled: Settled) -> Compiled:
        return terms.step("prompt", op="map", prompt=settled[0], output=declared(str(settled[1])))

    def asked(settled: Settled) -> Compiled:
        return terms.step("ask_bool", op="filter", prompt=settled[0])

    def classified(settled: Settled) -> Compiled:
        labels = settled[0]
        if not isinstance(labels, tuple):
            raise Faults.one("classify", f"its labels are no list: {show(labels)}", "for example ['red', 'blue']")
        return terms.step("classify", op="classify", text="{{ text }}", labels=list(labels))

    text, truth = pa.string(), pa.bool_()
    yield Function("prompt", 2, text, _remembered(prompted), settles=(0,), struct=1)
    yield Function("prompt", 3, text, _remembered(typed), settles=(0, 2), struct=1, json=True)
    yield Function("ask_bool", 2, truth, _remembered(asked), settles=(0,), struct=1)
    yield Function("classify", 2, text, _remembered(classified), settles=(1,), inputs=("text",))


def _remembered(step: Callable[[Settled], Compiled]) -> Callable[[Settled], Compiled]:
    """A template is compiled once, not once a chunk of rows."""
    return lru_cache(maxsize=256)(step)


def of_udp(path: Path, terms: Terms) -> Function:
    """The function of a UDP's file: its inputs in order, each of any type.

    Raises:
        Faults: all that is wrong in the file.
    """
    op = terms.step(str(path), op="map", udp=str(path.absolute()))
    udp = op.compiled
    inputs = udp.arguments
    if not inputs:
        raise Faults.one(str(path), "the prompt reads no column, so a function of it has no argument")
    only = udp.output.names[0] if len(udp.output.names) == 1 else ""
    return Function(udp.name, len(inputs), answer_kind(op), lambda _: op, inputs=inputs, strict=True, only=only)


def udp_files(words: Iterable[str | Path], folder: Path) -> Iterator[Path]:
    """The files that `udps` names: folders of them, files, or UDPs by name.

    Raises:
        Faults: something named is not there (the message names the nearest).
    """
    for word in words:
        path = folder / word
        if path.is_dir():
            found = sorted(p for p in path.iterdir() if p.suffix in {".yaml", ".yml"})
            if not found:
                raise Faults.one("udps", f"no UDP file in the folder '{word}'", "UDPs are files that end in .yaml")
            yield from found
        elif str(word).endswith("/"):
            raise Faults.one("udps", f"no folder '{word}'", "paths are relative to the working folder")
        else:
            try:
                yield find_udp(str(word), folder)
            except Faults as error:
                raise Faults(replace(f, where="udps", hint=_relative(f.hint)) for f in error.findings) from None


def _relative(hint: str) -> str:
    return hint.replace("the pipeline file", "the working folder")


def declared(schema: str) -> dict[str, object]:
    """The output that a schema in SQL declares: fields and types, or one type.

    >>> declared("brand: string, size_ml: number")
    {'brand': 'string', 'size_ml': 'number'}
    >>> declared("list[string]")
    {'answer': 'list[string]'}

    Raises:
        Faults: it is neither.
    """
    text = _LISTS.sub(r'"\1"', schema.strip())
    if text[:1] not in {"{", "["} and ":" in text and "\n" not in text:
        text = f"{{{text}}}"
    try:
        data = parse_document(text, "schema").data
    except Faults as error:
        raise Faults.one("prompt", f"the schema '{schema}' is {error.findings[0].what}", SCHEMA_HINT) from None
    if isinstance(data, dict) and not (
        data.keys() <= {"labels", "description"} and isinstance(data.get("labels"), list)
    ):
        return data
    if isinstance(data, str | dict) and data:
        return {"answer": data}
    raise Faults.one("prompt", f"the schema '{schema}' declares no fields", SCHEMA_HINT)


def shape(schema: str, terms: Terms) -> str:
    """The type that a schema in SQL declares, as DuckDB's `from_json` wants it.

    Raises:
        Faults: the schema is wrong.
    """
    op = terms.step("prompt", op="map", prompt="the type of an answer", output=declared(schema))
    return json.dumps(_structure(answer_kind(op)))


def _structure(kind: pa.DataType) -> object:
    if pa.types.is_struct(kind):
        return {part.name: _structure(part.type) for part in kind}
    if pa.types.is_list(kind):
        return [_structure(kind.value_type)]
    return _WORDS[kind]


_WORDS = {
    pa.string(): "VARCHAR", pa.int64(): "BIGINT", pa.float64(): "DOUBLE", pa.bool_(): "BOOLEAN", pa.date32(): "DATE",
    pa.timestamp("us"): "TIMESTAMP",
}  # fmt: skip

"""Answer types: a word in YAML -> an Arrow type and a JSON Schema; a reply -> a checked value.

The words are `string`, `integer`, `number`, `boolean`, `date`, `timestamp`, `list[T]`, `{labels: [...]}` and a nested
mapping; a field may also be `{type: WORD, labels: [...], description: ..., nullable: true}`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from gdo.errors import nearest
from gdo.scalars import ARROW, CHECKS, FORMATS, AnswerFault, fold, show

JsonSchema = dict[str, object]
Problem = Callable[[tuple[str | int, ...], str, str], None]
"""Where a fault in a declaration goes: place, what, hint."""

ALIASES = {
    "str": "string", "text": "string", "int": "integer", "float": "number", "double": "number",
    "bool": "boolean", "datetime": "timestamp",
}  # fmt: skip
MAX_NESTING = 10
_FIELD_KEYS = {"type", "labels", "description", "nullable"}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A value of one word: string, integer, number, boolean, date or timestamp."""

    word: str

    def arrow(self) -> pa.DataType:
        """The Arrow type of a column of such values."""
        return ARROW[self.word]

    def json_schema(self) -> JsonSchema:
        """The JSON Schema that such a value fulfils."""
        if self.word in FORMATS:
            return {"type": "string", "format": FORMATS[self.word]}
        return {"type": self.word}

    def check(self, value: object) -> object:
        """The value as Python holds it; near misses such as "12.5" for a number are mended.

        Raises:
            AnswerFault: it is of another type.
        """
        return CHECKS[self.word](value)


@dataclass(frozen=True, slots=True)
class Labels:
    """One of a closed set of words."""

    labels: tuple[str, ...]
    folded: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "folded", {fold(label): label for label in self.labels})

    def arrow(self) -> pa.DataType:
        """Labels are strings."""
        return pa.string()

    def json_schema(self) -> JsonSchema:
        """An enumeration."""
        return {"type": "string", "enum": list(self.labels)}

    def check(self, value: object) -> str:
        """The label as it was declared; case and outer punctuation are forgiven.

        Raises:
            AnswerFault: it is none of the labels.
        """
        if isinstance(value, bool):
            value = str(value).lower()
        found = self.folded.get(fold(str(value))) if isinstance(value, (str, int, float)) else None
        if found is None:
            raise AnswerFault(f"{show(value)} is none of the labels {', '.join(self.labels)}")
        return found


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of values of one type."""

    item: "AnswerType"

    def arrow(self) -> pa.DataType:
        """A list of the item's Arrow type."""
        return pa.list_(self.item.arrow())

    def json_schema(self) -> JsonSchema:
        """An array."""
        return {"type": "array", "items": self.item.json_schema()}

    def check(self, value: object) -> list[object]:
        """Each item checked.

        Raises:
            AnswerFault: it is no list, or an item does not fit.
        """
        if not isinstance(value, list):
            raise AnswerFault(f"{show(value)} is not a list")
        return [self.item.check(item) for item in value]


@dataclass(frozen=True, slots=True)
class Field:
    """A named part of a record."""

    name: str
    type: "AnswerType"
    description: str = ""
    nullable: bool = False

    def json_schema(self) -> JsonSchema:
        """The schema of the value, with its description and null where it is allowed."""
        schema = self.type.json_schema()
        if self.description:
            schema["description"] = self.description
        if self.nullable:
            schema["type"] = [schema["type"], "null"]
            if "enum" in schema:
                schema["enum"] = [*self.type.labels, None] if isinstance(self.type, Labels) else schema["enum"]
        return schema


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping of named fields: what a UDP's `output` is at its top."""

    fields: tuple[Field, ...]
    checks: tuple[tuple[str, Callable[[object], object], bool], ...] = field(init=False, repr=False, compare=False)
    """Each field's name, how its value is checked, and whether it may be null."""
    names: tuple[str, ...] = field(init=False, repr=False, compare=False)
    """The names of the fields, in order."""
    is_text: bool = field(init=False, repr=False, compare=False)
    """Whether it is one text and nothing else."""

    def __post_init__(self) -> None:
        checks = (
            (f.name, CHECKS[f.type.word] if isinstance(f.type, Scalar) else f.type.check, f.nullable)
            for f in self.fields
        )
        object.__setattr__(self, "checks", tuple(checks))
        object.__setattr__(self, "names", tuple(part.name for part in self.fields))
        object.__setattr__(self, "is_text", len(self.fields) == 1 and self.fields[0].type == Scalar("string"))

    def arrow(self) -> pa.DataType:
        """A struct of the fields."""
        return pa.struct([pa.field(f.name, f.type.arrow()) for f in self.fields])

    def json_schema(self) -> JsonSchema:
        """An object with every field required and no other allowed."""
        return {
            "type": "object",
            "properties": {f.name: f.json_schema() for f in self.fields},
            "required": [f.name for f in self.fields],
            "additionalProperties": False,
        }

    def check(self, value: object) -> dict[str, object]:
        """Each field checked; a field that is not nullable must be there.

        Raises:
            AnswerFault: it is no object, a field is missing or does not fit.
        """
        if not isinstance(value, dict):
            raise AnswerFault(
                f"{show(value)} is not an object with the fields {', '.join(f.name for f in self.fields)}"
            )
        out: dict[str, object] = {}
        for name, check, nullable in self.checks:
            given = value.get(name)
            if given is None:
                if not nullable:
                    raise AnswerFault(f"the field '{name}' {'is null' if name in value else 'is missing'}")
                out[name] = None
                continue
            try:
                out[name] = check(given)
            except AnswerFault as fault:
                raise AnswerFault(f"the field '{name}': {fault}") from None
        return out


AnswerType = Scalar | Labels | ListOf | Record


def parse_record(declared: object, problem: Problem) -> Record:
    """The record that an `output:` or `attributes:` mapping declares; faults go to `problem`."""
    if not isinstance(declared, Mapping) or not declared:
        problem((), "must be a mapping of field names to types", "for example {brand: string}")
        return Record(())
    return Record(tuple(_fields(declared, problem)))


def _fields(declared: Mapping[object, object], problem: Problem) -> Iterator[Field]:
    for key, word in declared.items():
        name = str(key)
        if not name or name.startswith("__"):
            problem((name,), f"'{name}' cannot be a field's name", "names must not be empty or begin with '__'")
        yield _field(name, word, _within(name, problem))


def _within(name: str, problem: Problem) -> Problem:
    return lambda loc, what, hint: problem((name, *loc), what, hint)


def _field(name: str, declared: object, problem: Problem) -> Field:
    if not (isinstance(declared, Mapping) and declared.keys() & {"type", "labels"} and _is_spec(declared)):
        return Field(name, parse_type(declared, problem))
    for key in declared.keys() - _FIELD_KEYS:
        problem((str(key),), f"unknown key '{key}'", nearest(str(key), _FIELD_KEYS))
    kind = _labels(declared["labels"], problem) if "labels" in declared else parse_type(declared["type"], problem)
    if "labels" in declared and declared.get("type", "string") not in ("string", "str", "text"):
        problem(("type",), "labels are strings", "leave `type` out beside `labels`")
    nullable = declared.get("nullable", False)
    if not isinstance(nullable, bool):
        problem(("nullable",), f"must be true or false, not {show(nullable)}", "")
    return Field(name, kind, str(declared.get("description") or ""), nullable is True)


def _is_spec(declared: Mapping[object, object]) -> bool:
    # A nested record may itself hold a field called `type`; a specification's `type` is a word of ours.
    return "labels" in declared or not isinstance(declared["type"], Mapping)


def parse_type(declared: object, problem: Problem) -> AnswerType:
    """The type that a YAML word or mapping declares; faults go to `problem`."""
    if isinstance(declared, Mapping):
        if declared.keys() & {"type", "labels"} and _is_spec(declared):
            return _field("", declared, problem).type
        return parse_record(declared, problem)
    if isinstance(declared, str):
        word = declared.strip()
        inner = re.fullmatch(r"list\[(.+)\]", word)
        if inner and word.count("[") > MAX_NESTING:
            problem((), f"more than {MAX_NESTING} lists within lists", "")
            return Scalar("string")
        if inner:
            return ListOf(parse_type(inner[1], problem))
        word = ALIASES.get(word, word)
        if word in ARROW:
            return Scalar(word)
        problem((), f"unknown type '{declared}'", nearest(word, [*ARROW, "list[string]", "labels"]))
    elif isinstance(declared, list):
        problem((), "a list is no type", "write list[string], or {labels: [...]} for a closed set")
    else:
        problem((), f"{show(declared)} is no type", "write a word such as string, or {labels: [...]}")
    return Scalar("string")


def _labels(declared: object, problem: Problem) -> Labels:
    labels = [str(label) for label in declared] if isinstance(declared, list) else []
    if not labels or not isinstance(declared, list) or any(isinstance(item, (list, dict)) for item in declared):
        problem(("labels",), "must be a list of one or more words", "for example labels: [red, blue, other]")
        return Labels(("?",))
    twice = {label for label in labels if sum(fold(label) == fold(other) for other in labels) > 1}
    if twice:
        problem(("labels",), f"the label '{min(twice)}' stands twice", "labels differ by more than case")
    return Labels(tuple(labels))

"""pydantic's complaints as findings with a place and a hint."""

import typing
from collections.abc import Iterator

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gdo.document import Document, Loc
from gdo.errors import Finding, nearest
from gdo.scalars import show

_MUST_BE = {
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def findings(error: ValidationError, model: type[BaseModel], document: Document, base: Loc = ()) -> Iterator[Finding]:
    """One finding for each complaint about `model`'s data, which stands at `base` in the document.

    A value that fits no branch of several is one complaint, not one for each branch.
    """
    told: dict[tuple[Loc, bool], tuple[str, list[str]]] = {}
    for detail in error.errors(include_url=False):
        place = _placed(tuple(detail["loc"]), document, base)
        what, hint = _words(detail, place, model, document)
        found = told.setdefault((place, detail["type"] in _MUST_BE), (what, []))
        if hint and hint not in found[1]:
            found[1].append(hint)
    for (place, _), (what, hints) in told.items():
        yield Finding(document.where(place), what, " or ".join(hints))


def _placed(loc: Loc, document: Document, base: Loc) -> Loc:
    # pydantic adds parts that name a branch of a union; only parts that stand in the file locate anything.
    place = base
    for part in loc:
        if (*place, part) in document.marks:
            place = (*place, part)
    return place


def _words(detail: ErrorDetails, place: Loc, model: type[BaseModel], document: Document) -> tuple[str, str]:
    """What is wrong, and a hint."""
    last = str(detail["loc"][-1]) if detail["loc"] else ""
    name = place[-1] if place else "this"
    subject = f"'{name}'" if isinstance(name, str) else f"entry {name + 1}"
    what = f"{subject} cannot be {document.hide(show(detail['input']))}"
    context = detail.get("ctx", {})
    hint = str(detail["msg"]).lower()
    match detail["type"]:
        case "extra_forbidden":
            what, hint = f"unknown key '{last}'", nearest(last, _known(model, tuple(detail["loc"])))
        case "missing":
            what, hint = f"'{last}' is missing", ""
        case "value_error" | "assertion_error":
            said, _, hint = document.hide(str(detail["msg"])).removeprefix("Value error, ").partition(" | ")
            what = f"{subject}: {said}"
        case "literal_error":
            hint = f"one of {context.get('expected', '')}"
        case "too_short" | "string_too_short":
            what, hint = f"{subject} must not be empty", ""
        case "string_pattern_mismatch":
            hint = f"it must be of the form {context.get('pattern', '')}"
        case kind if kind in _MUST_BE:
            hint = f"it must be {_MUST_BE[kind]}"
        case kind if kind in _BOUNDS:
            hint = f"it must be {_BOUNDS[kind][0]} {context.get(_BOUNDS[kind][1])}"
    return what, hint


def _known(model: type[BaseModel], loc: Loc) -> list[str]:
    """The keys of the model in which the last part of a place stands."""
    inside = model
    for part in loc[:-1]:
        held = next((f for name, f in inside.model_fields.items() if (f.alias or name) == part), None)
        inside = next(_models(held.annotation), inside) if held else inside
    return [field.alias or name for name, field in inside.model_fields.items()]


def _models(kind: object) -> Iterator[type[BaseModel]]:
    inside = typing.get_args(kind)
    if not inside and isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for inner in inside:
        yield from _models(inner)

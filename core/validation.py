"""pydantic's complaints as findings with a place and a hint."""

from collections.abc import Iterator, Mapping

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gdo.document import Document, Loc
from gdo.errors import Finding, nearest
from gdo.scalars import show


def findings(error: ValidationError, model: type[BaseModel], document: Document, base: Loc = ()) -> Iterator[Finding]:
    """One finding for each complaint about `model`'s data, which stands at `base` in the document."""
    for detail in error.errors(include_url=False):
        loc = tuple(part for part in detail["loc"] if not (isinstance(part, str) and part.startswith("function-")))
        place = _placed(loc, document, base)
        where = document.where(place)
        yield Finding(where, *_words(detail, loc, model, hidden=place in document.secrets))


def _placed(loc: Loc, document: Document, base: Loc) -> Loc:
    # pydantic adds parts that name a branch of a union; only parts that stand in the file locate anything.
    place = base
    for part in loc:
        if (*place, part) in document.marks:
            place = (*place, part)
    return place


def _words(detail: ErrorDetails, loc: Loc, model: type[BaseModel], *, hidden: bool) -> tuple[str, str]:
    name = str(loc[-1]) if loc else ""
    value = "the value" if hidden else show(detail["input"])
    match detail["type"]:
        case "extra_forbidden":
            known = _known(model, loc)
            return f"unknown key '{name}'", nearest(name, known)
        case "missing":
            return f"'{name}' is missing", ""
        case "value_error" | "assertion_error":
            what, _, hint = str(detail["msg"]).removeprefix("Value error, ").partition(" | ")
            return f"'{name}': {what}" if name else what, hint
        case "literal_error":
            expected = str(detail.get("ctx", {}).get("expected", ""))
            return f"'{name}' cannot be {value}", f"one of {expected}"
    return f"'{name}' cannot be {value}", str(detail["msg"]).lower().replace("input should", "should")


def _known(model: type[BaseModel], loc: Loc) -> Mapping[str, object]:
    inside: type[BaseModel] = model
    for part in loc[:-1]:
        held = inside.model_fields.get(str(part))
        kind = held.annotation if held else None
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            inside = kind
    names = dict(inside.model_fields)
    return {(field.alias or name): field for name, field in names.items()}

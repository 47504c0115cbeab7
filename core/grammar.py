"""A compact GBNF grammar for an answer type: JSON without white space, so that no token is spent on layout.

GBNF is llama.cpp's grammar language. Strings are held to `MAX_CHARS` characters and lists to `MAX_ITEMS` items: a small
model that loops ends by itself.
"""

import json
from functools import lru_cache

from gdo.schema import AnswerType, Field, Labels, ListOf, Record, Scalar

MAX_CHARS = 200
MAX_ITEMS = 20

_TERMINALS = {
    "string": "string",
    "integer": '"-"? ("0" | [1-9] [0-9]{0,17})',
    "number": '"-"? ("0" | [1-9] [0-9]{0,14}) ("." [0-9]{1,9})?',
    "boolean": '("true" | "false")',
    "date": '"\\"" day "\\""',
    "timestamp": '"\\"" day "T" [0-2] [0-9] ":" [0-5] [0-9] ":" [0-5] [0-9] "\\""',
}
_RULES = {
    "string": f'"\\"" char{{0,{MAX_CHARS}}} "\\""',
    "char": '[^"\\\\\\x00-\\x1F] | "\\\\" (["\\\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "day": '[0-9]{4} "-" [0-1] [0-9] "-" [0-3] [0-9]',
}


@lru_cache(maxsize=256)
def grammar(answer: Record, *, plain: bool = False) -> str:
    """The grammar whose sentences are the compact JSON texts of a record.

    In a `plain` completion a space stands before it, and a record of one field is its bare value, ended by a line break
    so that a number does not run on.

    >>> print(grammar(Record((Field("ok", Scalar("boolean")),))).splitlines()[0])
    root ::= "{\\"ok\\":" ("true" | "false") "}"
    """
    rules: dict[str, str] = {}
    root = _expression(answer, rules)
    if plain:
        bare = f'{_value(answer.fields[0], rules)} "\\n"' if len(answer.fields) == 1 else root
        root = f'" " {bare}'
    return "".join(f"{name} ::= {rule}\n" for name, rule in {"root": root, **rules, **_RULES}.items())


def _expression(answer: AnswerType, rules: dict[str, str]) -> str:
    match answer:
        case Scalar(word):
            return _TERMINALS[word]
        case Labels(labels):
            return "(" + " | ".join(_literal(json.dumps(label, ensure_ascii=False)) for label in labels) + ")"
        case ListOf(item):
            # A rule of its own: the engine refuses repetitions that stand within repetitions.
            rule = _expression(item, rules)
            name = f"item{'x' * len(rules)}"
            rules[name] = rule
            return f'"[" ({name} ("," {name}){{0,{MAX_ITEMS - 1}}})? "]"'
        case Record(fields):
            parts = [
                f"{_literal(('{' if i == 0 else ',') + json.dumps(f.name, ensure_ascii=False) + ':')} {_value(f, rules)}"
                for i, f in enumerate(fields)
            ]
            return " ".join(parts) + ' "}"'


def _value(part: Field, rules: dict[str, str]) -> str:
    expression = _expression(part.type, rules)
    return f'({expression} | "null")' if part.nullable else expression


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'

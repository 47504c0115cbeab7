"""A YAML file as plain data, with the line and column of every value.

YAML 1.2's core words only: `yes`, `no`, `on`, `off` and dates stay strings, so a label `no` is never `False`.
No tag makes an object, keys are unique, and aliases cannot blow a small file up.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from gdo.errors import Faults, Finding, nearest

Loc = tuple[str | int, ...]
MAX_NODES = 200_000
MAX_DEPTH = 60
LONGEST_NUMBER = 400
SHORTEST_SECRET = 6
"""Shorter values from the environment hide nothing, and hiding them would garble messages."""

_SUBSTITUTION = re.compile(r"\$\{(env|var):([^}]*)\}")
_WORDS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NULLS = {"", "~", "null", "Null", "NULL"}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_EXPONENT = re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Document:
    """What a file said: `data`, where each value stands, and which strings came from the environment."""

    path: str
    data: object
    marks: Mapping[Loc, tuple[int, int]]
    secrets: Mapping[Loc, str] = field(default_factory=dict)
    """Where a value came from the environment, and what it is."""

    def where(self, loc: Loc) -> str:
        """`file:line:column` of a value, or of its nearest enclosing value."""
        for cut in range(len(loc), -1, -1):
            mark = self.marks.get(loc[:cut])
            if mark:
                return f"{self.path}:{mark[0]}:{mark[1]}"
        return f"{self.path}:1:1"

    def hide(self, text: str) -> str:
        """A text without the values that came from the environment: they may be keys."""
        for value in self.secrets.values():
            if len(value) >= SHORTEST_SECRET:
                text = text.replace(value, "***")
        return text


def read_document(path: Path) -> Document:
    """The data of a YAML file.

    Raises:
        Faults: the file cannot be read or is not YAML of one document.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = nearest(path.name, (p.name for p in path.parent.glob("*.y*ml"))) if path.parent.is_dir() else ""
        raise Faults.one(str(path), "no such file", near) from None
    except IsADirectoryError:
        raise Faults.one(str(path), "is a folder, not a file") from None
    except UnicodeDecodeError as error:
        raise Faults.one(str(path), f"is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise Faults.one(str(path), f"cannot be read: {error.strerror}") from None
    return parse_document(text, str(path))


def parse_document(text: str, path: str = "<text>") -> Document:
    """The data of YAML text; `path` names it in messages.

    >>> parse_document("a: [1, no]").data
    {'a': [1, 'no']}
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.context_mark and "end of stream" in str(error.problem):
            mark = error.context_mark  # where the quote opens that is never closed
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else path
        what = "more than one document" if "another document" in str(error.problem) else error.problem or error.context
        raise Faults.one(where, f"not YAML: {what}", _yaml_hint(str(error.problem))) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Faults.one(path, f"not YAML: {what}") from None
    reader = _Reader(path)
    data = reader.value(node, (), 0) if node is not None else None
    if reader.findings:
        raise Faults(reader.findings)
    return Document(path, data, reader.marks)


def _yaml_hint(problem: str) -> str:
    if "\\t" in problem:
        return "indent with spaces, not tabs"
    if "mapping values are not allowed" in problem:
        return "a value that holds ': ' needs quotes"
    if "another document" in problem:
        return "a file holds a single document: no line of '---' between its parts"
    if "expected <block end>" in problem:
        return "check the indentation of this line"
    return ""


class _Reader:
    """Composed nodes to plain data, collecting marks and faults."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.marks: dict[Loc, tuple[int, int]] = {}
        self.findings: list[Finding] = []
        self.count = 0

    def fault(self, node: yaml.Node, what: str, hint: str = "") -> None:
        where = f"{self.path}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
        self.findings.append(Finding(where, what, hint))

    def value(self, node: yaml.Node, loc: Loc, depth: int) -> object:
        self.count += 1
        if self.count > MAX_NODES or depth > MAX_DEPTH:
            raise Faults.one(self.path, f"more than {MAX_NODES:,} values or {MAX_DEPTH} levels deep")
        self.marks.setdefault(loc, (node.start_mark.line + 1, node.start_mark.column + 1))
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            self.fault(node, f"the tag '{node.tag}' is not allowed", "write plain YAML values")
            return None
        if isinstance(node, yaml.MappingNode):
            return dict(self.pairs(node, loc, depth))
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*loc, i), depth + 1) for i, item in enumerate(node.value)]
        return _scalar(node) if isinstance(node, yaml.ScalarNode) else None

    def pairs(self, node: yaml.MappingNode, loc: Loc, depth: int) -> Iterator[tuple[str, object]]:
        seen: set[str] = set()
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self.fault(key_node, "a key must be a plain word", 'a template in braces needs quotes: "{{ name }}"')
                continue
            key = str(key_node.value)
            if key in seen:
                self.fault(key_node, f"the key '{key}' stands twice")
            seen.add(key)
            self.marks[(*loc, key)] = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            yield key, self.value(value_node, (*loc, key), depth + 1)


def _scalar(node: yaml.ScalarNode) -> object:
    text = str(node.value)
    # Quoted and block text is a string whatever it looks like, and so is what is tagged as one.
    tagged = node.tag.endswith(":str") and not _EXPONENT.fullmatch(text)
    return text if node.style is not None or tagged else plain_scalar(text)


def plain_scalar(text: str) -> object:
    """An unquoted YAML 1.2 scalar.

    >>> [plain_scalar(t) for t in ("12", "1.5", "true", "no", "~", "2024-01-02")]
    [12, 1.5, True, 'no', None, '2024-01-02']
    """
    if text in _WORDS:
        return _WORDS[text]
    if text in _NULLS:
        return None
    if _INTEGER.fullmatch(text) and not (text.lstrip("+-").startswith("0") and len(text.lstrip("+-")) > 1):
        return int(text) if len(text) < LONGEST_NUMBER else text
    if _FLOAT.fullmatch(text) and any(c in text for c in ".eE"):
        return float(text)
    return text


def substitute(document: Document, given: Mapping[str, str], environ: Mapping[str, str] | None = None) -> Document:
    """Put `${env:NAME}` and `${var:NAME}` in place; `given` (from `--set`) wins over the file's `vars:`.

    A scalar that is one substitution and nothing else takes the variable's type; inside a text it becomes text.

    Raises:
        Faults: a name that is not set, each with its line.
    """
    declared = document.data.get("vars") if isinstance(document.data, dict) else None
    variables: dict[str, object] = dict(declared) if isinstance(declared, dict) else {}
    known = {*variables, *_read_variables(document.data)}
    findings = [
        Finding("--set", f"no variable '{name}' in vars: of {document.path}", nearest(name, known))
        for name in given
        if name not in known
    ]
    variables |= {name: plain_scalar(text) for name, text in given.items()}
    job = _Substitution(document, variables, os.environ if environ is None else environ, findings)
    data = job.walk(document.data, ())
    if job.findings:
        raise Faults(job.findings)
    return Document(document.path, data, document.marks, job.secrets)


def _read_variables(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _read_variables(item)
    elif isinstance(value, str):
        yield from (name.strip() for kind, name in _SUBSTITUTION.findall(value) if kind == "var")


@dataclass(slots=True)
class _Substitution:
    document: Document
    variables: Mapping[str, object]
    environ: Mapping[str, str]
    findings: list[Finding]
    secrets: dict[Loc, str] = field(default_factory=dict)

    def walk(self, value: object, loc: Loc) -> object:
        if isinstance(value, dict):
            return {key: self.walk(item, (*loc, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.walk(item, (*loc, i)) for i, item in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = _SUBSTITUTION.fullmatch(value)
        if whole:
            return self.lookup(whole[1], whole[2].strip(), loc)
        return _SUBSTITUTION.sub(lambda m: str(self.lookup(m[1], m[2].strip(), loc)), value)

    def lookup(self, kind: str, name: str, loc: Loc) -> object:
        known: Mapping[str, object] = self.environ if kind == "env" else self.variables
        if name in known and known[name] not in (None, ""):
            if kind == "env":
                self.secrets[loc] = str(known[name])
            return known[name]
        if kind == "env":
            hint = f"set it first: export {name}=..."
        else:
            others = [other for other in self.variables if other != name]
            near = nearest(name, others) if others else ""
            hint = near if near.startswith("did you mean") else f"give --set {name}=..., or a value under vars:"
        self.findings.append(Finding(self.document.where(loc), f"${{{kind}:{name}}} is not set", hint))
        return ""

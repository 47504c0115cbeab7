"""Jinja2 templates over the columns of a row: sandboxed, strict about names, silent about nulls."""

import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import jinja2
import jinja2.exceptions
import jinja2.meta
import jinja2.sandbox

from gdo.errors import GdoError

MAX_TEXT = 1_000_000
"""Characters that a template may make of one row."""


class TemplateFault(GdoError):
    """A template is wrong, or cannot be rendered for a row; `line` is 1-based within the template."""

    def __init__(self, what: str, line: int = 1) -> None:
        super().__init__(what)
        self.line = line


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """No attribute of Python's insides, no change to what is passed in, no text of gigabytes."""

    intercepted_binops = frozenset({"*", "**"})

    def call_binop(self, context: jinja2.runtime.Context, operator: str, left: object, right: object) -> object:
        """Refuse products that would fill the memory."""
        for value, times in ((left, right), (right, left)):
            if isinstance(value, (str, list, tuple)) and isinstance(times, int) and len(value) * times > MAX_TEXT:
                raise jinja2.exceptions.SecurityError(f"a text of {len(value) * times:,} characters")
        if operator == "**" and isinstance(right, (int, float)) and right > 64:  # noqa: PLR2004 (2**64 is plenty)
            raise jinja2.exceptions.SecurityError("a power over 64")
        return left * right if operator == "*" else left**right  # type: ignore[operator]

    def getattr(self, obj: object, attribute: str) -> object:
        """A field of a record, also where Python's dictionaries have a method of that name."""
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)


class Null(str):
    """A null cell: no text wherever it stands in an expression, and still `is none`."""

    __slots__ = ()


NULL = Null()


def cell_text(value: object) -> object:
    """How a cell stands in a prompt: nothing for null, JSON for lists and records."""
    if value is None:
        return ""
    if callable(value) and not isinstance(value, jinja2.Undefined):
        raise jinja2.exceptions.TemplateRuntimeError(f"{getattr(value, '__name__', value)} is a function, not a value")
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=_plain)
    return value


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, (dt.date, dt.time)) else str(value)


@lru_cache(maxsize=1)
def _environment() -> _Sandbox:
    environment = _Sandbox(undefined=jinja2.StrictUndefined, finalize=cell_text, keep_trailing_newline=False)
    environment.tests["none"] = lambda value: value is None or isinstance(value, Null)
    for name in ("lipsum", "cycler", "joiner"):
        environment.globals.pop(name, None)
    return environment


@dataclass(frozen=True, slots=True)
class Name:
    """The place of a column in a template."""

    name: str


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template.

    `columns` are the names it reads and does not set itself; `attributes` the names it reads of the items of `rows`,
    where it loops over a group. A column whose name is no word is read as `row["net weight"]`. `order` is the columns as
    they appear. `parts` are the texts and names of a template that has nothing else.

    >>> Template("{{ brand }}: {{ title }}").columns == {"brand", "title"}
    True
    >>> Template("{{ brand }}: {{ title }}").render({"brand": "Nike", "title": None})
    'Nike: '
    """

    source: str
    columns: frozenset[str] = field(init=False, compare=False)
    order: tuple[str, ...] = field(init=False, compare=False, repr=False)
    attributes: frozenset[str] = field(init=False, compare=False)
    parts: tuple[str | Name, ...] | None = field(init=False, compare=False, repr=False)
    _render: Callable[..., str] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        environment = _environment()
        try:
            tree = environment.parse(self.source)
            if any(True for _ in jinja2.meta.find_referenced_templates(tree)):
                raise TemplateFault("a template cannot include, import or extend another")
            columns = jinja2.meta.find_undeclared_variables(tree)
            keyed = set(_row_keys(tree))
            if keyed and "row" in columns:
                columns = (columns - {"row"}) | keyed
            compiled = environment.from_string(self.source)
        except jinja2.TemplateSyntaxError as error:
            raise TemplateFault(f"template: {error.message}", error.lineno) from None
        except (RecursionError, SyntaxError, MemoryError):
            raise TemplateFault("template: it is nested too deeply") from None
        # A function of the language is one only where it is called; else it is a column of that name.
        called = {id(call.node) for call in tree.find_all(jinja2.nodes.Call)}
        named = {
            name.name for name in tree.find_all(jinja2.nodes.Name) if name.ctx == "load" and id(name) not in called
        }
        read = frozenset(columns | (named & set(environment.globals)))
        object.__setattr__(self, "columns", read)
        object.__setattr__(self, "order", tuple(_in_order(tree, read)))
        object.__setattr__(self, "attributes", frozenset(_attributes(tree)))
        object.__setattr__(self, "parts", _parts(tree))
        object.__setattr__(self, "_render", compiled.render)

    def __reduce__(self) -> tuple[type["Template"], tuple[str]]:
        return (Template, (self.source,))  # compiled code does not travel; the source does

    def render(self, row: Mapping[str, object]) -> str:
        """The text for one row (column name to value).

        Raises:
            TemplateFault: the row lacks a name that the template reads, or an expression fails on its values.
        """
        try:
            given = {name: NULL if value is None else value for name, value in row.items()}
            text = self._render({"row": given, **given})
        except jinja2.exceptions.SecurityError as error:
            raise TemplateFault(f"template refused: {error}") from None
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise TemplateFault(f"template: {error}") from None
        except (OverflowError, MemoryError, RecursionError) as error:
            raise TemplateFault(f"template: {type(error).__name__}") from None
        whole = bounded(text)
        if isinstance(whole, TemplateFault):
            raise whole
        return whole


def bounded(text: str) -> str | TemplateFault:
    """A rendered text, or a fault in place of one that is too long."""
    if len(text) <= MAX_TEXT:
        return text
    return TemplateFault(f"template made {len(text):,} characters (at most {MAX_TEXT:,})")


def _parts(tree: jinja2.nodes.Template) -> "tuple[str | Name, ...] | None":
    """The texts and names of a template that is nothing but these; None for any other."""
    parts: list[str | Name] = []
    for output in tree.body:
        if not isinstance(output, jinja2.nodes.Output):
            return None
        for node in output.nodes:
            if isinstance(node, jinja2.nodes.TemplateData):
                parts.append(node.data)
            elif isinstance(node, jinja2.nodes.Name) and node.name != "row":
                parts.append(Name(node.name))
            else:
                return None
    return tuple(parts)


def _in_order(tree: jinja2.nodes.Template, columns: frozenset[str]) -> Iterator[str]:
    """The columns in the order in which they first appear."""
    seen: dict[str, None] = {}
    for node in tree.find_all((jinja2.nodes.Name, jinja2.nodes.Getitem)):
        name = node.name if isinstance(node, jinja2.nodes.Name) else _key(node)
        if name in columns:
            seen.setdefault(str(name))
    return iter([*seen, *sorted(columns - seen.keys())])


def _key(node: jinja2.nodes.Node) -> object:
    """The constant in the brackets of `row["net weight"]`; None for anything else."""
    return getattr(getattr(node, "arg", None), "value", None)


def _row_keys(tree: jinja2.nodes.Template) -> Iterator[str]:
    for keyed in tree.find_all(jinja2.nodes.Getitem):
        if (
            isinstance(keyed.node, jinja2.nodes.Name)
            and keyed.node.name == "row"
            and isinstance(keyed.arg, jinja2.nodes.Const)
        ):
            yield str(keyed.arg.value)


def _attributes(tree: jinja2.nodes.Template) -> Iterator[str]:
    loops = [loop for loop in tree.find_all(jinja2.nodes.For) if _over_rows(loop.iter)]
    items = {loop.target.name for loop in loops if isinstance(loop.target, jinja2.nodes.Name)}
    for read in tree.find_all(jinja2.nodes.Getattr):
        if isinstance(read.node, jinja2.nodes.Name) and read.node.name in items:
            yield read.attr
    for keyed in tree.find_all(jinja2.nodes.Getitem):
        if (
            isinstance(keyed.node, jinja2.nodes.Name)
            and keyed.node.name in items
            and isinstance(keyed.arg, jinja2.nodes.Const)
        ):
            yield str(keyed.arg.value)
    for mapped in tree.find_all(jinja2.nodes.Filter):
        if _over_rows(mapped):
            yield from (
                str(word.value.value)
                for word in mapped.kwargs
                if word.key == "attribute" and isinstance(word.value, jinja2.nodes.Const)
            )


def _over_rows(node: jinja2.nodes.Node | None) -> bool:
    """Whether an expression is `rows`, sliced or filtered or not."""
    while isinstance(node, (jinja2.nodes.Filter, jinja2.nodes.Getitem)):
        node = node.node
    return isinstance(node, jinja2.nodes.Name) and node.name == "rows"

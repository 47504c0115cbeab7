"""User-defined prompts (UDP; LLM-GDO, arXiv 2312.16351): a template, its examples and its typed answer.

A `Udp` renders to what all rows share (`head`) and what is one row's own (`body`), in two styles: `chat` for
instruction-tuned models behind a server, and `plain` few-shot completion for small and base models.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import orjson
import pyarrow as pa

from gdo.model import Head, Message, Style, told_schema
from gdo.schema import Record
from gdo.template import Template, TemplateFault, bounded, cell_text

Row = Mapping[str, object]
Rendered = str | TemplateFault | None
"""A row's prompt, or why there is none: a fault, or nothing to ask."""


@dataclass(frozen=True, slots=True)
class Example:
    """An input row and the answer that it should get."""

    row: Row
    out: Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Udp:
    """A prompt as an operator: columns in, a record out.

    `system` is the user's own words for the model; `task` is what an operator adds for chat models, and for a plain
    completion that has no examples to show the task by.
    """

    name: str
    template: Template
    output: Record
    system: str = ""
    task: str = ""
    examples: tuple[Example, ...] = ()
    tests: tuple[Example, ...] = field(default=(), compare=False)
    version: int = 1
    description: str = field(default="", compare=False)
    inputs: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """What the template calls its inputs, with `fields` standing for all declared ones."""
        if self.inputs and "fields" in self.template.columns:
            return (self.template.columns - {"fields"}) | frozenset(self.inputs)
        return self.template.columns

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the template calls its inputs, in order: of `inputs`, of its first example, or as they appear."""
        shown = next((example.row for example in (*self.examples, *self.tests)), {})
        order = dict.fromkeys((*self.inputs, *shown, *self.template.order, *sorted(self.names)))
        return tuple(name for name in order if name in self.names)

    @property
    def columns(self) -> frozenset[str]:
        """The columns that a row must have: the template's names, or what `renamed` says they are called here."""
        return frozenset(self.renamed.get(name, name) for name in self.names)

    def render(self, row: Row) -> str:
        """The prompt of one row.

        Raises:
            TemplateFault: the template fails on this row's values.
        """
        if self.renamed:
            row = {**row, **{name: row[column] for name, column in self.renamed.items() if column in row}}
        if self.inputs and "fields" in self.template.columns:
            lines = "\n".join(f"{name}: {cell_text(row.get(name))}" for name in self.inputs)
            return self.template.render({**row, "fields": lines}).strip()
        return self.template.render(row).strip()

    def texts(self, rows: pa.RecordBatch, *, alone: bool) -> Iterator[Rendered]:
        """The prompt of each row, column by column where the template only names columns.

        None where all inputs are null: there is nothing to ask. A template that fails on a row gives its fault there. A
        prompt that reads no column is one text if `alone`.
        """
        if not self.columns:
            if alone:
                yield self._text({})
            return
        columns = {name: _cells(rows.column(name)) for name in rows.schema.names}
        empty: Iterable[bool] = itertools.repeat(False, rows.num_rows)
        if all(column.null_count for column in rows.columns):
            empty = [all(value is None for value in cells) for cells in zip(*columns.values(), strict=True)]
        parts = self.template.parts
        if parts is None or (self.inputs and "fields" in self.template.columns):
            for cells, nothing in zip(zip(*columns.values(), strict=True), empty, strict=True):
                yield None if nothing else self._text(dict(zip(columns, cells, strict=True)))
            return
        pieces = [
            itertools.repeat(part)
            if isinstance(part, str)
            else [
                str(cell_text(value)) if type(value) is not str else value for value in columns[self._column(part.name)]
            ]
            for part in parts
        ]
        for cells, nothing in zip(zip(*pieces, strict=False), empty, strict=True):
            yield None if nothing else bounded("".join(cells).strip())

    def _column(self, name: str) -> str:
        return self.renamed.get(name, name)

    def _text(self, row: Row) -> Rendered:
        try:
            return self.render(row)
        except TemplateFault as fault:
            return fault

    def head(self, style: Style, *, schema_in_prompt: bool = False) -> Head:
        """What all rows share, in a style; `schema_in_prompt` tells a chat model the JSON Schema in words."""
        if style == "plain":
            return self._plain_head
        return self._told_head if schema_in_prompt else self._chat_head

    @cached_property
    def _plain_head(self) -> Head:
        opening = [self.system, "" if self.examples else self.task]
        blocks = [text.strip() for text in opening if text.strip()]
        for example in self.examples:
            blocks.append(f"{self.body(self.render(example.row), 'plain')} {self.line(example.out)}")
        return Head("plain", text="".join(f"{block}\n\n" for block in blocks), answer=self.output)

    @cached_property
    def _chat_head(self) -> Head:
        return self._chat("")

    @cached_property
    def _told_head(self) -> Head:
        return self._chat(told_schema(self.output))

    def _chat(self, told: str) -> Head:
        system = "\n\n".join(text.strip() for text in (self.system, self.task, told) if text.strip())
        messages = [Message("system", system)] if system else []
        for example in self.examples:
            messages += [Message("user", self.render(example.row)), Message("assistant", _json(example.out))]
        return Head("chat", messages=tuple(messages), answer=self.output)

    def body(self, rendered: str, style: Style) -> str:
        """One row's own part, from its rendered prompt."""
        return rendered if style == "chat" else f"{rendered}{self._cue(rendered)}"

    def narrowed(self, names: Sequence[str]) -> "Udp":
        """The same prompt asking only for some fields of its output."""
        fields = tuple(part for part in self.output.fields if part.name in names)
        examples = tuple(Example(e.row, {n: e.out.get(n) for n in names}) for e in self.examples)
        return replace(self, output=Record(fields), examples=examples)

    def _cue(self, rendered: str) -> str:
        if rendered.endswith(":"):
            return ""
        only = self.output.fields[0].name if len(self.output.fields) == 1 else "JSON"
        return f"\n{only[:1].upper()}{only[1:].replace('_', ' ')}:"

    def line(self, out: Mapping[str, object]) -> str:
        """An answer as a plain completion writes it: a bare word for one field, compact JSON for several."""
        if len(self.output.fields) > 1:
            return _json(out)
        value = out[self.output.names[0]]
        return value if isinstance(value, str) else plain_word(value)


def _cells(column: pa.Array) -> list[object]:
    """The values of a column; moments that Python has no word for (endless, before Christ, nanoseconds) as Arrow writes them."""
    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        return list(column.cast(pa.string()).to_pylist())


def plain_word(value: object) -> str:
    """How a plain completion writes a value that is not text: yes, no, null, or JSON."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _json(value)


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()

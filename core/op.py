"""What an operator is: at once the model of its YAML, the node of a plan, and what runs.

A runner implements the three scopes and names no operator; an operator implements one scope and names no runner.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar, Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from gdo.ask import ROW, Ask
from gdo.document import Document, Loc
from gdo.errors import Finding, nearest
from gdo.prompt import Udp
from gdo.schema import Record


class Rows(Enum):
    """What an operator does to the rows: keeps each one, drops some, or makes new ones."""

    SAME = "same"
    SUBSET = "subset"
    ANY = "any"


class Scope(Enum):
    """What an operator must see at once: any slice of rows, whole groups, or all rows first and then any slice."""

    BATCH = "batch"
    GROUP = "group"
    FIT = "fit"


@dataclass(frozen=True, slots=True)
class Site:
    """Where a step stands in its file: for messages, and for paths relative to it."""

    document: Document
    loc: Loc
    folder: Path


@dataclass(frozen=True, slots=True)
class Learned:
    """What a step learned from the rows: some lines for the end of the run, and a file for its folder."""

    told: tuple[str, ...] = ()
    file: str = ""
    """JSON; nothing is written where it is empty."""
    save: Path | None = None
    """Where else the file is to stand."""


class Operator(BaseModel):
    """A step of a pipeline: these keys mean the same for every operator."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    kinds: ClassVar[dict[str, type["Operator"]]] = {}
    kind: ClassVar[str] = ""
    rows: ClassVar[Rows] = Rows.SAME
    asks: ClassVar[bool] = True
    """Whether it calls a model."""
    subject: ClassVar[str] = ""
    """The key that a fault of the whole step is about."""

    op: str = Field(description="The operator")
    id: str | None = Field(
        default=None, pattern=r"^[A-Za-z_][A-Za-z0-9_-]*$", description="A name that other steps read it by"
    )
    from_: str | None = Field(
        default=None, alias="from", description="The step or source to read; the step before by default"
    )
    model: str | None = Field(default=None, description="A model of models:, a built-in one, or a path to a GGUF file")
    where: str | None = Field(
        default=None, description="A SQL condition; other rows pass through, their new columns null"
    )
    on_error: Literal["keep", "reject", "fail"] = Field(default="keep", description="What becomes of a row that fails")
    retries: int = Field(default=1, ge=0, le=20, description="How often a faulty reply is asked again")
    temperature: float = Field(default=0.0, ge=0.0, le=2.0, description="0 is greedy")
    max_tokens: int = Field(default=256, ge=1, le=100_000, description="The longest reply")

    def __init_subclass__(cls, kind: str = "") -> None:
        """Register the operator under its word in YAML."""
        super().__init_subclass__()
        if kind:
            cls.kind = kind
            Operator.kinds[kind] = cls

    @property
    def scope(self) -> Scope:
        """What it must see at once."""
        return Scope.BATCH

    @property
    def group_by(self) -> tuple[str, ...]:
        """For scope GROUP: the columns whose equal values make a group; none means that all rows are one group."""
        return ()

    def models_asked(self) -> Mapping[Loc, str | None]:
        """The models that it asks, by the key that names each; None is the default model."""
        return {("model",): self.model} if self.asks else {}

    def prompts(self) -> Sequence[tuple[Udp, str | None]]:
        """What it asks for each row, and of which model."""
        return ()

    def stages(self) -> Sequence["Operator"]:
        """The operators that do its work one after the other: itself, unless it must ask before it learns."""
        return (self,)

    def prepare(self, site: Site) -> list[Finding]:
        """Compile what the YAML holds (templates, examples, files); all faults at once."""
        return []

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """The columns that it needs, of those that are there."""
        return frozenset()

    def key_of(self, column: str) -> Loc:
        """Where in the step a column is named: a key, and the place in its list; the UDP where none of them does."""
        named = re.compile(rf"(?<!\w){re.escape(column)}(?!\w)")
        for key in type(self).model_fields:
            value = getattr(self, key) if key not in Operator.model_fields else None
            if isinstance(value, str) and named.search(value):
                return (key,)
            if isinstance(value, list) and column in value:
                return (key, value.index(column))
        return ("udp",)

    @property
    def free_inputs(self) -> tuple[str, ...]:
        """The columns whose order in the prompt is left open; none for most."""
        return ()

    def with_inputs(self, order: Sequence[str]) -> "Operator":
        """The same operator with its free inputs in an order."""
        raise TypeError(f"{self.kind} leaves no order open")

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The columns that it writes, for the schema that it gets; one that is there already is replaced."""
        return []

    def writes(self, schema: pa.Schema) -> pa.Schema:
        """The schema that it gives for a schema that it gets.

        Raises:
            Faults: it cannot work on such a table.
        """
        for field in self.adds(schema):
            place = schema.get_field_index(field.name)
            schema = schema.append(field) if place < 0 else schema.set(place, field)
        return schema

    def cuts(self) -> bool:
        """Whether columns that it does not read are gone after it."""
        return False

    def ballots(self) -> Mapping[str, Mapping[str, str]]:
        """For an ensemble: by column that it writes, the columns that hold its voters' votes, by voter."""
        return {}

    def with_ballots(self) -> "Operator":
        """The same operator, with the votes of its voters kept in the columns that `ballots` names."""
        return self

    def decides_by(self) -> frozenset[str] | None:
        """For an operator that only keeps or drops each row, unchanged and without a call: the columns that decide."""
        return None

    def sql(self, *, numbered: bool = False) -> str | None:
        """A query over `input` that does all this operator does, for a runner that has a SQL engine.

        With `numbered`, one that also hands the hidden row number on; None where rows lose their identity.
        """
        return None

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """The rows out for a slice of rows (BATCH, FIT), or for whole groups (GROUP).

        The hidden row number (`ROW`) is among the columns; SAME and SUBSET keep it. `state` is what `fit` gave.
        """
        raise TypeError(f"{self.kind} does not say what it does")

    def summarise(self, batch: pa.RecordBatch, ask: Ask) -> pa.Table:
        """FIT: a slice of rows as a small table; concatenated summaries are again a summary."""
        raise TypeError(f"{self.kind} does not learn")

    def fit(self, summary: pa.Table) -> pa.Table:
        """FIT: the state that all summaries together give."""
        raise TypeError(f"{self.kind} does not learn")

    def learned(self, state: pa.Table) -> Learned:
        """FIT: the state for a reader, and for the run's folder."""
        return Learned()

    def summary(self) -> str:
        """The step in one line of a plan."""
        shown = self.model_dump(exclude_defaults=True, by_alias=True, exclude={"op", "id", "from_"})
        words = ", ".join(f"{key}: {_short(value)}" for key, value in shown.items())
        return f"{self.kind}({words})"


def absent(columns: Iterable[str], schema: pa.Schema) -> list[tuple[str, str]]:
    """The columns that a table does not have, each with a hint at the one that may be meant."""
    names = [name for name in schema.names if name != ROW]
    return [(column, nearest(column, names)) for column in sorted(columns) if column not in names]


def answer_fields(output: Record, into: str | None = None) -> list[pa.Field]:
    """The columns of an answer: one a field; or with `into` one for all, a struct where there are several fields."""
    if into is None:
        return [pa.field(part.name, part.type.arrow()) for part in output.fields]
    return [pa.field(into, output.fields[0].type.arrow() if len(output.fields) == 1 else output.arrow())]


def put_fields(batch: pa.RecordBatch, record: pa.StructArray, into: str | None = None) -> pa.RecordBatch:
    """A batch with a record's fields put in, as `answer_fields` says."""
    columns = dict(zip(record.type.names, record.flatten(), strict=True))
    if into is not None:
        columns = {into: next(iter(columns.values())) if len(columns) == 1 else record}
    for name, column in columns.items():
        batch = put_column(batch, name, column)
    return batch


def put_column(batch: pa.RecordBatch, name: str, column: pa.Array) -> pa.RecordBatch:
    """A batch with a column appended, or put in the place of the one of its name."""
    place = batch.schema.get_field_index(name)
    if place < 0:
        return batch.append_column(name, column)
    return batch.set_column(place, name, column)


def _short(value: object) -> str:
    if isinstance(value, (list, tuple)) and any(isinstance(item, (dict, BaseModel)) for item in value):
        return f"{len(value)} given"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text.replace("\n", " ")
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 (a plan's line stays readable)

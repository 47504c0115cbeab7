"""Rows whose right answer is known: what weights may be learned from, and what a result is measured against."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator

from gdo.database import connect
from gdo.document import Loc
from gdo.errors import Faults, nearest
from gdo.tables import Source, source_query, source_schema

_JOINED = "\x1f"


class Gold(BaseModel):
    """A table of right answers, told which row each belongs to by key columns that both tables have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="A csv, tsv, jsonl or parquet file of rows whose right answer is known")
    key: str | list[str] = Field(description="The column, or columns, by which its rows are found")
    column: str | None = Field(default=None, description="The column of right answers, where one thing is voted on")
    columns: dict[str, str] = Field(default={}, description="By attribute, the column of right answers")

    @model_validator(mode="after")
    def _either(self) -> "Gold":
        if self.column is not None and self.columns:
            raise ValueError("takes `column` or `columns`, not both")
        if not self.keys:
            raise ValueError("needs a `key` | the column, or columns, that both tables have")
        return self

    @property
    def keys(self) -> list[str]:
        """The key columns."""
        return [self.key] if isinstance(self.key, str) else self.key

    def by_attribute(self, attributes: Sequence[str]) -> dict[str, str]:
        """The column of right answers of each attribute; an attribute that is not named has a column of its name.

        Raises:
            Faults: `column` stands for several attributes, or one is named that is not there (the place is a key).
        """
        if self.column is not None:
            if len(attributes) > 1:
                raise Faults.one(
                    "column", f"there are the attributes {', '.join(attributes)}", "name each in `columns`"
                )
            return {attributes[0]: self.column}
        for name in self.columns:
            if name not in attributes:
                raise Faults.one("columns", f"no attribute '{name}'", nearest(name, attributes))
        return self.columns or {name: name for name in attributes}


@dataclass(frozen=True)
class GoldRows:
    """Right answers by key, as columns."""

    keys: tuple[str, ...]
    index: pa.StringArray
    """The keys of each row, joined."""
    answers: Mapping[str, pa.Array]
    """By attribute; null says that there is no value."""

    def places(self, batch: pa.RecordBatch) -> pa.Array:
        """Which gold row each row of a batch is; null for none."""
        return pc.index_in(joined_keys(batch, self.keys), value_set=self.index)

    def __len__(self) -> int:
        return len(self.index)


def joined_keys(table: pa.RecordBatch | pa.Table, keys: Iterable[str]) -> pa.StringArray:
    """Key columns as one text a row; numbers and texts that look the same are the same."""
    columns = [table.column(name).cast(pa.string()) for name in keys]
    joined = pc.binary_join_element_wise(*columns, _JOINED)
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def read_gold(gold: Gold, folder: Path, attributes: Sequence[str]) -> GoldRows:
    """Read a gold table whole.

    Raises:
        Faults: it cannot be read, a column is missing, a key stands twice; the place is the key of `gold` at fault.
    """
    columns = gold.by_attribute(attributes)
    source = Source(path=gold.path)
    try:
        schema = source_schema(source, folder)
    except Faults as error:
        raise Faults.one("path", error.findings[0].what, error.findings[0].hint) from None
    wanted: list[tuple[Loc, str]] = [(("key",), name) for name in gold.keys]
    wanted += [(("column",) if gold.column else ("columns", attribute), name) for attribute, name in columns.items()]
    missing = [(loc, name) for loc, name in wanted if name not in schema.names]
    if missing:
        loc, name = missing[0]
        raise Faults.one(".".join(map(str, loc)), f"'{gold.path}' has no column '{name}'", nearest(name, schema.names))
    with connect() as connection:
        table = connection.sql(source_query(source, folder, connection)).to_arrow_table()
    index = joined_keys(table, gold.keys)
    if index.null_count:
        raise Faults.one("key", f"'{gold.path}' has {index.null_count} rows without a key")
    counted = pc.value_counts(index)
    twice = [row["values"] for row in counted.to_pylist() if row["counts"] > 1]
    if twice:
        shown = twice[0].replace(_JOINED, ", ")
        raise Faults.one("key", f"'{gold.path}' has the key '{shown}' more than once", "a key names one row")
    answers = {name: table.column(column).combine_chunks() for name, column in columns.items()}
    return GoldRows(tuple(gold.keys), index, answers)

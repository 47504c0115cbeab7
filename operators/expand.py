"""`op: expand`."""

from dataclasses import replace

import pyarrow as pa
from pydantic import Field

from gdo.ask import Ask
from gdo.op import Rows, answer_fields, put_fields
from gdo.prompt import Example, Udp
from gdo.prompted import Prompted
from gdo.schema import Field as AnswerField
from gdo.schema import ListOf, Record
from gdo.udp import UdpBuilder

ITEMS = "items"


class Expand(Prompted, kind="expand"):
    """Ask for a list of rows for each row: each item becomes a row with the columns of the row it came from.

    Rows: any number. An empty list drops the row unless `keep_empty`; a row that failed stays once, its new columns
    null. One call a distinct prompt.
    """

    rows = Rows.ANY

    output: dict[str, object] = Field(default={}, description="Field name to type of one item, beside `prompt`")
    keep_empty: bool = Field(default=False, description="Keep a row whose list is empty, its new columns null")
    into: str | None = Field(default=None, description="Put each item into one column of this name")

    def output_type(self, here: UdpBuilder) -> Record:
        """A list of such rows."""
        return _listed(here.declared(self.output))

    def adapted(self, udp: Udp) -> Udp:
        """A UDP that describes one item is asked for a list of them."""
        if _is_list(udp.output):
            return udp
        examples = tuple(Example(e.row, {ITEMS: [e.out]}) for e in udp.examples)
        return replace(udp, output=_listed(udp.output), examples=examples)

    @property
    def item(self) -> Record:
        """The record of one item; the items of a list of single values take the list's name."""
        part = self.compiled.output.fields[0]
        inner = part.type.item if isinstance(part.type, ListOf) else part.type
        return inner if isinstance(inner, Record) else Record((AnswerField(part.name, inner),))

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The item's columns."""
        return answer_fields(self.item, self.into)

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Ask, and repeat each row for its items."""
        answers = ask(self.compiled, batch)
        name = self.compiled.output.names[0]
        places: list[int] = []
        items: list[object] = []
        for place, listed in enumerate(answers.column(name).to_pylist()):
            # A null list is a row that was not answered: it stays, once.
            kept = listed or ([None] if listed is None or self.keep_empty else [])
            places += [place] * len(kept)
            items += kept
        if items and not all(item is None or isinstance(item, dict) for item in items):
            items = [None if item is None else {name: item} for item in items]
        record = pa.array(items, self.item.arrow())
        return put_fields(batch.take(pa.array(places, pa.int64())), record, self.into)


def _is_list(output: Record) -> bool:
    return len(output.fields) == 1 and isinstance(output.fields[0].type, ListOf)


def _listed(item: Record) -> Record:
    return item if _is_list(item) else Record((AnswerField(ITEMS, ListOf(item)),))

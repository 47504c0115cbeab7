"""`op: reduce`."""

from collections.abc import Iterable

import pyarrow as pa
from pydantic import Field

from gdo.ask import ROW, Ask
from gdo.distinct import Distinct
from gdo.errors import Faults, Finding
from gdo.op import Rows, Scope, Site, absent, answer_fields, put_fields
from gdo.prompted import Prompted
from gdo.schema import Record
from gdo.udp import UdpBuilder

GROUP = "rows"


class Reduce(Prompted, kind="reduce"):
    """Ask a prompt for each group of rows; it sees the group as `rows`, and the columns of `by` by their names.

    Rows: one a group, in the order in which the groups first appear. One call a distinct group.
    """

    rows = Rows.ANY
    subject = "by"

    by: list[str] = Field(min_length=1, description="Columns whose equal values make a group")
    output: dict[str, object] = Field(default={}, description="Field name to type, beside `prompt`")
    into: str | None = Field(default=None, description="Put the whole answer into one column of this name")

    def output_type(self, here: UdpBuilder) -> Record:
        """The output beside a prompt in place."""
        return here.declared(self.output)

    def prepare(self, site: Site) -> list[Finding]:
        """Compile the prompt; a group is known by other names than its rows."""
        faults = super().prepare(site)
        if GROUP in self.by:
            where = site.document.where((*site.loc, "by", self.by.index(GROUP)))
            faults.append(
                Finding(where, f"'{GROUP}' is the group itself in the prompt", "rename that column in an sql step")
            )
        return faults

    @property
    def scope(self) -> Scope:
        """It sees whole groups."""
        return Scope.GROUP

    @property
    def group_by(self) -> tuple[str, ...]:
        """The columns of `by`."""
        return tuple(self.by)

    def cuts(self) -> bool:
        """Only the columns of `by` and the answer come out."""
        return True

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """The columns of `by`, and those that the template reads of the group's rows (all, if it names none)."""
        named = self.compiled.template.attributes
        inside = named if named or GROUP not in self.compiled.columns else frozenset(columns)
        return frozenset(self.by) | (self.compiled.columns - {GROUP}) | inside

    def writes(self, schema: pa.Schema) -> pa.Schema:
        """The columns of `by`, and the answer's."""
        stray = self.compiled.columns - {GROUP} - set(self.by)
        if stray:
            hint = "a column of the group's rows is read as {% for row in rows %}{{ row.name }}{% endfor %}"
            raise Faults([Finding("", f"'{name}' is not in `by`", hint) for name in sorted(stray)])
        missing = absent(self.by, schema)
        if missing:
            raise Faults(Finding("", f"no column '{column}' here", hint) for column, hint in missing)
        return pa.schema([schema.field(name) for name in self.by] + answer_fields(self.compiled.output, self.into))

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Ask once a group; the row number of a group is that of its first row."""
        groups = Distinct.of(batch, self.by)
        numbers = batch.column(ROW).to_pylist()
        members: list[list[dict[str, object]]] = [[] for _ in range(groups.rows.num_rows)]
        first: list[int] = [0] * len(members)
        inside = batch.select(sorted(self.reads(set(batch.schema.names) - {ROW}) & set(batch.schema.names)))
        for number, place, row in zip(numbers, groups.index.to_pylist(), inside.to_pylist(), strict=True):
            if not members[place]:
                first[place] = number
            members[place].append(row)
        kind = pa.list_(pa.struct(list(inside.schema)))
        asked = groups.rows.append_column(ROW, pa.array(first, pa.int64()))
        answers = ask(self.compiled, asked.append_column(GROUP, pa.array(members, kind)))
        return put_fields(asked, answers.record, self.into)

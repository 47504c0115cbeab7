"""`op: vote`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gdo.document import Loc
from gdo.errors import Faults, Finding
from gdo.op import Site
from gdo.scalars import fold
from gdo.scales import Contest, closed_labels, make_scales
from gdo.udp import LabelSet
from gdo.weighing import Ballot, Weighed


class Vote(Weighed, kind="vote"):
    """Combine columns that hold what several voters said of each row into one answer.

    Rows: the same. No call, unless values are brought to one spelling by a UDP.
    """

    asks = False
    subject = "columns"

    columns: dict[str, str] = Field(min_length=1, description="By voter, the column of its answers")
    into: str = Field(min_length=1, description="The column that gets the answer")
    labels: LabelSet | None = Field(default=None, description="The labels, where they are a closed set")
    nulls: Literal["missing", "answer"] = Field(
        default="missing", description="What null is: the voter did not answer, or says that there is no value"
    )

    def prepare(self, site: Site) -> list[Finding]:
        """Read the gold rows or the saved weights."""
        found: list[Finding] = []
        if "keep_votes" in self.model_fields_set:
            where = site.document.where((*site.loc, "keep_votes"))
            found.append(Finding(where, "the votes of `vote` are columns already", "leave `keep_votes` out"))
        twice = [
            voter for i, voter in enumerate(self.columns) if self.columns[voter] in list(self.columns.values())[:i]
        ]
        for voter in twice:
            where = site.document.where((*site.loc, "columns", voter))
            found.append(Finding(where, f"the column '{self.columns[voter]}' votes twice", "each voter has its own"))
        contest = Contest(self.into, pa.string(), closed_labels(pa.string(), list(self.labels or ())))
        self._scales, faults = make_scales(self, site, list(self.columns), [contest])
        return found + faults

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """The columns of the votes, and the keys of the gold rows."""
        return frozenset(self.columns.values()) | frozenset(self.keys_read())

    def key_of(self, column: str) -> Loc:
        """The voter whose column it is, or the key of the gold rows."""
        voter = next((voter for voter, own in self.columns.items() if own == column), None)
        return ("columns", voter) if voter is not None else ("gold", "key")

    def ballot(self, batch: pa.RecordBatch, contest: Contest) -> Ballot:
        """The columns as they are."""
        values = [batch.column(column) for column in self.columns.values()]
        if contest.labels is None:
            values = [column.cast(contest.type) for column in values]
        yes = pa.repeat(pa.scalar(True), batch.num_rows)
        return Ballot(values, [yes if self.nulls == "answer" else pc.is_valid(column) for column in values])

    def contests_in(self, schema: pa.Schema) -> Sequence[Contest]:
        """The one contest, in the type of the votes.

        Raises:
            Faults: the columns hold values that cannot be compared.
        """
        contest = self.scales.contests[0]
        kinds = {column: schema.field(column).type for column in self.columns.values() if column in schema.names}
        if contest.labels is None:
            return [replace(contest, type=_common(kinds))]
        for column, kind in kinds.items():
            if pa.types.is_boolean(kind) and not {"true", "false"} & {fold(label) for label in contest.labels}:
                what = f"the column '{column}' is boolean, and no label is true or false"
                hint = "in a csv file yes and no are read so: SELECT * FROM read_csv('FILE', all_varchar = true)"
                raise Faults.one("", what, hint)
        return [contest]

    def with_ballots(self) -> "Vote":
        """The same step; a measurement keeps no weights."""
        other = self.model_copy(update={"save": None})
        other._scales = replace(self.scales, save=None)  # noqa: SLF001 (a copy of itself)
        return other

    def ballots(self) -> Mapping[str, Mapping[str, str]]:
        """The voters' columns."""
        return {self.into: self.columns}


def _common(kinds: Mapping[str, pa.DataType]) -> pa.DataType:
    """The one type of all columns; columns that are all null fit any, and whole numbers fit other numbers."""
    known = {column: kind for column, kind in kinds.items() if not pa.types.is_null(kind)}
    different = set(known.values())
    if len(different) <= 1:
        return next(iter(different), pa.string())
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in different):
        return pa.float64()
    told = ", ".join(f"'{column}' is {kind}" for column, kind in known.items())
    raise Faults.one("", f"the votes are of different types: {told}", "cast them to one type in an sql step")

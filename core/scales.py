"""What weighing votes needs before the first vote: its keys, gold rows, saved weights, how values are spelt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from gdo.database import describe
from gdo.document import Loc
from gdo.errors import Faults, Finding
from gdo.gold import Gold, GoldRows, read_gold
from gdo.op import Site
from gdo.prompt import Udp
from gdo.spelling import Canonical, Speller, Word, closed_code, known_word
from gdo.udp import find_udp, load_udp
from gdo.voting.rules import BY_GOLD, BY_LABELS, Method
from gdo.voting.state import State

_BOOLEANS = ("true", "false")


@dataclass(frozen=True, slots=True)
class Contest:
    """One thing that is voted on: the column that it fills, its type, and its labels where they are closed."""

    name: str
    type: pa.DataType
    labels: tuple[str, ...] | None = None


class Weighing(BaseModel):
    """The keys of an operator that weighs votes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Method = Field(
        default="auto", description="How voters are weighed; auto: what does best on gold rows, else iwmv"
    )
    clip_negative: bool = Field(default=False, description="A voter that is worse than chance weighs nothing, not less")
    gold: Gold | None = Field(
        default=None, description="Rows whose right answer is known: {path, key, column or columns}"
    )
    normalize: list[Annotated[Word | Canonical, BeforeValidator(known_word)]] = Field(
        default=["case", "spaces"],
        description="When two open values are one: case, spaces, punctuation, units, {sql: expression of value}, {udp: name}",
    )
    abstain_below: float | None = Field(default=None, ge=0, le=1, description="No answer under this margin")
    save: str | None = Field(default=None, description="A file to keep what was learned in")
    load: str | None = Field(default=None, description="A file that `save` wrote: nothing is learned anew")
    keep_votes: bool = Field(default=False, description="Add each vote as a column <column>_<voter>")
    confidence: bool = Field(default=False, description="Add <column>_margin and <column>_agreement")

    def margins(self, contest: Contest) -> list[pa.Field]:
        """The columns that tell how sure an answer is."""
        names = (f"{contest.name}_margin", f"{contest.name}_agreement") if self.confidence else ()
        return [pa.field(name, pa.float64()) for name in names]


@dataclass(frozen=True)
class Scales:
    """What is ready before the first vote: the contests, who votes, gold rows, how values are spelt, a loaded state."""

    voters: tuple[str, ...]
    contests: tuple[Contest, ...]
    speller: Speller
    gold: GoldRows | None = None
    state: State | None = None
    save: Path | None = None


def closed_labels(kind: pa.DataType, labels: Sequence[str] | None) -> tuple[str, ...] | None:
    """The labels of a contest: declared ones, those of a boolean, or none for open values."""
    return tuple(labels) if labels else _BOOLEANS if pa.types.is_boolean(kind) else None


def make_scales(
    given: Weighing, site: Site, voters: Sequence[str], contests: Sequence[Contest]
) -> tuple[Scales | None, list[Finding]]:
    """Read and check what the keys name: gold rows, a saved state, canonicalisers; all faults at once."""
    maker = _Maker(given, site, tuple(voters), tuple(contests))
    return maker.scales(), maker.faults


class _Maker:
    def __init__(self, given: Weighing, site: Site, voters: tuple[str, ...], contests: tuple[Contest, ...]) -> None:
        self.given, self.site, self.voters, self.contests = given, site, voters, contests
        self.faults: list[Finding] = []

    def fault(self, loc: Loc, what: str, hint: str = "") -> None:
        self.faults.append(Finding(self.site.document.where((*self.site.loc, *loc)), what, hint))

    def scales(self) -> Scales | None:
        given = self.given
        if given.weights in BY_LABELS:
            for contest in self.contests:
                if contest.labels is None:
                    hint = "declare its labels, or use majority, iwmv, log_odds, stack or auto"
                    self.fault(
                        ("weights",), f"'{given.weights}' needs closed labels, and '{contest.name}' is open", hint
                    )
        if given.weights in BY_GOLD and given.gold is None and given.load is None:
            hint = "give gold: {path: ..., key: ..., column: ...}"
            self.fault(("weights",), f"'{given.weights}' learns from rows whose right answer is known", hint)
        if given.load is not None:
            for key in ("gold", "save", "weights", "clip_negative"):
                if key in given.model_fields_set:
                    self.fault((key,), f"`{key}` does not go with `load`", "a loaded ensemble learns nothing anew")
        speller, state, gold = Speller(*self._spelling()), self._state(), self._gold()
        save = self.site.folder / given.save if given.save else None
        if save is not None and not save.parent.is_dir():
            self.fault(("save",), f"there is no folder '{save.parent}'", "paths are relative to the pipeline file")
        return None if self.faults else Scales(self.voters, self.contests, speller, gold, state, save)

    def _spelling(self) -> tuple[tuple[str, ...], tuple[tuple[str | Udp, str | None], ...]]:
        own: list[tuple[str | Udp, str | None]] = []
        for i, item in enumerate(self.given.normalize):
            if not isinstance(item, Canonical):
                continue
            if item.sql is not None:
                try:
                    describe(f"SELECT CAST(({item.sql}\n) AS VARCHAR) FROM input", pa.schema([("value", pa.string())]))
                except Faults as error:
                    self.fault(("normalize", i, "sql"), error.findings[0].what, "it may read `value`, a text")
                own.append((item.sql, None))
            else:
                own += self._udp(item, i)
        return tuple(str(item) for item in self.given.normalize if not isinstance(item, Canonical)), tuple(own)

    def _udp(self, item: Canonical, place: int) -> Iterator[tuple[str | Udp, str | None]]:
        try:
            udp = load_udp(find_udp(item.udp or "", self.site.folder))
        except Faults as error:
            for finding in error.findings:
                self.fault(("normalize", place, "udp"), finding.what, finding.hint)
            return
        if len(udp.columns) != 1 or len(udp.output.fields) != 1 or udp.output.fields[0].type.arrow() != pa.string():
            self.fault(("normalize", place, "udp"), f"'{udp.name}' must read one column and give one text")
        yield udp, item.model

    def _state(self) -> State | None:
        if self.given.load is None:
            return None
        path = self.site.folder / self.given.load
        try:
            state = State.from_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            self.fault(("load",), f"'{self.given.load}' cannot be read: {getattr(error, 'strerror', None) or error}")
            return None
        except ValueError as error:
            self.fault(("load",), f"'{self.given.load}': {error}", "give a file that `save` wrote")
            return None
        for contest in self.contests:
            for what in state.misfits(contest.name, self.voters, contest.labels):
                self.fault(("load",), f"'{self.given.load}': {what}")
        return state

    def _gold(self) -> GoldRows | None:
        if self.given.gold is None:
            return None
        try:
            gold = read_gold(self.given.gold, self.site.folder, [own.name for own in self.contests])
        except Faults as error:
            for finding in error.findings:
                self.fault(("gold", *finding.where.split(".")), finding.what, finding.hint)
            return None
        for contest in self.contests:
            if contest.labels is None or contest.name not in gold.answers:
                continue
            words = pc.unique(gold.answers[contest.name].cast(pa.string())).drop_null().to_pylist()
            coded = zip(words, closed_code(words, contest.labels), strict=True)
            strange = [f"'{word}'" for word, label in coded if label is None]
            if strange:
                shown = ", ".join(strange[:5]) + (", ..." if len(strange) > 5 else "")  # noqa: PLR2004 (a line stays readable)
                hint = f"the labels of '{contest.name}' are {', '.join(contest.labels)}"
                self.fault(("gold",), f"right answers that are no label: {shown}", hint)
        return gold

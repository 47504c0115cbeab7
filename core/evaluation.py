"""`gdo eval`: a pipeline's answers, and each voter's of its ensembles, against rows whose right answer is known."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from gdo.api import Options, Pipeline, Watch
from gdo.errors import Faults, Finding, nearest
from gdo.gold import Gold, GoldRows, joined_keys, read_gold
from gdo.measure import Measured, Outcome, measured
from gdo.sink import Sink
from gdo.spec import Step
from gdo.spelling import Speller
from gdo.stored import read_sink

OURS = "answer"
_PLAIN = Speller(("case", "spaces"))


@dataclass(frozen=True)
class Scored:
    """How right one voter, or the answer itself, is on an attribute."""

    attribute: str
    who: str
    rows: int
    measured: Measured
    gain: tuple[float, float, float] | None = None
    """For a voter: by how much the answer's F1 is above its own, with the bounds of a 95 % interval."""


@dataclass(frozen=True)
class Evaluation:
    """Every score, attribute by attribute, the answer's first; and what a reader must know of them."""

    scores: tuple[Scored, ...]
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The scores as JSON."""
        scores = [{**asdict(own), **asdict(own.measured)} for own in self.scores]
        for own in scores:
            del own["measured"]
        return json.dumps({"scores": scores, "notes": self.notes}, ensure_ascii=False, indent=1)

    def table(self) -> str:
        """The scores for a reader."""
        header = ("attribute", "who", "rows", "accuracy", "F1", "95 %", "macro F1", "the answer is better by", "95 %")
        lines = [header, *(_cells(own) for own in self.scores)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        left = 2
        return "\n".join(
            "  ".join(
                c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


def _cells(own: Scored) -> tuple[str, ...]:
    m = own.measured
    macro = "" if m.macro_f1 is None else f"{m.macro_f1:.3f}"
    gain = ("", "") if own.gain is None else (f"{own.gain[0]:+.3f}", f"{own.gain[1]:+.3f} to {own.gain[2]:+.3f}")
    return (own.attribute, own.who, f"{own.rows:,}", f"{m.accuracy:.3f}", f"{m.f1:.3f}",
            f"{m.low:.3f} to {m.high:.3f}", macro, *gain)  # fmt: skip


def evaluate(
    pipeline: Pipeline, path: Path, key: str | None, renamed: Mapping[str, str], options: Options, watch: Watch
) -> Evaluation:
    """Run a pipeline with the votes of its ensembles kept, and measure it against the gold rows of a file.

    `renamed` says, by attribute, which column of the file holds its right answers. Rows that an ensemble learned from are
    left out. Costs the calls of a run; those in the cache cost none.

    Raises:
        Faults: the file does not fit the pipeline.
        RunFailed: the run did not end.
    """
    spec = pipeline.spec
    steps = tuple(replace(step, op=step.op.with_ballots()) for step in spec.steps)
    ensembles = [step for step in steps if step.op.ballots()]
    names = dict.fromkeys([steps[-1].id, *(step.id for step in ensembles)])
    with tempfile.TemporaryDirectory() as folder:
        sinks = {name: Sink(path=f"{folder}/{i}.parquet") for i, name in enumerate(names)}
        kept = Pipeline(replace(spec, steps=steps, sinks=tuple(sinks.items())))
        kept.check()
        gold = _gold(path, key, renamed, kept, ensembles)
        kept.run(options, watch)
        tables = {name: read_sink(sink, spec.folder) for name, sink in sinks.items()}
    found = [_Measurer(gold, tables[step.id], step) for step in ensembles]
    own = {column for one in found for column in one.columns}
    found.append(_Measurer(gold, tables[steps[-1].id], None, without=own))
    scores = [score for one in found for score in one.scores()]
    if not scores:
        told = ", ".join(gold.answers)
        notes = "; ".join(note for one in found for note in one.notes)
        raise Faults.one(str(path), f"there is nothing to measure in {told}", notes or "are the keys the same?")
    return Evaluation(tuple(scores), tuple(note for one in found for note in one.notes))


def _gold(
    path: Path, key: str | None, renamed: Mapping[str, str], pipeline: Pipeline, ensembles: Sequence[Step]
) -> GoldRows:
    """The right answers of every column that the pipeline gives."""
    from gdo.tables import Source, source_schema

    plan = pipeline.plan(rewritten=False)
    schema = plan.schema(pipeline.spec.steps[-1].id)
    written: set[str] = set()
    for node in plan.nodes:
        before = plan.schema(node.input)
        written |= {field.name for field in node.op.adds(before)} | (set(node.schema.names) - set(before.names))
    asked = {name for step in ensembles for name in step.op.ballots()}
    try:
        there = source_schema(Source(path=str(path.absolute())), Path()).names
    except Faults as error:
        raise Faults(Finding("--gold", f.what, f.hint) for f in error.findings) from None
    keys = [key] if key is not None else _key(ensembles, there, schema.names, asked)
    columns = {
        name: renamed.get(name, name)
        for name in dict.fromkeys([*schema.names, *asked])
        if name in written and name not in keys
    }
    faults = [Finding("--column", f"no column '{n}' here", nearest(n, columns)) for n in renamed if n not in columns]
    for column in renamed.values():
        if column not in there:
            faults.append(Finding("--column", f"'{path}' has no column '{column}'", nearest(column, there)))
    if faults:
        raise Faults(faults)
    columns = {name: column for name, column in columns.items() if column in there}
    if not columns:
        made = ", ".join(name for name in schema.names if name in written)
        hint = f"it has {', '.join(there)}; the steps write {made}; --column NAME=COLUMN"
        raise Faults.one("--gold", f"'{path}' has no column of right answers", hint)
    try:
        return read_gold(Gold(path=str(path.absolute()), key=keys, columns=columns), Path(), list(columns))
    except Faults as error:
        raise Faults(Finding("--gold", f.what, f.hint) for f in error.findings) from None


def _key(ensembles: Sequence[Step], there: Sequence[str], given: Sequence[str], asked: set[str]) -> list[str]:
    for step in ensembles:
        gold = getattr(step.op, "gold", None)
        if isinstance(gold, Gold) and set(gold.keys) <= set(there):
            return gold.keys
    common = [name for name in there if name in given and name not in asked]
    if common:
        return common[:1]
    raise Faults.one("--key", "which column tells the rows apart?", f"the gold file has {', '.join(there)}")


class _Measurer:
    """The scores of one step's columns."""

    def __init__(
        self, gold: GoldRows, table: pa.Table, step: Step | None, without: set[str] | frozenset[str] = frozenset()
    ) -> None:
        self.notes: list[str] = []
        ballots = step.op.ballots() if step is not None else {}
        self.voters = ballots
        wanted = ballots if step is not None else [name for name in table.column_names if name not in without]
        self.columns = [name for name in wanted if name in gold.answers and name in table.column_names]
        scales = getattr(step.op, "_scales", None) if step is not None else None
        self.speller: Speller = scales.speller if scales is not None else _PLAIN
        self.closed = {own.name: own.labels is not None for own in scales.contests} if scales is not None else {}
        self.gold = gold
        self.table = table
        if self.columns:
            self.table, self.places = self._matched(getattr(scales, "gold", None))

    def _matched(self, learned: GoldRows | None) -> tuple[pa.Table, pa.Array]:
        missing = [key for key in self.gold.keys if key not in self.table.column_names]
        if missing:
            raise Faults.one(
                "--key", f"the result has no column '{missing[0]}'", nearest(missing[0], self.table.column_names)
            )
        keys = joined_keys(self.table, self.gold.keys)
        places = pc.index_in(keys, value_set=self.gold.index)
        seen = pc.is_valid(places)
        if learned is not None and learned.keys == self.gold.keys:
            used = pc.is_in(keys, value_set=learned.index)
            left = pc.sum(pc.and_(seen, used)).as_py() or 0
            if left:
                self.notes.append(f"{left:,} rows that weights were learned from are left out")
            seen = pc.and_not(seen, used)
        lost = len(self.gold) - (pc.count_distinct(places).as_py() or 0)
        if lost:
            self.notes.append(f"{lost:,} of the {len(self.gold):,} gold rows have a key that no row of the result has")
        return self.table.filter(seen), places.filter(seen)

    def scores(self) -> Iterator[Scored]:
        """The answer's, then each voter's, attribute by attribute; then over all attributes."""
        everything: dict[str, list[Outcome]] = {}
        by_attribute: dict[str, list[float]] = {}
        for name in self.columns if self.table.num_rows else ():
            answers = self.gold.answers[name].take(self.places)
            right = self._right(answers)
            said = {OURS: name, **self.voters.get(name, {})}
            outcomes = {who: self._outcomes(column, right) for who, column in said.items()}
            for score in _against(name, outcomes, closed=self.closed.get(name)):
                by_attribute.setdefault(score.who, []).append(score.measured.f1)
                yield score
            for who, own in outcomes.items():
                everything.setdefault(who, []).extend(own)
        if len(self.columns) > 1:
            whole = {who: own for who, own in everything.items() if len(own) == len(everything[OURS])}
            for score in _against("all", whole, closed=False):
                macro = sum(by_attribute[score.who]) / len(self.columns)
                yield replace(score, measured=replace(score.measured, macro_f1=macro))

    def _right(self, answers: pa.Array) -> list[set[str | None]]:
        """What is right in each row: any of a list, 'no value' where the list is empty."""
        if not pa.types.is_list(answers.type):
            return [{text} for text in self._texts(answers)]
        kind = answers.type.value_type
        return [set(self._texts(pa.array(row or [None], kind))) for row in answers.to_pylist()]

    def _texts(self, column: pa.Array | pa.ChunkedArray) -> list[str | None]:
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        texts: list[str | None] = self.speller.texts(whole, None).to_pylist()
        return texts

    def _outcomes(self, column: str, right: Sequence[set[str | None]]) -> list[Outcome]:
        said = self._texts(self.table.column(column))
        return [Outcome(word, sorted(own, key=str)[0], word in own) for word, own in zip(said, right, strict=True)]


def _against(name: str, outcomes: Mapping[str, Sequence[Outcome]], *, closed: bool | None) -> Iterator[Scored]:
    found = measured(outcomes, OURS, closed=closed)
    for who, (own, gain) in found.items():
        yield Scored(name, who, len(outcomes[who]), own, gain)

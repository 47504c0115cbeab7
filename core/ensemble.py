"""Several voters for one step: each is asked for every row, then their votes are weighed (LLM-Ensemble, arXiv 2403.00863)."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from gdo.answers import Answers
from gdo.ask import ROW, Ask
from gdo.document import Loc
from gdo.errors import Faults, Finding
from gdo.ledger import Failure
from gdo.op import Operator, Site, put_column
from gdo.prompt import Udp
from gdo.prompted import Compiled
from gdo.scales import Contest, Scales, Weighing, closed_labels, make_scales
from gdo.schema import Labels, Scalar
from gdo.udp import ExampleSpec, UdpBuilder, find_udp, load_udp
from gdo.weighing import Ballot, Weighed

VOTED = "__voted__"
"""The hidden column that says which voters answered a row."""


class VoterSpec(BaseModel):
    """One voter: a model, a prompt, or both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str | None = Field(default=None, min_length=1, description="What it is called; by default its model or UDP")
    model: str | None = Field(default=None, description="The model that it asks; by default the step's")
    udp: str | None = Field(default=None, description="A UDP whose output is the step's")
    text: str | None = Field(default=None, description="Another template than the step's")
    system: str | None = Field(default=None, description="Other words for the model than the step's")
    examples: list[ExampleSpec] | None = Field(default=None, description="Other examples than the step's")
    temperature: float | None = Field(default=None, ge=0.0, le=2.0, description="Another temperature than the step's")


@dataclass(frozen=True)
class Voter:
    """A voter that is ready to be asked; no model is the default one."""

    name: str
    udp: Udp
    model: str | None
    temperature: float | None
    loc: Loc

    @property
    def model_loc(self) -> Loc:
        """Where its model is named."""
        return (*self.loc, "model") if self.loc[0] == "voters" else self.loc


@dataclass(frozen=True)
class Panel:
    """Who votes on what: what the two stages of an ensemble share."""

    voters: tuple[Voter, ...]
    contests: tuple[Contest, ...]
    into: str | None
    """One column for all answers."""
    key_of: Callable[[str], Loc]
    """Where the step names a column."""

    @property
    def names(self) -> list[str]:
        """What is voted on."""
        return [contest.name for contest in self.contests]

    @property
    def gathered(self) -> str | None:
        """The column in which the answers are put together; none where each has its own."""
        return self.into if self.into not in self.names else None

    def hidden(self) -> Iterator[tuple[Contest, Voter, str]]:
        """The hidden column of each vote."""
        for contest in self.contests:
            for voter in self.voters:
                yield contest, voter, f"__vote__{contest.name}__{voter.name}"

    def of(self, contest: Contest) -> list[str]:
        """The hidden columns of the votes on one thing, voter by voter."""
        return [column for own, _, column in self.hidden() if own == contest]


class Ensembled(Weighing, Compiled):
    """A prompt that one model answers, or several voters whose votes are weighed."""

    models: list[str] = Field(
        default=[], description="Several models: each answers every row, and their votes are weighed"
    )
    voters: list[VoterSpec] = Field(
        default=[], description="Several voters: {name, model, udp or text, examples, temperature}"
    )
    _voters: tuple[Voter, ...] = PrivateAttr(default=())
    _scales: Scales | None = PrivateAttr(default=None)

    def contests(self) -> Sequence[Contest]:
        """What is voted on: each field of the answer."""
        return [
            Contest(part.name, part.type.arrow(), closed_labels(part.type.arrow(), _declared(part.type)))
            for part in self.compiled.output.fields
        ]

    def prepare_voters(self, site: Site) -> list[Finding]:
        """Compile every voter, once the step's own prompt is compiled."""
        faults: list[Finding] = []
        here = UdpBuilder(site.document, site.loc, faults)
        if not self.models and not self.voters:
            alone = {"confidence"} if "labels" in type(self).model_fields else set()
            for key in (Weighing.model_fields.keys() & self.model_fields_set) - alone:
                here.fault((key,), f"`{key}` is for an ensemble", "name several `models`, or `voters`")
            return faults
        for key, other in (("models", "voters"), ("models", "model")):
            if getattr(self, key) and getattr(self, other):
                here.fault((other,), f"takes `{key}` or `{other}`, not both")
        self._voters = tuple(self._compiled_voters(site, here))
        faults += self._twins(here)
        if not faults:
            self._scales, found = make_scales(self, site, [voter.name for voter in self._voters], self.contests())
            faults += found
        return faults

    def _compiled_voters(self, site: Site, here: UdpBuilder) -> Iterator[Voter]:
        for i, model in enumerate(self.models):
            yield Voter(model, self.compiled, model, None, ("models", i))
        for i, spec in enumerate(self.voters):
            udp = self._voter_udp(spec, ("voters", i), site, here)
            name = spec.name or spec.udp or spec.model or f"voter{i + 1}"
            yield Voter(name, udp, spec.model or self.model, spec.temperature, ("voters", i))

    def _voter_udp(self, spec: VoterSpec, loc: Loc, site: Site, here: UdpBuilder) -> Udp:
        own = self.compiled
        if spec.udp is None:
            template = own.template if spec.text is None else here.template(spec.text, (*loc, "text"))
            examples = own.examples
            if spec.examples is not None:
                examples = tuple(here.examples(spec.examples, own.output, (*loc, "examples")))
            system = own.system if spec.system is None else spec.system
            return replace(own, template=template, examples=examples, system=system)
        for key in ("text", "system", "examples"):
            if getattr(spec, key) is not None:
                here.fault((*loc, key), f"`{key}` belongs into the UDP's file", "leave it out beside `udp`")
        try:
            udp = load_udp(find_udp(spec.udp, site.folder))
        except Faults as error:
            for finding in error.findings:
                where = site.document.where((*site.loc, *loc, "udp")) if finding.where == "udp" else finding.where
                here.faults.append(Finding(where, finding.what, finding.hint))
            return own
        return self._fitting(udp, (*loc, "udp"), here)

    def _fitting(self, udp: Udp, loc: Loc, here: UdpBuilder) -> Udp:
        """The UDP giving the step's own record; the field of a UDP that gives but one may have another name."""
        wanted, given = self.compiled.output, udp.output
        if len(given.fields) == len(wanted.fields) == 1:
            only, name = given.fields[0], wanted.names[0]
            examples = tuple(replace(e, out={name: e.out[only.name]}) for e in udp.examples)
            udp = replace(udp, output=replace(given, fields=(replace(only, name=name),)), examples=examples)
        mine = {part.name: part.type for part in wanted.fields}
        theirs = {part.name: part.type for part in udp.output.fields}
        if mine != theirs:
            what = f"'{udp.name}' gives {_told(theirs)}, the step {_told(mine)}"
            here.fault(loc, what, "every voter answers the same question")
        return udp

    def _twins(self, here: UdpBuilder) -> list[Finding]:
        found: list[Finding] = []
        names: dict[str, Voter] = {}
        asked: dict[tuple[object, ...], str] = {}
        for voter in self._voters:
            where = here.document.where((*here.base, *voter.loc))
            if voter.name in names:
                found.append(Finding(where, f"there are two voters '{voter.name}'", "give each a `name` of its own"))
            names[voter.name] = voter
            same = (voter.model, voter.temperature, voter.udp.head("chat").digest, voter.udp.template.source)
            if same in asked and voter.name != asked[same]:
                what = f"'{voter.name}' asks just what '{asked[same]}' asks: it would get the same replies"
                found.append(Finding(where, what, "give it another model, prompt or temperature"))
            asked[same] = voter.name
        return found

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """The columns of every voter's template, and the keys of the gold rows."""
        if not self._voters:
            return super().reads(columns)
        keys = frozenset(self.gold.keys) if self.gold is not None else frozenset()
        return keys.union(*(voter.udp.columns for voter in self._voters))

    def models_asked(self) -> Mapping[Loc, str | None]:
        """The models of all voters."""
        return {voter.model_loc: voter.model for voter in self._voters} or {("model",): self.model}

    def prompts(self) -> Sequence[tuple[Udp, str | None]]:
        """What each voter is asked, and of which model."""
        return [(voter.udp, voter.model) for voter in self._voters] or super().prompts()

    @property
    def free_inputs(self) -> tuple[str, ...]:
        """What `{{ fields }}` stands for; voters keep the order that is declared."""
        return () if self._voters else super().free_inputs

    def stages(self) -> Sequence[Operator]:
        """One stage asks every voter, the next weighs their votes; a single model needs but itself."""
        if not self._voters:
            return (self,)
        shared = {key: getattr(self, key) for key in Operator.model_fields if key in self.model_fields_set}
        panel = Panel(self._voters, tuple(self.contests()), getattr(self, "into", None), self.key_of)
        assert self._scales is not None, "prepare() comes first"  # noqa: S101
        weighed = {key: getattr(self, key) for key in Weighing.model_fields}
        return (Poll.of(shared, panel), Tally.of({**shared, **weighed}, panel, self._scales))

    def ballots(self) -> Mapping[str, Mapping[str, str]]:
        """By attribute, the column of each voter's vote."""
        return {own.name: {v.name: vote_column(own.name, v.name) for v in self._voters} for own in self.contests()}

    def with_ballots(self) -> "Ensembled":
        """The same step, with `keep_votes`."""
        return self.model_copy(update={"keep_votes": True}) if self._voters else self


class Poll(Operator):
    """Ask every voter for each row: the first stage of an ensemble. One call a distinct prompt and voter."""

    kind = "poll"
    _panel: Panel = PrivateAttr()

    @classmethod
    def of(cls, keys: Mapping[str, object], panel: Panel) -> "Poll":
        """The stage of a step."""
        made = cls.model_construct(**keys)  # type: ignore[arg-type]
        made._panel = panel  # noqa: SLF001 (of its own class)
        return made

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """What the voters' templates read."""
        return frozenset[str]().union(*(voter.udp.columns for voter in self._panel.voters))

    def key_of(self, column: str) -> Loc:
        """Where the step names a column."""
        own = [v for v in self._panel.voters if v.loc[0] == "voters" and column in v.udp.columns]
        return own[0].loc if len(own) == 1 else self._panel.key_of(column)

    def models_asked(self) -> Mapping[Loc, str | None]:
        """The models of all voters."""
        return {voter.model_loc: voter.model for voter in self._panel.voters}

    def prompts(self) -> Sequence[tuple[Udp, str | None]]:
        """What each voter is asked."""
        return [(voter.udp, voter.model) for voter in self._panel.voters]

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """Hidden columns: each vote, and who voted."""
        voted = pa.struct([pa.field(voter.name, pa.bool_()) for voter in self._panel.voters])
        votes = [pa.field(column, contest.type) for contest, _, column in self._panel.hidden()]
        return [*votes, pa.field(VOTED, voted)]

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """Ask all voters at once; a row that none of them answers has failed."""
        voters = self._panel.voters

        def answers(voter: Voter) -> Answers:
            return ask.by(voter.name, voter.model, voter.temperature)(voter.udp, batch)

        with ThreadPoolExecutor(len(voters), thread_name_prefix="gdo-voter") as pool:
            found = dict(zip((voter.name for voter in voters), pool.map(answers, voters), strict=True))
        failed = reduce(pc.and_, [own.failed for own in found.values()])
        for row in batch.column(ROW).filter(failed).to_pylist():
            ask.fail(row, Failure("no_votes", "no voter answered"))
        for contest, voter, column in self._panel.hidden():
            batch = put_column(batch, column, found[voter.name].column(contest.name))
        voted = [pc.is_valid(own.record) for own in found.values()]
        return put_column(batch, VOTED, pa.StructArray.from_arrays(voted, names=list(found)))

    def summary(self) -> str:
        """The stage in one line of a plan."""
        return f"poll({', '.join(voter.name for voter in self._panel.voters)})"


class Tally(Weighed):
    """Weigh the votes of an ensemble's voters: its second stage. No call."""

    kind = "tally"
    asks = False
    _panel: Panel = PrivateAttr()

    @classmethod
    def of(cls, keys: Mapping[str, object], panel: Panel, scales: Scales) -> "Tally":
        """The stage of a step."""
        made = cls.model_construct(**keys)  # type: ignore[arg-type]
        made._panel, made._scales = panel, scales  # noqa: SLF001 (of its own class)
        return made

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """The hidden votes, and the keys of the gold rows."""
        return frozenset({VOTED, *(column for _, _, column in self._panel.hidden()), *self.keys_read()})

    def key_of(self, column: str) -> Loc:
        """Where the step names a column."""
        return ("gold", "key") if column in self.keys_read() else self._panel.key_of(column)

    def ballot(self, batch: pa.RecordBatch, contest: Contest) -> Ballot:
        """The hidden votes; a row that passed the first stage by has none."""
        voted = batch.column(VOTED)
        return Ballot(
            [batch.column(column) for column in self._panel.of(contest)],
            [pc.fill_null(pc.struct_field(voted, voter.name), False) for voter in self._panel.voters],
        )

    def adds(self, schema: pa.Schema) -> list[pa.Field]:
        """The answers, gathered where the step says so, and each vote where it is kept."""
        answers, panel = super().adds(schema), self._panel
        if panel.gathered is not None:
            types = [pa.field(contest.name, contest.type) for contest in panel.contests]
            whole = types[0].type if len(types) == 1 else pa.struct(types)
            answers = [pa.field(panel.gathered, whole), *(f for f in answers if f.name not in panel.names)]
        kept = [pa.field(vote_column(c.name, v.name), c.type) for c, v, _ in panel.hidden()] if self.keep_votes else []
        return [*answers, *kept]

    def writes(self, schema: pa.Schema) -> pa.Schema:
        """The schema without the hidden columns."""
        hidden = {VOTED, *(column for _, _, column in self._panel.hidden())}
        return super().writes(pa.schema([field for field in schema if field.name not in hidden]))

    def apply(self, batch: pa.RecordBatch, ask: Ask, state: pa.Table | None = None) -> pa.RecordBatch:
        """The answers, in the place of the hidden votes."""
        panel = self._panel
        decided = super().apply(batch, ask, state)
        if panel.gathered is not None:
            parts = [decided.column(name) for name in panel.names]
            for name in panel.names:  # a column of the table that has an attribute's name stays as it was
                there = name in batch.schema.names
                decided = put_column(decided, name, batch.column(name)) if there else decided.drop_columns([name])
            whole = parts[0] if len(parts) == 1 else pa.StructArray.from_arrays(parts, names=panel.names)
            decided = put_column(decided, panel.gathered, whole)
        for contest, voter, column in panel.hidden():
            if self.keep_votes:
                decided = put_column(decided, vote_column(contest.name, voter.name), batch.column(column))
        return decided.drop_columns([VOTED, *(column for _, _, column in panel.hidden())])

    def summary(self) -> str:
        """The stage in one line of a plan."""
        given = self.model_dump(include=set(Weighing.model_fields), exclude_defaults=True, mode="json")
        shown = given if self.load is not None else {"weights": self.weights, **given}
        return f"tally({', '.join(f'{key}: {value}' for key, value in shown.items())})"


def vote_column(contest: str, voter: str) -> str:
    """The column that keeps a vote."""
    return f"{contest}_{voter}"


def _declared(kind: object) -> tuple[str, ...] | None:
    return kind.labels if isinstance(kind, Labels) else None


def _told(fields: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} ({kind.word if isinstance(kind, Scalar) else 'labels' if isinstance(kind, Labels) else 'nested'})"
        for name, kind in fields.items()
    )

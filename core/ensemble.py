"""Several voters for one step: each is asked for every row, then their votes are weighed (LLM-Ensemble, arXiv 2403.00863)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from gdo.document import Loc
from gdo.errors import Faults, Finding
from gdo.op import Operator, Site
from gdo.prompt import Udp
from gdo.prompted import Compiled
from gdo.scales import Contest, Scales, Weighing, closed_labels, make_scales
from gdo.schema import Labels, Scalar
from gdo.stages import Panel, Poll, Tally, Voter, vote_column
from gdo.udp import ExampleSpec, UdpBuilder, find_udp, load_udp


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
        for key in ("models", "voters"):
            if key in self.model_fields_set and not getattr(self, key):
                here.fault((key,), f"`{key}` names nobody", "name at least one, or leave it out")
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
        self._check_names(here)
        return faults

    def _check_names(self, here: UdpBuilder) -> None:
        """No vote may take the column of an answer, of its margin, or of another vote."""
        taken = {field.name for contest in self.contests() for field in self.margins(contest)}
        taken |= {contest.name for contest in self.contests()} | {str(getattr(self, "into", None))}
        for contest in self.contests():
            for voter in self._voters:
                column = vote_column(contest.name, voter.name)
                if column in taken and self.keep_votes:
                    what = f"the vote of '{voter.name}' would take the column '{column}'"
                    here.fault(voter.loc, what, "give the voter another `name`")
                taken.add(column)

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
        if not self._voters:
            return self
        other = self.model_copy(update={"keep_votes": True, "save": None})  # a measurement keeps no weights
        other._scales = replace(self._scales, save=None) if self._scales is not None else None  # noqa: SLF001 (a copy of itself)
        return other


def _declared(kind: object) -> tuple[str, ...] | None:
    return kind.labels if isinstance(kind, Labels) else None


def _told(fields: Mapping[str, object]) -> str:
    return ", ".join(
        f"{name} ({kind.word if isinstance(kind, Scalar) else 'labels' if isinstance(kind, Labels) else 'nested'})"
        for name, kind in fields.items()
    )

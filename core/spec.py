"""A pipeline file -> a typed `Pipeline`, every fault at once with its line."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from gdo.backend import Backend
from gdo.document import Document, Loc, read_document, substitute
from gdo.errors import Faults, Finding, nearest
from gdo.op import Operator, Site
from gdo.rediscache import SCHEMES
from gdo.sink import Sink, sink_fault
from gdo.tables import ArrowStream, Source
from gdo.validation import findings


class PipelineFile(BaseModel):
    """The outer keys of a pipeline file; steps and models are read by their own kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(default="", description="What the pipeline is called in messages and run folders")
    description: str = ""
    vars: dict[str, str | int | float | bool | None] = Field(default={}, description="Values for ${var:NAME}")
    models: dict[str, dict[str, object]] = Field(default={}, description="Name to backend and options")
    source: Source | None = Field(default=None, description="Where rows come from")
    sources: dict[str, Source] = Field(default={}, description="Several sources, by name")
    cache: str | None = Field(
        default=None, description="redis://host:6379/0: one cache for all machines, in a Redis server"
    )
    steps: list[object] = Field(default=[], description="Operators, in order")
    sink: Sink | None = Field(default=None, description="Where rows go")
    sinks: list[Sink] = Field(default=[], description="Several sinks, each with `from`")

    @field_validator("cache")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(SCHEMES):
            raise ValueError(f"'{value}' is no URL of a Redis server | for example redis://localhost:6379/0")
        return value


@dataclass(frozen=True)
class Step:
    """An operator in its place: its id, and the id of the step or source that it reads."""

    id: str
    op: Operator
    input: str
    loc: Loc


@dataclass(frozen=True)
class Pipeline:
    """A file that has no fault of form; columns are checked when it is planned."""

    name: str
    document: Document
    folder: Path
    models: Mapping[str, Backend]
    sources: Mapping[str, Source | ArrowStream]
    steps: tuple[Step, ...]
    sinks: tuple[tuple[str, Sink], ...]
    """Each sink with the id that it writes."""
    cache: str | None = None
    faults: tuple[Finding, ...] = ()
    """What is wrong with the file's form; steps that are broken are left out of `steps`."""
    broken_models: frozenset[str] = frozenset()
    """Models that are declared, and wrongly."""

    def where(self, step: Step) -> str:
        """`file:line:column` of a step."""
        return self.document.where(step.loc)


SOURCE = "source"


Given = ArrowStream | Mapping[str, ArrowStream]
"""A stream in the place of the file's only source, or streams by the names of its sources."""


def load_pipeline(path: Path, given: Mapping[str, str] | None = None, source: Given | None = None) -> Pipeline:
    """The pipeline of a file; `source` stands in for the file's own when it is given.

    Faults of the file's form are in `faults`, so that those of its columns can be told with them.

    Raises:
        Faults: the file is not YAML, or a variable is not set.
    """
    return read_pipeline(substitute(read_document(path), given or {}), path.parent, source)


def read_pipeline(document: Document, folder: Path, source: Given | None = None) -> Pipeline:
    """The pipeline of a document whose substitutions are made."""
    if not isinstance(document.data, dict):
        raise Faults.one(document.where(()), "a pipeline is a mapping", "with the keys source, steps and sink")
    reader = _Reader(document, folder)
    outer = reader.outer(source)
    models = dict(reader.models())
    sources: dict[str, Source | ArrowStream] = dict(outer.sources)
    if outer.source is not None:
        sources = {SOURCE: outer.source, **sources}
    if source is not None:
        sources |= _given(source, sources)
    steps = tuple(reader.steps(sources))
    sinks = tuple(reader.sinks(outer, steps, sources))
    name = outer.name or Path(document.path).stem
    broken = frozenset(outer.models.keys() - models.keys())
    faults = tuple(reader.faults)
    return Pipeline(name, document, folder, models, sources, steps, sinks, outer.cache, faults, broken)


def _given(source: Given, declared: Mapping[str, object]) -> Mapping[str, ArrowStream]:
    """Streams by the names of the sources that they stand for."""
    if not isinstance(source, Mapping):
        if len(declared) > 1:
            names = ", ".join(declared)
            raise Faults.one("source", f"the file has the sources {names}", "give them by name: source={'name': table}")
        return {next(iter(declared), SOURCE): source}
    unknown = source.keys() - (declared.keys() or {SOURCE})
    if unknown:
        raise Faults(
            Finding("source", f"the file has no source '{name}'", nearest(name, declared)) for name in sorted(unknown)
        )
    return source


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by their line, each once."""
    return sorted(dict.fromkeys(findings), key=lambda finding: _line(finding.where))


def _line(where: str) -> tuple[str, int, int]:
    parts = where.rsplit(":", 2)
    return (parts[0], int(parts[1]), int(parts[2])) if len(parts) == 3 and parts[2].isdigit() else (where, 0, 0)  # noqa: PLR2004


class _Reader:
    def __init__(self, document: Document, folder: Path) -> None:
        self.document = document
        self.folder = folder
        self.faults: list[Finding] = []
        self.data: dict[str, object] = document.data if isinstance(document.data, dict) else {}

    def fault(self, loc: Loc, what: str, hint: str = "") -> None:
        self.faults.append(Finding(self.document.where(loc), what, hint))

    def outer(self, source: Given | None) -> PipelineFile:
        """The keys around the steps; after a fault, those that are whole."""
        try:
            found = PipelineFile.model_validate(self.data)
        except ValidationError as error:
            self.faults += findings(error, PipelineFile, self.document)
            broken = {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
            whole = {key: value for key, value in self.data.items() if key not in broken}
            found = PipelineFile.model_validate(whole)
        for one, many in (("source", "sources"), ("sink", "sinks")):
            if one in self.data and many in self.data:
                self.fault((many,), f"`{one}` and `{many}` cannot stand together", "use one of them")
        if source is None and not self.data.keys() & {"source", "sources"}:
            self.fault((), "a pipeline needs a `source`", "for example source: {path: data.csv}")
        if not self.data.get("steps") and "steps" not in {f.what for f in self.faults}:
            self.fault(("steps",), "a pipeline needs `steps`", "a list of operators")
        return found

    def models(self) -> Iterator[tuple[str, Backend]]:
        """Each declared model by its backend's own keys."""
        declared = self.data.get("models")
        for name, options in declared.items() if isinstance(declared, dict) else ():
            loc = ("models", name)
            word = options.get("backend") if isinstance(options, dict) else None
            kind = Backend.kinds.get(str(word))
            if kind is None:
                hint = nearest(str(word), Backend.kinds) if word else f"one of {', '.join(sorted(Backend.kinds))}"
                self.fault((*loc, "backend"), f"unknown backend '{word}'" if word else "needs a `backend`", hint)
                continue
            try:
                yield name, kind.model_validate(options)
            except ValidationError as error:
                self.faults += findings(error, kind, self.document, loc)

    def steps(self, sources: Mapping[str, object]) -> Iterator[Step]:
        """Each step by its operator's own keys, tied to what it reads."""
        declared = self.data.get("steps")
        known = [*sources]
        before = known[0] if known else SOURCE
        for i, options in enumerate(declared if isinstance(declared, list) else ()):
            loc = ("steps", i)
            op = self._operator(options, loc)
            if op is None:  # what reads it has no fault of its own
                word = options.get("id") if isinstance(options, dict) else None
                before = str(word) if word else self._unused("step", known)
                known.append(before)
                continue
            name = op.id or self._unused(op.kind, known)
            if op.id in known:
                self.fault((*loc, "id"), f"the id '{op.id}' is taken", "every id and source has its own name")
            if op.from_ is not None and op.from_ not in known:
                self.fault((*loc, "from"), f"no step or source '{op.from_}' before this one", nearest(op.from_, known))
            yield Step(name, op, op.from_ or before, loc)
            known.append(name)
            before = name

    def _operator(self, options: object, loc: Loc) -> Operator | None:
        if not isinstance(options, dict) or "op" not in options:
            self.fault(loc, "a step is a mapping with the key `op`", f"one of {', '.join(sorted(Operator.kinds))}")
            return None
        kind = Operator.kinds.get(str(options["op"]))
        if kind is None:
            self.fault((*loc, "op"), f"unknown operator '{options['op']}'", nearest(str(options["op"]), Operator.kinds))
            return None
        try:
            op = kind.model_validate(options)
        except ValidationError as error:
            self.faults += findings(error, kind, self.document, loc)
            return None
        faults = op.prepare(Site(self.document, loc, self.folder))
        self.faults += faults
        return None if faults else op

    @staticmethod
    def _unused(kind: str, known: list[str]) -> str:
        return next(name for i in range(1, len(known) + 3) if (name := f"{kind}{i}" if i > 1 else kind) not in known)

    def sinks(
        self, outer: PipelineFile, steps: tuple[Step, ...], sources: Mapping[str, object]
    ) -> Iterator[tuple[str, Sink]]:
        """Each sink with what it writes."""
        last = steps[-1].id if steps else next(iter(sources), SOURCE)
        known = [*sources, *(step.id for step in steps)]
        listed = (
            [(("sink",), outer.sink)] if outer.sink else [(("sinks", i), sink) for i, sink in enumerate(outer.sinks)]
        )
        seen: set[tuple[Path, str]] = set()
        for loc, sink in listed:
            if sink.from_ is not None and sink.from_ not in known and not self.faults:
                self.fault((*loc, "from"), f"no step or source '{sink.from_}'", nearest(sink.from_, known))
            place = self.folder / (sink.path or sink.database or "")
            what, hint = sink_fault(sink, self.folder)
            if what:
                self.fault((*loc, "path" if sink.path else "database"), what, hint)
            target = (place.resolve(), (sink.table or "").lower())
            if target in seen:
                self.fault(loc, f"'{sink.text()}' is written twice", "each sink has its own path")
            seen.add(target)
            yield sink.from_ or last, sink


def with_sink(pipeline: Pipeline, out: str | Path) -> Pipeline:
    """The same pipeline writing to another file (`--out`), or to a URL; it must have one sink or none.

    Raises:
        Faults: several sinks, or a name that tells no format.
    """
    if len(pipeline.sinks) > 1:
        raise Faults.one("--out", f"the pipeline has {len(pipeline.sinks)} sinks", "--out replaces the only one")
    last = pipeline.sinks[0][0] if pipeline.sinks else pipeline.steps[-1].id
    try:
        sink = Sink(path=str(out) if "://" in str(out) else str(Path(out).absolute()))
    except ValidationError as error:
        what, _, hint = error.errors()[0]["msg"].removeprefix("Value error, ").partition(" | ")
        raise Faults.one("--out", what, hint) from None
    fault, hint = sink_fault(sink, pipeline.folder)
    if fault:
        raise Faults.one("--out", fault, hint)
    return replace(pipeline, sinks=((last, sink),))

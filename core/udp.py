"""A UDP's YAML file -> a `Udp`, every fault with its line; and where UDPs are found by name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from gdo.document import Document, Loc, read_document
from gdo.errors import Faults, Finding, nearest
from gdo.prompt import Example, Udp
from gdo.scalars import AnswerFault
from gdo.schema import Record, parse_record
from gdo.template import Template, TemplateFault
from gdo.validation import findings


class ExampleSpec(BaseModel):
    """One worked example: a row and its answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    row: dict[str, object] = Field(alias="in", description="Column name to value")
    out: object = Field(description="The answer that this row should get")


def _label_set(value: object) -> object:
    """Numbers and true or false are words here."""
    plain = (str, int, float, bool)
    if isinstance(value, list) and all(isinstance(item, plain) for item in value):
        return [_word(item) for item in value]
    if isinstance(value, dict) and all(item is None or isinstance(item, plain) for item in value.values()):
        return {str(key): "" if item is None else _word(item) for key, item in value.items()}
    raise ValueError("must be a list of labels | for example [red, blue], or label: description")


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


LabelSet = Annotated[list[str] | dict[str, str], BeforeValidator(_label_set)]


class UdpFile(BaseModel):
    """A UDP as its file says it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    udp: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="The UDP's name, also the name of its file")
    version: int = Field(default=1, ge=1, description="Raised when the answers are meant to change")
    description: str = ""
    system: str = Field(default="", description="What the model is told before any row")
    prompt: str = Field(min_length=1, description="A Jinja2 template over the row's columns")
    inputs: list[str] = Field(default=[], description="The columns that {{ fields }} stands for")
    output: dict[str, object] = Field(description="Field name to type")
    examples: list[ExampleSpec] = []
    tests: list[ExampleSpec] = []


def built_in() -> dict[str, Path]:
    """The UDPs that ship with gdo, by name."""
    # Located from this package, not imported: the core names no wing.
    import importlib.util

    spec = importlib.util.find_spec("gdo.udps")
    folders = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def find_udp(word: str, folder: Path) -> Path:
    """The file of a UDP named in a pipeline: a path relative to the pipeline's folder, `udps/` there, or a shipped one.

    Raises:
        Faults: there is none (the message names the nearest).
    """
    beside = {path.stem: path for path in sorted((folder / "udps").glob("*.yaml"))}
    if word.endswith((".yaml", ".yml")) or "/" in word:
        path = folder / word
        if path.is_file():
            return path
        raise Faults.one("udp", f"no UDP file '{word}'", "paths are relative to the pipeline file")
    known = built_in() | beside
    if word in known:
        return known[word]
    raise Faults.one("udp", f"no UDP named '{word}'", nearest(word, known))


def load_udp(path: Path) -> Udp:
    """The UDP of a file.

    Raises:
        Faults: all that is wrong in it, each as `file:line:column: what (hint)`.
    """
    document = read_document(path)
    try:
        spec = UdpFile.model_validate(document.data)
    except ValidationError as error:
        raise Faults(findings(error, UdpFile, document)) from None
    faults: list[Finding] = []
    builder = UdpBuilder(document, (), faults)
    output = builder.output(spec.output, ("output",))
    template = builder.template(spec.prompt, ("prompt",))
    examples, tests = (
        tuple(builder.examples(given, output, (key,)))
        for key, given in (("examples", spec.examples), ("tests", spec.tests))
    )
    udp = Udp(
        name=spec.udp, template=template, output=output, system=spec.system, examples=examples, tests=tests,
        version=spec.version, description=spec.description, inputs=tuple(spec.inputs),
    )  # fmt: skip
    faults += builder.missing_inputs(udp, ("prompt",))
    if faults:
        raise Faults(faults)
    return udp


class UdpBuilder:
    """Turns the parts of a prompt that YAML holds into typed ones, collecting faults with their places."""

    def __init__(self, document: Document, base: Loc, faults: list[Finding]) -> None:
        self.document = document
        self.base = base
        self.faults = faults

    def fault(self, loc: Loc, what: str, hint: str = "") -> None:
        """Note a fault at a place under the base."""
        self.faults.append(Finding(self.document.where((*self.base, *loc)), what, hint))

    def template(self, source: str, loc: Loc) -> Template:
        """The compiled template; an empty one after a fault."""
        try:
            template = Template(source)
        except TemplateFault as error:
            self.fault(loc, str(error))
            return Template("")
        if not source.strip():
            self.fault(loc, "the prompt is empty")
        return template

    def output(self, declared: Mapping[str, object], loc: Loc) -> Record:
        """The answer type of an `output:` or `attributes:` mapping."""
        return parse_record(declared, lambda at, what, hint: self.fault((*loc, *at), what, hint))

    def declared(self, output: Mapping[str, object]) -> Record:
        """The answer type of the `output:` beside a prompt in place."""
        if not output:
            self.fault(
                (), "'output' is missing", "the fields of the answer and their types, for example {brand: string}"
            )
            return Record(())
        return self.output(output, ("output",))

    def examples(self, given: list[ExampleSpec], output: Record, loc: Loc) -> Iterator[Example]:
        """Checked examples; a bare answer stands for the only field of a record of one."""
        for i, example in enumerate(given):
            out = example.out
            if len(output.fields) == 1 and not (isinstance(out, dict) and output.names[0] in out):
                out = {output.names[0]: out}
            try:
                yield Example(example.row, output.check(out))
            except AnswerFault as fault:
                self.fault((*loc, i, "out"), f"the example does not fit the output: {fault}")

    def missing_inputs(self, udp: Udp, loc: Loc) -> Iterator[Finding]:
        """Examples and tests whose `in` lacks a column that the template at `loc` reads, or cannot be rendered.

        A name that none of them has is the template's fault, told once and there.
        """
        rows = [example.row for example in (*udp.examples, *udp.tests)]
        unknown = {name for name in udp.names if len(rows) > 1 and not any(name in row for row in rows)}
        for name in sorted(unknown):
            what = f"the prompt reads '{name}', which its examples do not have"
            yield Finding(self.document.where((*self.base, *loc)), what, nearest(name, rows[0]))
        for key, group in (("examples", udp.examples), ("tests", udp.tests)):
            for i, example in enumerate(group):
                where = self.document.where((*self.base, key, i, "in"))
                for column in sorted(udp.names - unknown - example.row.keys()):
                    yield Finding(where, f"the example has no '{column}'", nearest(column, example.row))
                if udp.names <= example.row.keys():
                    try:
                        udp.render(example.row)
                    except TemplateFault as fault:
                        yield Finding(where, f"the example cannot be rendered: {fault}")

"""Operators whose logic is a prompt: what they share."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pydantic import Field, PrivateAttr

from gdo.errors import Faults, Finding
from gdo.op import Operator, Site
from gdo.prompt import Udp
from gdo.schema import Record, Scalar
from gdo.udp import ExampleSpec, UdpBuilder, find_udp, load_udp


class Compiled(Operator):
    """An operator that asks one compiled prompt."""

    _udp: Udp | None = PrivateAttr(default=None)

    @property
    def compiled(self) -> Udp:
        """The prompt, once `prepare` has found no fault."""
        assert self._udp is not None, "prepare() comes first"  # noqa: S101
        return self._udp

    def prompts(self) -> Sequence[tuple[Udp, str | None]]:
        """The one prompt, and the step's model."""
        return ((self.compiled, self.model),)

    def reads(self, columns: Iterable[str]) -> frozenset[str]:
        """The columns of the template."""
        return self.compiled.columns

    @property
    def free_inputs(self) -> tuple[str, ...]:
        """What `{{ fields }}` stands for."""
        return self.compiled.inputs if "fields" in self.compiled.template.columns else ()

    def with_inputs(self, order: Sequence[str]) -> "Compiled":
        """`{{ fields }}` in another order."""
        other = self.model_copy()
        other._udp = replace(self.compiled, inputs=tuple(order))  # noqa: SLF001 (a copy of itself)
        return other


class Prompted(Compiled):
    """An operator whose logic is a prompt: a UDP by name or path, or a template in place."""

    udp: str | None = Field(default=None, description="A UDP's name, or a path relative to this file")
    prompt: str | None = Field(default=None, description="A Jinja2 template over the row's columns")
    system: str = Field(default="", description="What the model is told before any row")
    examples: list[ExampleSpec] = Field(default=[], description="Worked examples, shown in the prompt")

    def output_type(self, here: UdpBuilder) -> Record:
        """The answer type of a prompt in place."""
        return here.output({}, ("output",))

    def prepare(self, site: Site) -> list[Finding]:
        """Load the UDP, or compile the prompt in place."""
        faults: list[Finding] = []
        here = UdpBuilder(site.document, site.loc, faults)
        if (self.udp is None) == (self.prompt is None):
            what = "needs `udp` or `prompt`" if self.udp is None else "takes `udp` or `prompt`, not both"
            here.fault((), f"{self.kind} {what}")
            return faults
        if self.udp is not None:
            for key in ("system", "examples", "output"):
                if key in self.model_fields_set:
                    here.fault((key,), f"`{key}` belongs into the UDP's file", "leave it out beside `udp`")
            self._udp = self._load(self.udp, site, here)
        else:
            self._udp = self._inline(here)
        return faults

    def _load(self, word: str, site: Site, here: UdpBuilder) -> Udp | None:
        try:
            return self.adapted(load_udp(find_udp(word, site.folder)))
        except Faults as error:
            for finding in error.findings:
                where = site.document.where((*site.loc, "udp")) if finding.where == "udp" else finding.where
                here.faults.append(Finding(where, finding.what, finding.hint))
        return None

    def _inline(self, here: UdpBuilder) -> Udp:
        output = self.output_type(here)
        template = here.template(self.prompt or "", ("prompt",))
        examples = tuple(here.examples(self.examples, output, ("examples",)))
        udp = Udp(self.id or self.kind, template, output, system=self.system, examples=examples)
        here.faults.extend(here.missing_inputs(udp, ("prompt",)))
        return self.adapted(udp)

    def adapted(self, udp: Udp) -> Udp:
        """The UDP as this operator asks it."""
        return udp


def single_output(kind: str, udp: Udp, wanted: str) -> str:
    """What is wrong with a UDP's output where one field is wanted; nothing when it has one."""
    names = udp.output.names
    if len(names) == 1:
        return ""
    return f"{kind} takes a UDP of one {wanted}; '{udp.name}' gives {', '.join(names)}"


def is_boolean(udp: Udp) -> bool:
    """Whether a UDP answers yes or no."""
    return len(udp.output.fields) == 1 and udp.output.fields[0].type == Scalar("boolean")

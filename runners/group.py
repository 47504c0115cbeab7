"""Equal calls in a query: what they ask, over which rows, and what is known of it."""

from dataclasses import dataclass, field

import pyarrow as pa

from gdo.runners.function import Function
from gdo.runners.known import Known
from gdo.runners.session import Question, Session
from gdo.runners.sites import Site
from gdo.runners.stable import Doubts
from gdo.runners.syntax import Tree


@dataclass
class Group:
    """Equal calls: they are answered alike, and so rewritten alike.

    `parts` are the arguments that differ from row to row, by the names that `flat` gives them; `settled` are those that
    stand in the query.
    """

    function: Function
    session: Session
    text: str
    parts: dict[str, Tree]
    settled: dict[str, object]
    reason: str = ""
    """Why the calls stay as they are."""
    doubt: str = ""
    """Why an input may come up that was not foreseen; it is asked when it does."""
    sites: list[Site] = field(default_factory=list)
    known: Known = field(init=False)
    heard: Known | None = None
    """The inputs that the query came to when it ran last; None where those are not listened for."""
    rehearsing: bool = False
    """Whether nothing is asked, whatever comes up."""

    def __post_init__(self) -> None:
        self.known = Known(self.function.kind)

    def add(self, site: Site, refusal: str, doubts: Doubts) -> None:
        """One more of the calls; one that cannot be rewritten keeps all of them from it."""
        self.sites.append(site)
        reason = site.reason or (refusal and f"its inputs cannot be read by themselves: {refusal}")
        if self.function.json and not reason:
            reason = "its schema is not a constant"
        self.reason = self.reason or reason
        if site.inputs is not None:
            self.doubt = self.doubt or doubts.about(site.inputs)

    def rows(self, columns: list[pa.Array]) -> pa.RecordBatch:
        """The parts of calls as rows."""
        return self.function.flat(pa.RecordBatch.from_arrays(columns, names=list(self.parts)))

    def question(self, rows: pa.RecordBatch) -> Question:
        """What is to be asked of rows: those that are not known and that the query comes to, and each once."""
        missing = self.known.missing(rows)
        if self.heard is not None:
            missing = missing.filter(self.heard.find(missing).is_valid())
        return Question(self.function, self.known, missing, self.settled)

    def look_up(self, columns: list[pa.Array]) -> pa.Array:
        """The answers to calls; one that is not known is null, or asked where there is a doubt."""
        rows = self.rows(columns)
        if self.heard is not None:
            new = self.heard.missing(rows)
            self.heard.add(new, pa.repeat(pa.scalar(True), new.num_rows))
        if self.doubt and not self.rehearsing:
            question = self.question(rows)
            if question.rows.num_rows:
                self.known.add(question.rows, self.session.ask(self.function, question.whole(question.rows)))
        return self.known.find(rows)


def constant(expression: Tree) -> object:
    """A text, or a list of them as a tuple, that stands in the query; None for anything else."""
    literal = expression.get("literal") or {}
    if expression.get("class") == "CONSTANT" and literal.get("kind") == "STRING":
        return str(literal.get("text", ""))
    if expression.get("function_name") == "list_value":
        texts = [constant(argument["expression"]) for argument in expression.get("arguments", [])]
        return tuple(texts) if texts and all(isinstance(text, str) for text in texts) else None
    return None


def arguments(call: Tree, function: Function) -> tuple[dict[str, Tree], dict[str, object]]:
    """The arguments of a call that differ from row to row, and those that are settled in the query.

    A struct that is made in place is handed on value by value.
    """
    parts: dict[str, Tree] = {}
    settled: dict[str, object] = {}
    for place, argument in enumerate(call["arguments"]):
        expression = argument["expression"]
        value = constant(expression) if place in function.settles else None
        if value is not None:
            settled[str(place)] = value
        elif place == function.struct and _is_struct(expression):
            parts |= {f"{place}.{part['name']}": part["expression"] for part in expression["arguments"]}
        else:
            parts[str(place)] = expression
    return parts, settled


def _is_struct(expression: Tree) -> bool:
    made = expression.get("function_name") == "struct_pack" and not expression.get("filter")
    names = [str(part.get("name", "")).lower() for part in expression.get("arguments", [])]
    return made and bool(names) and all(names) and len({*names}) == len(names)

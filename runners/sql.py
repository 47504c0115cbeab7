"""A query whose prompts are asked before it runs: over the distinct inputs that the rest of it leaves, in one stream.

DuckDB's own parser reads the query. For each call of a prompt function a SELECT of its distinct arguments is made, in
rounds where one call depends on another; the answers are asked for all at once; then the query runs with functions that
look them up. What cannot be read that way runs as it is, and `explain` says why.
"""

import contextlib
import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import duckdb
import pyarrow as pa

from gdo.database import message, nodes
from gdo.errors import Faults, RunFailed
from gdo.runners.function import Function, flat
from gdo.runners.known import Known
from gdo.runners.normal import name_columns, normalise
from gdo.runners.registry import OWN, Registry, drop, put
from gdo.runners.session import Session, Work
from gdo.runners.sites import Site, find_sites, mark
from gdo.runners.stable import Doubts
from gdo.runners.syntax import SITE, Tree, parse, place, same, statement_of, write, write_expression

_numbers = itertools.count(1)
Variant = tuple[str, int, pa.DataType]
"""What tells functions apart that look answers up: `prompt` has a result of another type for each schema."""
_TYPED = 3
"""The arguments of a `prompt` with a schema."""


@dataclass
class Group:
    """Equal calls in a query: they are answered alike, and so rewritten alike."""

    function: Function
    session: Session
    text: str
    reason: str = ""
    """Why the calls stay as they are."""
    doubt: str = ""
    """Why an input may come up that was not foreseen; it is asked when it does."""
    sites: list[Site] = field(default_factory=list)


class Prepared:
    """A query, and how it is run: in rounds that ask, and a last step that looks the answers up.

    A context manager: the functions that look answers up are there until its end. Nothing is asked before `ask`.

    Raises:
        Faults: it is no query, or DuckDB does not accept it.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, registry: Registry, query: str) -> None:
        self.connection = connection
        self.registry = registry
        self.note = ""
        """Why nothing of the query is rewritten."""
        self.groups: dict[str, Group] = {}
        self.rounds: list[list[Site]] = []
        self.sql = query
        """The query as it runs in the end."""
        self._number = next(_numbers)
        self._known: dict[Variant, Known] = {}
        self._lookups: dict[tuple[Variant, bool], str] = {}
        for _, session in registry.functions.values():
            session.fault = None
        tree = parse(query)
        registry.macros(connection)
        try:
            self._read(tree, query)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Prepared":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget the functions that look answers up."""
        while self._lookups:
            with contextlib.suppress(duckdb.Error):
                drop(self.connection, self._lookups.popitem()[1])

    # Before anything is asked

    def _read(self, tree: Tree | None, query: str) -> None:
        names = [name for name, (function, _) in self.registry.functions.items() if not function.json]
        if tree is None or not mark(tree, names):
            self.note = "DuckDB gives no tree of it" if tree is None else "it calls no prompt function"
            self._describe(query)
            return
        self._check_calls(tree, query)
        self._take_only_fields(tree)
        name_columns(tree)
        self._describe(write(tree))
        tree = self._normal(tree)
        mark(tree, names)
        doubts = Doubts(self.connection)
        for site in find_sites(tree["statements"][0]["node"]):
            self._grouped(site, doubts)
        self._order()
        self._tree = tree

    def _describe(self, query: str) -> None:
        """Have DuckDB accept the query, and say what its columns are."""
        try:
            rows = self.connection.sql(f"DESCRIBE {query}").fetchall()
        except duckdb.Error as error:
            raise self._told(error, bound=True) from None
        self.columns = [(str(row[0]), str(row[1])) for row in rows]

    def _check_calls(self, tree: Tree, query: str) -> None:
        """The number of arguments, and templates, labels and schemas that stand in the query."""
        for call in [node for node in nodes(tree) if SITE in node]:
            if any(argument.get("name") for argument in call["arguments"]):
                continue  # by name: for DuckDB to put in order
            where = place(query, call.get("query_location"))
            function = self._function(call)[0]
            given = len(call["arguments"])
            if given != function.count:
                takes = f"{function.name} takes {function.count} arguments ({function.signature}), not {given}"
                raise Faults.one(where, takes)
            try:
                settled = [_constant(call["arguments"][at]["expression"]) for at in function.settles]
                if None not in settled and settled:
                    function.step(tuple(settled))
            except Faults as error:
                raise Faults.one(where, f"{function.name}: {error.findings[0].what}", error.findings[0].hint) from None

    def _take_only_fields(self, tree: Tree) -> None:
        """`f(x).brand` is `f(x)` where a brand is all that f gives: its result is then no struct."""
        for node in list(nodes(tree)):
            if node.get("type") == "STRUCT_EXTRACT" and SITE in node["children"][0]:
                call, name = node["children"]
                if self._function(call)[0].only == _constant(name):
                    alias = node.get("alias") or _constant(name)
                    node.clear()
                    node |= {**call, "alias": alias}

    def _function(self, call: Tree) -> tuple[Function, Session]:
        name = str(call["function_name"]).lower()
        if name == "prompt" and len(call["arguments"]) == _TYPED:
            function, session = self.registry.functions["prompt json"]
            schema = _constant(call["arguments"][2]["expression"])
            return (function.typed(schema) if isinstance(schema, str) else function), session
        return self.registry.functions[name]

    def _normal(self, tree: Tree) -> Tree:
        """The plainer form, where DuckDB accepts it."""
        normal = copy.deepcopy(tree)
        normalise(normal, self._binds)
        return normal if self._binds(normal["statements"][0]["node"]) else tree

    def _binds(self, node: Tree) -> bool:
        return not self._refusal(write(statement_of(_clean(node))))

    def _refusal(self, query: str) -> str:
        try:
            self.connection.sql(f"DESCRIBE {query}").fetchall()
        except duckdb.Error as error:
            return message(error)
        return ""

    def _grouped(self, site: Site, doubts: Doubts) -> None:
        """Put a call to its equals; one that cannot be rewritten keeps all of them from it."""
        function, session = self._function(site.call)
        text = write_expression(_clean(site.call))
        group = self.groups.setdefault(same(site.call), Group(function, session, text))
        group.sites.append(site)
        if function.json and not site.reason:
            site.reason = "its schema is not a constant"
        if not site.reason and site.inputs is not None:
            refusal = self._refusal(write(statement_of(_clean(site.inputs))))
            site.reason = refusal and f"its inputs cannot be read by themselves: {refusal}"
        group.reason = group.reason or site.reason
        group.doubt = group.doubt or (doubts.about(site.inputs) if site.inputs is not None else "")

    def _order(self) -> None:
        """The rounds: a call waits for those that its inputs depend on."""
        waiting = {site.number: site for group in self.groups.values() if not group.reason for site in group.sites}
        needs = {n: {node[SITE] for node in nodes(site.inputs) if SITE in node} - {n} for n, site in waiting.items()}
        while waiting:
            ready = [site for n, site in waiting.items() if not needs[n] & waiting.keys()]
            if not ready:
                for site in waiting.values():
                    self.groups[same(site.call)].reason = "its inputs depend on its own answers"
                self.rounds = [[s for s in sites if not self.groups[same(s.call)].reason] for sites in self.rounds]
                return
            self.rounds.append(ready)
            for site in ready:
                del waiting[site.number]

    # Asking

    def ask(self) -> None:
        """Ask all that the query needs, round by round, and make the query that looks it up.

        Raises:
            Faults, ModelUnready, RunFailed: as the functions do.
        """
        for sites in self.rounds:
            work: dict[Session, list[Work]] = {}
            read: set[tuple[str, str]] = set()
            for site in sites:
                group = self.groups[same(site.call)]
                query = self.inputs(site)
                if group.reason or (group.function.name, query) in read:
                    continue
                read.add((group.function.name, query))
                known = self._answers(group.function)
                for rows in self._rows(query, group):
                    work.setdefault(group.session, []).append((group.function, known, known.missing(rows)))
            for session, pieces in work.items():
                session.fill(pieces)
        if self.groups:
            self.sql = self.written(self._tree["statements"][0]["node"])

    def inputs(self, site: Site) -> str:
        """The query of the distinct inputs of a call."""
        assert site.inputs is not None  # noqa: S101 (a site in a round has them)
        return self.written(site.inputs)

    def _rows(self, query: str, group: Group) -> Iterator[pa.RecordBatch]:
        """The distinct arguments of a call; where they cannot be read after all, the call stays as it is."""
        try:
            table = self.connection.sql(query).to_arrow_table()
        except duckdb.Error as error:
            if isinstance(self._told(error), RunFailed) and not self._aborted():
                group.reason = f"its inputs cannot be read by themselves: {message(error)}"
                return
            raise self._told(error) from None
        for batch in table.to_batches():
            yield flat(batch.columns)

    def _aborted(self) -> bool:
        try:
            self.connection.sql("SELECT 1").fetchall()
        except duckdb.Error:
            return True
        return False

    def written(self, node: Tree) -> str:
        """A node as SQL, with calls whose answers are known by the functions that look them up."""
        node = copy.deepcopy(node)
        calls = [(part, self.groups.get(same(part))) for part in nodes(node) if SITE in part]
        for part, group in calls:
            if group is not None and not group.reason:
                name = self._lookup(group.function, group.session, closed=not group.doubt)
                part |= {"function_name": name, "qualified_name": {"path": [name]}}
        return write(statement_of(_clean(node)))

    def _answers(self, function: Function) -> Known:
        return self._known.setdefault(_variant(function), Known(function.kind))

    def _lookup(self, function: Function, session: Session, *, closed: bool) -> str:
        """The function that looks up what was asked; one that is not `closed` asks for what was not."""
        key = (_variant(function), closed)
        if key not in self._lookups:
            known = self._answers(function)

            def found(called: Function, columns: list[pa.Array]) -> pa.Array:
                rows = flat(columns)
                missing = known.missing(rows) if not closed else rows.slice(0, 0)
                if missing.num_rows:
                    known.add(missing, session.ask(called, missing))
                return known.find(rows)

            name = f"{OWN}{self._number}_{len(self._lookups)}"
            put(self.connection, name, function, found)
            self._lookups[key] = name
        return self._lookups[key]

    # What is told

    @contextlib.contextmanager
    def shown(self, *, quiet: bool) -> Iterator[None]:
        """Progress on standard error while the body runs, once it takes long."""
        sessions = {id(group.session): group.session for group in self.groups.values()}
        with contextlib.ExitStack() as stack:
            for session in sessions.values():
                names = sorted({group.function.name for group in self.groups.values() if group.session is session})
                stack.enter_context(session.shown(names, quiet=quiet))
            yield

    def report(self) -> dict[str, dict[str, object]]:
        """The totals of each function so far."""
        found: dict[str, dict[str, object]] = {}
        for group in self.groups.values():
            found |= {name: facts for name, facts in group.session.report.items() if name == group.function.name}
        return found

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Errors of DuckDB's within are told as gdo's: what a function raised is raised again."""
        try:
            yield
        except duckdb.Error as error:
            raise self._told(error) from None

    def _told(self, error: duckdb.Error, *, bound: bool = False) -> BaseException:
        for session in {session for _, session in self.registry.functions.values()}:
            if session.fault is not None and "Python exception occurred" in str(error):
                return session.fault
        if bound:
            return Faults.one("query", message(error), self._hint(str(error)))
        return RunFailed(f"query: {message(error)}")

    def _hint(self, said: str) -> str:
        if "Scalar Function with name" not in said:
            return ""
        return f"prompt functions here: {', '.join(_visible(self.registry))}"

    def explain(self) -> str:
        """How the query is run: what is asked over which inputs, in which order, and what runs as it is and why."""
        lines: list[str] = []
        for number, sites in enumerate(self.rounds, 1):
            for site in sites:
                group = self.groups[same(site.call)]
                if not group.reason:
                    doubt = f"; one that comes up later is asked then, for {group.doubt}" if group.doubt else ""
                    lines += [f"{number}. {group.text}: asked once for each row of{doubt}", f"   {self.inputs(site)}"]
        for group in self.groups.values():
            if group.reason:
                lines.append(f"as it is: {group.text}: {group.reason}")
        last = self.written(self._tree["statements"][0]["node"]) if self.groups else self.sql
        lines += [f"as it is: {self.note}"] if self.note else []
        return "\n".join([*lines, "then" if self.rounds else "runs", f"   {last}"])


def _variant(function: Function) -> Variant:
    return function.name, function.count, function.kind


def _visible(registry: Registry) -> list[str]:
    return [function.name for function, _ in registry.functions.values() if not function.json]


def _constant(expression: Tree) -> object:
    """A text, or a list of them as a tuple, that stands in the query; None for anything else."""
    literal = expression.get("literal") or {}
    if expression.get("class") == "CONSTANT" and literal.get("kind") == "STRING":
        return str(literal["text"])
    if expression.get("function_name") == "list_value":
        texts = [_constant(argument["expression"]) for argument in expression.get("arguments", [])]
        return tuple(texts) if texts and all(isinstance(text, str) for text in texts) else None
    return None


def _clean(node: Tree) -> Tree:
    """A copy without the numbers of calls, as DuckDB reads it."""
    node = copy.deepcopy(node)
    for part in nodes(node):
        part.pop(SITE, None)
    return node

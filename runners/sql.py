"""A query whose prompts are asked before it runs: over the distinct inputs that the rest of it leaves, in one stream.

DuckDB's own parser reads the query. For each call of a prompt function a SELECT of its distinct arguments is made, in
rounds where one call depends on another; the answers are asked for all at once; then the query runs with functions that
look them up. What cannot be read that way runs as it is, and `explain` says why.
"""

import contextlib
import itertools
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

import duckdb
import pyarrow as pa

from gdo.database import is_aborted, message, nodes
from gdo.errors import RunFailed
from gdo.runners.calls import Calls
from gdo.runners.group import Group, arguments
from gdo.runners.known import Known
from gdo.runners.normal import name_columns, normalise
from gdo.runners.parameters import Values
from gdo.runners.registry import OWN, Registry, drop, put
from gdo.runners.rehearsal import rehearse
from gdo.runners.session import Question, Session
from gdo.runners.sites import Site, find_sites, mark
from gdo.runners.stable import Doubts
from gdo.runners.syntax import SITE, Tree, call, copied, same, statement_of, unmarked, write, write_expression
from gdo.runners.variables import Variables

Out = TypeVar("Out")
_numbers = itertools.count(1)


class Prepared:
    """A query, and how it is run: in rounds that ask, and a last step that looks the answers up.

    A context manager: the functions that look answers up are there until its end. Nothing is asked before `ask`.

    Raises:
        Faults: it is no query, or DuckDB does not accept it.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, registry: Registry, query: str, values: Values | None = None
    ) -> None:
        self.connection = connection
        self.registry = registry
        self.calls = Calls(registry)
        self.query = query
        self.note = ""
        """Why nothing of the query is rewritten."""
        self.columns: list[tuple[str, str]] = []
        """The names and types of the result."""
        self.groups: dict[str, Group] = {}
        self.rounds: list[list[Site]] = []
        self.sql = query
        """The query as it runs in the end."""
        self._number = next(_numbers)
        self._lookups: dict[str, str] = {}
        for _, session in registry.functions.values():
            session.fault = None
        tree = self.calls.read(connection, query, values)
        registry.macros(connection)
        self._variables = Variables(connection)
        try:
            self._read(tree, query)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> "Prepared":
        return self

    def __exit__(self, *_: object) -> None:
        """Forget the functions that look answers up."""
        while self._lookups:
            with contextlib.suppress(duckdb.Error):
                drop(self.connection, self._lookups.popitem()[1])
        self._variables.close()

    # Before anything is asked

    def _read(self, tree: Tree | None, query: str) -> None:
        names = [name for name, (function, _) in self.registry.functions.items() if not function.json]
        if tree is None or not mark(tree, names):
            self.note = "DuckDB gives no tree of it" if tree is None else "it calls no prompt function itself"
            self.sql = query.strip().rstrip(";") if tree is None else write(tree)
            self._describe(self.sql)
            return
        self.calls.check(tree, query)
        self.calls.take_only_fields(tree)
        name_columns(tree)
        self._describe(write(unmarked(tree)))
        self._tree = self._normal(tree)
        mark(self._tree, names)
        doubts = Doubts(self.connection)
        for site in find_sites(self._node, self.calls.parts, self._refusal):
            self._group(site).add(site, self._refusal(site.inputs), doubts)
        self._order()

    @property
    def _node(self) -> Tree:
        node: Tree = self._tree["statements"][0]["node"]
        return node

    def _describe(self, query: str) -> None:
        """Have DuckDB accept the query, and say what its columns are."""
        try:
            rows = self.connection.sql(f"DESCRIBE {query}").fetchall()
            self.columns = [(str(row[0]), str(row[1])) for row in rows]
        except duckdb.Error as error:
            if not self._variables.bring(error):
                raise self.registry.told(error, bound=True) from None
            self._describe(query)

    def _normal(self, tree: Tree) -> Tree:
        """The plainer form, where DuckDB accepts it."""
        normal = copied(tree)
        normalise(normal, self._refusal)
        return tree if normal == tree or self._refusal(normal["statements"][0]["node"]) else normal

    def _refusal(self, node: Tree | None) -> str:
        """Why DuckDB does not accept a SELECT; nothing where it does."""
        try:
            if node is not None:
                self.connection.sql(f"DESCRIBE {write(statement_of(unmarked(node)))}").fetchall()
        except duckdb.Error as error:
            return message(error)
        return ""

    def _group(self, site: Site) -> Group:
        """The equals of a call."""
        key = same(site.call)
        if key not in self.groups:
            function, session = self.calls.function(site.call)
            text = write_expression(unmarked(site.call))
            self.groups[key] = Group(function, session, text, *arguments(site.call, function))
        return self.groups[key]

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
        for session in {group.session for group in self.groups.values()}:
            session.queries.append(self.query)
        for sites in self.rounds:
            if sites is self.rounds[-1]:  # what the others say is known by now
                with self._telling():
                    rehearse(self.connection, self._node, self.written, sites, self.groups)
            work: dict[Session, list[Question]] = {}
            for group, query in self._queries(sites):
                for rows in self._rows(query, group):
                    work.setdefault(group.session, []).append(group.question(rows))
            for session, questions in work.items():
                session.fill(questions)
        if self.groups:
            self.sql = self.written(self._node)

    def run(self, work: Callable[[str], Out]) -> Out:
        """What some work makes of the query, once all is asked.

        A row may have come to a table or file since its inputs were read: then they are read again, a few
        times; after that, what comes up is asked when it does.

        Raises:
            RunFailed: the query fails while it runs.
        """
        for _ in range(1 + max(1, len(self.groups))):
            for group in self.groups.values():
                group.known.missed = False
                group.heard = group.heard and Known(pa.bool_())
            with self._telling():
                out = work(self.sql)
            if not self._caught_up():
                return out
        for group in self.groups.values():
            group.doubt = group.doubt or "its rows change while they are read"
        with self._telling():
            return work(self.sql)

    def _caught_up(self) -> bool:
        """Whether inputs have come up since they were read; they are asked."""
        behind = False
        for group in self.groups.values():
            if group.known.missed and not group.doubt:
                for _, query in self._queries(group.sites):
                    questions = [group.question(rows) for rows in self._rows(query, group)]
                    behind = behind or any(question.rows.num_rows for question in questions)
                    group.session.fill(questions)
        return behind

    def _queries(self, sites: list[Site]) -> Iterator[tuple[Group, str]]:
        """The queries of the inputs of a round, each once."""
        seen: set[tuple[str, str]] = set()
        for site in sites:
            key = same(site.call)
            group = self.groups[key]
            if group.reason or site.inputs is None:
                continue
            query = self.written(site.inputs)
            if (key, query) not in seen:
                seen.add((key, query))
                yield group, query

    def _rows(self, query: str, group: Group) -> Iterator[pa.RecordBatch]:
        """The distinct inputs of a call; where they cannot be read after all, the call stays as it is."""
        try:
            table = self.connection.sql(query).to_arrow_table()
        except duckdb.Error as error:
            told = self.registry.told(error)
            if not isinstance(told, RunFailed) or is_aborted(self.connection):
                raise told from None
            group.reason = f"its inputs cannot be read by themselves: {message(error)}"
            return
        for batch in table.to_batches():
            yield group.rows(batch.columns)

    def written(self, node: Tree) -> str:
        """A node as SQL, with calls whose answers are known by the functions that look them up."""
        node = copied(node)
        calls = [(part, same(part)) for part in nodes(node) if SITE in part]
        for part, key in reversed(calls):  # the inner ones first: an outer one hands them on
            group = self.groups.get(key)
            if group is not None and not group.reason:
                part.update(call(self._lookup(key, group), list(arguments(part, group.function)[0].values())))
        return write(statement_of(unmarked(node)))

    def _lookup(self, key: str, group: Group) -> str:
        """The function that looks up the answers of a group."""
        if key not in self._lookups:
            name = f"{OWN}{self._number}_{len(self._lookups)}"
            put(self.connection, name, len(group.parts), group.function.kind, group.look_up)
            self._lookups[key] = name
        return self._lookups[key]

    @contextlib.contextmanager
    def shown(self, *, quiet: bool) -> Iterator[None]:
        """Progress on standard error while the body runs, once it takes long."""
        names: dict[Session, list[str]] = {}
        for group in self.groups.values():
            names.setdefault(group.session, []).append(group.function.name)
        with contextlib.ExitStack() as stack:
            for session, called in names.items():
                stack.enter_context(session.shown(sorted(called), quiet=quiet))
            yield

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Errors of DuckDB's within are told as gdo's: what a function raised is raised again."""
        try:
            yield
        except duckdb.Error as error:
            raise self.registry.told(error) from None

    def report(self) -> dict[str, dict[str, object]]:
        """The totals of each function so far."""
        found: dict[str, dict[str, object]] = {}
        for group in self.groups.values():
            found |= {name: facts for name, facts in group.session.report.items() if name == group.function.name}
        return found

    def explain(self) -> str:
        """How the query is run: what is asked over which inputs, in which order, and what runs as it is and why."""
        lines: list[str] = []
        for number, sites in enumerate(self.rounds, 1):
            for group, query in self._queries(sites):
                doubt = f" (one that comes up later is asked then: {group.doubt})" if group.doubt else ""
                lines += [f"{number}. {group.text} is asked for each row of{doubt}", f"   {self._readable(query)}"]
        lines += [f"as it is: {group.text}: {group.reason}" for group in self.groups.values() if group.reason]
        lines += [f"as it is: {self.note}"] if self.note else []
        last = self._readable(self.written(self._node)) if self.groups else self.sql
        return "\n".join([*lines, "then" if self.rounds else "runs", f"   {last}"])

    def _readable(self, query: str) -> str:
        """SQL with `answer_1` and so on for the functions that look answers up."""
        return re.sub(rf"\b{OWN}{self._number}_(\d+)\b", lambda found: f"answer_{int(found[1]) + 1}", query)

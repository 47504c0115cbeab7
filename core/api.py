"""gdo from Python: load, check, plan and run a pipeline. One of the two places that know all wings."""

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from gdo.cache import HOME, NAME
from gdo.collector import rare_collections
from gdo.desk import Desk
from gdo.engine import Options, check_runner, make_runner, planned
from gdo.errors import BudgetSpent, Faults, Finding, GdoError, RunFailed, Stopped, nearest
from gdo.ledger import Ledger
from gdo.optimize import optimize
from gdo.plan import Plan, make_plan
from gdo.rediscache import open_store
from gdo.runfolder import RunFolder, leftovers
from gdo.sink import Sink, parts_of
from gdo.spec import Given, load_pipeline, with_sink
from gdo.spec import Pipeline as Spec
from gdo.stored import read_sink
from gdo.version import __version__

__all__ = ["Options", "Pipeline", "Run", "Watch", "load", "register_wings", "run"]


def register_wings() -> None:
    """Import every operator and backend, so that each is known by its word."""
    for package in ("gdo.operators", "gdo.models"):
        folder = importlib.import_module(package)
        for module in pkgutil.iter_modules(folder.__path__):
            importlib.import_module(f"{package}.{module.name}")


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """A finished run: its folder, its totals, and where its rows are."""

    folder: Path
    plan: Plan
    ledger: Ledger

    def __repr__(self) -> str:
        sinks = ", ".join(sink.sink.text() for sink in self.plan.sinks)
        return f"<gdo run {self.folder.name} of '{self.plan.name}' -> {sinks}>"

    def table(self, sink: int | str = 0) -> pa.Table:
        """The rows of a sink, the first one by default: by its place, its path or table, or the step that it writes.

        Raises:
            Faults: there is no such sink.
        """
        sinks = self.plan.sinks
        found = [s for i, s in enumerate(sinks) if sink in (i, s.input, s.sink.path, s.sink.table)]
        if not found:
            known = [word for s in sinks for word in (s.input, s.sink.path or s.sink.table or "")]
            raise Faults.one("table", f"no sink '{sink}'", nearest(str(sink), known))
        chosen = found[0]
        return read_sink(chosen.sink, self.plan.folder, self.plan.schema(chosen.input))

    def errors(self) -> pa.Table:
        """The rows that were not answered: row_key, step, reason, detail, prompt, raw_reply, attempts."""
        return pyarrow.parquet.read_table(self.folder / "errors.parquet")

    def calls(self) -> pa.Table:
        """The requests: step, model, tokens, latency_s, cached, attempts, error."""
        return pyarrow.parquet.read_table(self.folder / "calls.parquet")

    def parts(self) -> list[Path]:
        """The files beside its sinks that a run writes before they are whole."""
        return [part for sink in self.plan.sinks for part in parts_of(sink.sink, self.plan.folder, self.folder.name)]

    def leftovers(self) -> list[Path]:
        """What a run that is left in the middle leaves behind beside its sinks and in its folder."""
        return [*self.parts(), *leftovers(self.folder)]

    @property
    def report(self) -> dict[str, dict[str, object]]:
        """The totals by step."""
        return self.ledger.facts()


@dataclass(frozen=True)
class Pipeline:
    """A pipeline file that has been read: `check`, `plan` and `run` it.

    Raises (each of them):
        Faults: what is wrong, all at once.
    """

    spec: Spec = field(repr=False)

    @property
    def name(self) -> str:
        """The pipeline's name."""
        return self.spec.name

    def check(self, runner: str = "duckdb") -> None:
        """Read the sources' columns and follow them through every step; also what a runner cannot do."""
        options = Options(runner=runner)
        check_runner(self.spec, planned(self.spec, options), options)

    def plan(self, *, rewritten: bool = True, limit: int | None = None) -> Plan:
        """The plan: rewritten as it will run, or as it was written; of the first `limit` rows of each source."""
        plan = make_plan(self.spec)
        plan = optimize(plan) if rewritten else plan
        return replace(plan, sources=tuple(replace(source, limit=limit) for source in plan.sources))

    def run(self, options: Options | None = None, watch: "Watch | None" = None) -> Run:
        """Run it; without a sink the rows go to `result.parquet` in the run's folder.

        Raises:
            Faults, ModelUnready: it cannot start.
            RunFailed: it did not end; what was paid for is in the cache.
        """
        options = options or Options()
        if options.limit is not None and options.limit < 1:
            raise Faults.one("limit", f"{options.limit} is not a number of rows of 1 or more")
        spec = with_sink(self.spec, options.out) if options.out is not None else self.spec
        plan = planned(spec, options)
        check_runner(spec, plan, options)
        home = spec.folder / HOME
        folder = RunFolder(home / "runs", spec.document.hide)
        if not plan.sinks:
            last = spec.steps[-1].id  # as written: a rewrite may end in another step
            result = Sink(path=str((folder.path / "result.parquet").absolute()))
            plan = planned(replace(spec, sinks=((last, result),)), options)
        plan = replace(plan, sources=tuple(replace(s, limit=options.limit) for s in plan.sources))
        ledger = Ledger(folder, max_calls=options.max_calls, max_tokens=options.max_tokens)
        run = Run(folder.path, plan, ledger)
        folder.leaves(run.parts())
        with _recorded(folder, run):
            place = (spec.cache or str((home / NAME).absolute())) if options.cache else None
            _carry_out(run, place, options, watch or Watch())
        return run


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on: `tell` gets messages, `begin` the run and a function that stops it."""

    tell: Callable[[str], None] = lambda _: None
    begin: Callable[[Run, Callable[[], None]], None] = lambda _run, _stop: None


def _carry_out(run: Run, cache: str | None, options: Options, watch: Watch) -> None:
    store = open_store(cache)  # the desk closes it, in its own thread
    with rare_collections(), Desk(run.plan.models, run.plan.folder, run.ledger, store, watch.tell) as desk:
        runner = make_runner(run.plan, run.folder, desk, cache, options)
        watch.begin(run, runner.stop)
        try:
            runner.run(run.plan)
        except (KeyboardInterrupt, Stopped):
            desk.stop()
            raise Stopped(f"stopped; {_goes_on(cache)}") from None
        except BudgetSpent as spent:
            desk.stop()
            raise BudgetSpent(f"{spent}; {_goes_on(cache)}") from None
        except BaseException:
            desk.stop()
            raise


def _goes_on(cache: str | None) -> str:
    if cache is None:
        return "without a cache no reply is kept: the next run begins anew"
    return "replies so far are kept, and the same command goes on from there"


@contextmanager
def _recorded(folder: RunFolder, run: Run) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        outcome = (
            "stopped" if isinstance(error, Stopped) else "budget spent" if isinstance(error, BudgetSpent) else "failed"
        )
        message = str(error) if isinstance(error, GdoError) else type(error).__name__
        with suppress(RunFailed):  # what went wrong first is what is told
            folder.close(_record(run, outcome, message))
        raise
    folder.close(_record(run, "done"))


def _record(run: Run, outcome: str, message: str = "") -> dict[str, object]:
    sinks = [sink.sink.text() for sink in run.plan.sinks]
    return {"pipeline": run.plan.name, "gdo": __version__, "outcome": outcome, "message": message, "sinks": sinks,
            "plan": run.plan.text().splitlines(), "steps": run.ledger.facts()}  # fmt: skip


def load(path: str | Path, variables: Mapping[str, object] | None = None, source: Given | None = None) -> Pipeline:
    """Read a pipeline file; `variables` stand for `${var:NAME}`, `source` (Arrow) in the place of the file's own.

    A file of several sources takes them by name: `source={"products": table}`.

    Raises:
        Faults: everything that is wrong in it.
    """
    register_wings()
    for stream in source.values() if isinstance(source, Mapping) else () if source is None else (source,):
        if not hasattr(stream, "__arrow_c_stream__"):
            hint = "give an Arrow, Polars or pandas table, or a DuckDB relation"
            raise Faults.one("source", f"a {type(stream).__name__} is no Arrow stream", hint)
    spec = load_pipeline(Path(path), {name: str(value) for name, value in (variables or {}).items()}, source)
    if spec.faults:
        make_plan(spec)  # raises, with what is wrong with columns and sources too
    return Pipeline(spec)


def run(
    path: str | Path,
    *,
    runner: str = "duckdb",
    variables: Mapping[str, object] | None = None,
    source: Given | None = None,
    **options: object,
) -> Run:
    """Run a pipeline file: `gdo.run("pipeline.yaml").table()`.

    Options: `limit`, `cache`, `max_calls`, `max_tokens`, `out`.

    Raises:
        Faults, ModelUnready: it cannot start.
        RunFailed: it did not end.
    """
    known = {field.name for field in fields(Options)}
    unknown = [Finding("gdo.run", f"unknown option '{name}'", nearest(name, known)) for name in options.keys() - known]
    if unknown:
        raise Faults(unknown)
    return load(path, variables, source).run(Options(runner=runner, **options))  # type: ignore[arg-type]

"""The runners by their word: what each refuses, how it sees a plan, and the one that carries it out."""

import importlib
import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from gdo.desk import Desk
from gdo.errors import Faults, nearest
from gdo.optimize import optimize
from gdo.plan import Plan, make_plan
from gdo.runners.base import Runner
from gdo.spec import Pipeline as Spec
from gdo.spec import in_order

RUNNERS = ("duckdb", "beam")


@dataclass(frozen=True, slots=True)
class Options:
    """How a run is done: what the command line says, never the file."""

    runner: str = "duckdb"
    limit: int | None = None
    cache: bool = True
    max_calls: int | None = None
    max_tokens: int | None = None
    out: str | Path | None = None
    batch_rows: int | None = None
    runner_options: tuple[str, ...] = ()
    """Beam's own, such as `--runner=FlinkRunner`."""


def planned(spec: Spec, options: Options) -> Plan:
    """The plan as it will run.

    Raises:
        Faults: what is wrong in the file, or with the runner.
    """
    _here(options.runner)
    if options.runner != "beam":
        return optimize(make_plan(spec))
    from gdo.runners.beam_source import sampled

    with sampled(spec, options.runner_options) as near:
        plan = optimize(make_plan(near))
    return replace(plan, sources=tuple(replace(source, source=spec.sources[source.id]) for source in plan.sources))


def check_runner(spec: Spec, plan: Plan, options: Options) -> None:
    """Refuse what a runner cannot do."""
    if options.runner == "duckdb" and options.runner_options:
        raise Faults.one("--", f"the duckdb runner takes no options: {' '.join(options.runner_options)}")
    if options.runner == "duckdb":
        far = [sink.path for _, sink in spec.sinks if "://" in (sink.path or "")]
        if far:
            what = f"'{far[0]}' lies on another filesystem, and the duckdb runner writes files of this machine"
            raise Faults.one(spec.document.where(("sink",)), what, "write a file here, or take --runner beam")
    if options.runner == "beam":
        from gdo.runners.beam_check import faults

        found = list(faults(spec, plan, options.runner_options))
        if found:
            raise Faults(in_order(found))


def _here(runner: str) -> None:
    """Refuse a runner that is not here."""
    if runner not in RUNNERS:
        raise Faults.one("--runner", f"no runner '{runner}'", nearest(runner, RUNNERS))
    if runner == "beam":
        need_beam("--runner beam")
        with _unheard():
            importlib.import_module("apache_beam")


def need_beam(where: str) -> None:
    """Say how to get Beam where it is not installed."""
    if importlib.util.find_spec("apache_beam") is None:
        raise Faults.one(where, "Apache Beam is not installed", 'pip install "gdo[beam]"')


@contextmanager
def _unheard() -> Iterator[None]:
    """Beam warns of clients that gdo does not use when it is imported."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def make_runner(plan: Plan, folder: Path, desk: Desk, cache: str | None, options: Options) -> Runner:
    """The runner that carries a plan out; `folder` is that of the run."""
    if options.runner == "duckdb":
        from gdo.runners.duckdb import DuckDBRunner

        return DuckDBRunner(desk, folder / "spill.duckdb", folder.name, options.batch_rows)
    from gdo.runners.beam import BeamRunner, desk_spec

    spec = desk_spec(plan, folder.name, cache, options.max_calls, options.max_tokens)
    return BeamRunner(desk, spec, folder, options.runner_options, options.batch_rows)

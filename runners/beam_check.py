"""What a plan asks that a distributed engine cannot do: told before anything runs, each with its place and what to do."""

from collections.abc import Iterator, Sequence

from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import GoogleCloudOptions

from gdo.document import Loc
from gdo.encode import type_fault
from gdo.errors import Faults, Finding
from gdo.op import Scope
from gdo.plan import Node, Plan, SinkNode
from gdo.runners.beam_options import check_endpoint, read_options
from gdo.runners.beam_parcel import Unpackable, pack
from gdo.runners.beam_sink import place_of, shards_of
from gdo.sink import stem, suffix
from gdo.spec import Pipeline


def faults(spec: Pipeline, plan: Plan, options: Sequence[str] = ()) -> Iterator[Finding]:
    """Every fault of a pipeline that Beam is to run, and of Beam's own options."""
    try:
        told = read_options(options)
        check_endpoint(told)
        FileSystems.set_options(told)
        yield from _out_of_reach("--", told.view_as(GoogleCloudOptions).temp_location or "")
    except Faults as error:
        yield from error.findings
    yield from step_faults(spec, plan)
    for place, sink in enumerate(plan.sinks):
        loc: Loc = ("sink",) if ("sink",) in spec.document.marks else ("sinks", place)
        yield from _sink(spec.document.where(loc), sink, plan)


def step_faults(spec: Pipeline, plan: Plan) -> Iterator[Finding]:
    """What no step may ask."""
    for node in plan.nodes:
        where = _where(spec, node)
        if node.op.scope is Scope.GROUP and not node.op.group_by:
            hint = (
                "on Beam a query must be about one row alone, or a step must group `by` columns; write a sink before this "
                "step, and run the rest in a file of its own with --runner duckdb"
            )
            yield Finding(where, f"step '{node.id}' needs all rows at once", hint)
        try:
            pack(node, plan.folder)
        except Unpackable as error:
            hint = "what it holds must be made inside the function, not kept in the object"
            yield Finding(where, f"step '{node.id}' cannot be sent to a worker: {error}", hint)


def _where(spec: Pipeline, node: Node) -> str:
    steps = [step for step in spec.steps if node.id == step.id or node.id.startswith(f"{step.id}.")]
    return spec.where(steps[0]) if steps else spec.document.where(())


def _sink(where: str, sink: SinkNode, plan: Plan) -> Iterator[Finding]:
    if sink.sink.database is not None:
        hint = "write parquet files here, and load them: CREATE TABLE t AS SELECT * FROM 'name-*.parquet'"
        yield Finding(where, f"many workers cannot write one DuckDB database ('{sink.sink.text()}')", hint)
        return
    place = place_of(sink, plan.folder)
    fault = type_fault(suffix(place), plan.schema(sink.input))
    if fault:
        yield Finding(where, f"'{sink.sink.text()}': {fault}")
    lost = list(_out_of_reach(where, place))
    if lost:
        yield from lost
        return
    there = shards_of(place) or whole(place)
    if there:
        before, after = stem(sink.sink.path or "")
        files = "1 file" if len(there) == 1 else f"{len(there)} files"
        hint = f"a distributed run replaces nothing: remove {before}-*-of-*{after}, or write elsewhere with --out"
        if there == whole(place):
            hint = "a distributed run replaces nothing: remove it, or write elsewhere with --out"
        yield Finding(where, f"the sink '{sink.sink.text()}' exists already ({files})", hint)


def _out_of_reach(where: str, place: str) -> Iterator[Finding]:
    """Why files of another filesystem cannot be written from here: told now, since they are moved when all is paid for."""
    try:
        if "://" in place:
            FileSystems.exists(place)
    except Exception as error:  # noqa: BLE001 (each filesystem raises its own)
        scheme = place.partition("://")[0]
        extra = {"gs": "gcp", "s3": "aws", "hdfs": "hadoop"}.get(scheme)
        hint = (
            f'pip install "apache-beam[{extra}]"' if extra else "Beam has a package for each filesystem that it knows"
        )
        (inner, *_) = (getattr(error, "exception_details", None) or {place: error}).values()
        yield Finding(where, f"'{place}' cannot be reached: {str(inner).partition(', ')[0]}", hint)


def whole(place: str) -> list[str]:
    """The sink in one file, as another runner leaves it."""
    try:
        return [place] if FileSystems.exists(place) else []
    except Exception:  # noqa: BLE001 (a filesystem that cannot be reached says so when it is written to)
        return []

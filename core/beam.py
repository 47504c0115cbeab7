"""gdo inside a Beam pipeline of one's own: a pipeline file, or a single step, as a PTransform over rows with a schema."""

import pickle
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from gdo.engine import need_beam

try:
    import apache_beam as beam
    from apache_beam.pvalue import PCollection
except ModuleNotFoundError:
    need_beam("gdo.beam")
    raise

from gdo import api
from gdo.cache import HOME, NAME
from gdo.document import parse_document
from gdo.errors import Faults
from gdo.optimize import optimize
from gdo.plan import make_plan
from gdo.runfolder import ERRORS
from gdo.runners.beam import desk_spec
from gdo.runners.beam_check import step_faults
from gdo.runners.beam_graph import Graph
from gdo.runners.beam_options import check_threads
from gdo.runners.beam_rows import ToBatches, ToRows, arrow_schema, row_type
from gdo.runners.feed import MAX_ROWS
from gdo.sink import Sink
from gdo.spec import Pipeline as Spec
from gdo.spec import in_order, read_pipeline
from gdo.tables import ArrowStream

_PROGRAM = secrets.token_hex(4)


class _Transform(beam.PTransform, ABC):
    """What both have in common; `_spec` reads the steps for the columns that come in."""

    def __init__(self, *, cache: bool = True, batch_rows: int = MAX_ROWS, max_calls: int | None = None) -> None:
        super().__init__()
        self._cache = cache
        self._batch_rows = batch_rows
        self._max_calls = max_calls

    @abstractmethod
    def _spec(self, source: ArrowStream) -> Spec:
        """The steps, read for what comes in."""

    def expand(self, rows: PCollection) -> PCollection:
        """The rows that come out."""
        return self._expanded(rows)["rows"]

    def with_errors(self) -> "WithErrors":
        """The same, giving a dictionary: `rows`, and `errors` with what could not be answered."""
        return WithErrors(self)

    def _expanded(self, rows: PCollection) -> dict[str, PCollection]:
        """The PCollections of rows and of errors, both with a schema.

        Raises:
            Faults: the steps do not fit the rows, or Beam cannot do them.
        """
        check_threads(rows.pipeline.options)
        schema = arrow_schema(rows.element_type)
        spec = self._spec(schema.empty_table())
        last = {name for name, _ in spec.sinks} or {spec.steps[-1].id}
        if len(last) > 1:
            raise Faults.one("gdo.beam", f"the pipeline has {len(last)} sinks", "a transform gives one PCollection")
        spec = replace(spec, sinks=((last.pop(), Sink(path="rows.parquet")),))
        plan = optimize(make_plan(spec))
        found = list(step_faults(spec, plan))
        if found:
            raise Faults(in_order(found))
        place = (spec.cache or str((spec.folder / HOME / NAME).absolute())) if self._cache else None
        desk = replace(desk_spec(plan, "", place, self._max_calls, None), launched=False)
        # Transforms of one program that ask the same models ask them by one server a machine.
        desk = replace(desk, run_id=f"transform-{_PROGRAM}-{blake2b(pickle.dumps(desk), digest_size=8).hexdigest()}")
        batches = rows | "batches" >> beam.ParDo(ToBatches(schema, self._batch_rows)).with_output_types(pa.RecordBatch)
        (source,) = plan.sources
        graph = Graph(plan, desk, {source.id: batches})
        name = plan.sinks[0].input
        out = graph.rows(name) | "rows" >> beam.ParDo(ToRows()).with_output_types(row_type(plan.schema(name)))
        errors = tuple(graph.errors) | "all errors" >> beam.Flatten(pipeline=rows.pipeline)
        told = errors | "errors" >> beam.ParDo(ToRows()).with_output_types(row_type(ERRORS))
        return {"rows": out, "errors": told}


class WithErrors(beam.PTransform):
    """A transform of gdo's that gives `rows` and `errors`."""

    def __init__(self, inner: _Transform) -> None:
        super().__init__()
        self._inner = inner

    def expand(self, rows: PCollection) -> Any:
        """Both PCollections, by name; Beam takes no type for such a dictionary."""
        return self._inner._expanded(rows)  # noqa: SLF001 (the other half of it)


class Pipeline(_Transform):
    """The steps of a pipeline file over rows with a schema: `rows | gdo.beam.Pipeline("pipeline.yaml")`.

    Its sources and sinks are left aside: what came to the only source comes from the PCollection, and what went to the
    only sink (or the last step) goes on. Costs what the steps cost; replies are kept as `gdo run` keeps them.

    Raises (when it is applied):
        Faults: what is wrong in the file, or the rows lack a column that it reads.
    """

    def __init__(self, pipeline: str | Path, variables: Mapping[str, object] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._path = Path(pipeline)
        self._variables = dict(variables or {})

    def _spec(self, source: ArrowStream) -> Spec:
        return api.load(self._path, self._variables, source).spec


class Step(_Transform):
    """One step over rows with a schema: `rows | gdo.beam.Step("map", prompt="...", output={...}, model="big", models={...})`.

    The other arguments are the step's own keys. Paths in them are relative to the working folder.

    Raises (when it is applied):
        Faults: a key is wrong, or the rows lack a column that it reads.
    """

    _OWN = ("cache", "batch_rows", "max_calls")

    def __init__(self, op: str, *, models: Mapping[str, Mapping[str, object]] | None = None, **keys: Any) -> None:
        super().__init__(**{key: keys.pop(key) for key in self._OWN if key in keys})
        self._file: dict[str, object] = {"models": dict(models or {}), "steps": [{"op": op, **keys}]}

    def _spec(self, source: ArrowStream) -> Spec:
        api.register_wings()
        text = yaml.safe_dump(self._file, sort_keys=False, allow_unicode=True)
        spec = read_pipeline(parse_document(text, "gdo.beam.Step"), Path.cwd(), source)
        if spec.faults:
            make_plan(spec)  # raises, with what is wrong with columns too
        return spec

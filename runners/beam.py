"""The distributed runner: a plan as a pipeline of Apache Beam, on whatever engine Beam runs on.

The launcher lays out the sources, hands the pipeline over, and waits; then it puts the sinks in place, and writes the
run's folder from what the workers left.
"""

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import DirectOptions, GoogleCloudOptions, StandardOptions
from apache_beam.runners.runner import PipelineResult, PipelineState

from gdo.backend import DEFAULT_MODEL, resolve
from gdo.desk import Desk
from gdo.errors import Faults, Finding, RunFailed, Stopped
from gdo.ledger import Call, Failure, StepCount
from gdo.plan import Plan
from gdo.runfolder import CALLS, ERRORS, remove
from gdo.runners import beam_machine
from gdo.runners.beam_desk import DeskSpec
from gdo.runners.beam_fault import fault_of
from gdo.runners.beam_graph import Graph
from gdo.runners.beam_harness import brisk
from gdo.runners.beam_local import direct_runner, quiet, watched
from gdo.runners.beam_metrics import counts, followed
from gdo.runners.beam_notes import take
from gdo.runners.beam_options import LOCAL, read_options
from gdo.runners.beam_shared import offer, withdraw
from gdo.runners.beam_sink import (
    ByPart,
    ByShard,
    Commit,
    Entry,
    WriteLog,
    WriteManifest,
    WriteShard,
    WriteState,
    beside,
    listed,
    place_of,
)  # fmt: skip
from gdo.runners.beam_source import Layout, Piece, Reading
from gdo.runners.beam_worker import Read
from gdo.runners.feed import Feed

ENDS_S = 30.0
"""How long a run that failed waits for what the server of this machine has in flight."""


class BeamRunner:
    """Runs a plan on Beam; `folder` is that of the run, `options` are Beam's own (`--runner=FlinkRunner` ...)."""

    def __init__(
        self, desk: Desk, spec: DeskSpec, folder: Path, options: Sequence[str] = (), batch_rows: int | None = None
    ) -> None:
        self.desk = desk
        self.folder = folder
        self.options = read_options(options)
        self._local = self.options.view_as(StandardOptions).runner in LOCAL
        self._notes = folder / "notes.part"
        self.spec = replace(spec, notes=str(self._notes.absolute())) if self._local else spec
        self._batch_rows = batch_rows
        self._result: PipelineResult | None = None
        self._handing_over = False
        self._temp = folder / "pipeline.part"

    def stop(self) -> None:
        """Send nothing more, and let the engine end the job."""
        self.desk.stop()
        beam_machine.stop(self.spec.run_id)
        result = self._result
        if result is not None:
            threading.Thread(target=result.cancel, daemon=True).start()
        elif self._handing_over and threading.current_thread() is threading.main_thread():
            raise Stopped("stopped")  # no engine has taken the job yet, and it may take minutes to say so

    def run(self, plan: Plan) -> None:
        """Write every sink whole, or none.

        Raises:
            RunFailed: a step, a worker or the engine failed; nothing of a sink is there.
        """
        self.plan = plan
        self.stage = self._stage()
        beam_machine.sweep()
        offer(self.spec.run_id, self.desk)
        self._notes.mkdir()
        try:
            result = self._carried_out(self._layouts())
            entries = self._manifest()
            self._take_counts(result)
            self._check_edges()
            self._take_logs(entries)
            self._take_learned(entries)
            sinks = [(sink, plan.schema(sink.input)) for sink in plan.sinks]
            Commit(self.spec.run_id, plan.folder).put(sinks, entries)
        except BaseException:
            with suppress(RunFailed):  # what went wrong first is what is told
                self._take_rest()
            raise
        finally:
            withdraw(self.spec.run_id)
            beam_machine.dismiss(self.spec.run_id)
            self._clean()

    def _stage(self) -> str:
        """A folder that launcher and workers see, for what is written before the end."""
        temp = self.options.view_as(GoogleCloudOptions).temp_location
        name = f"gdo-{self.spec.run_id}"
        if temp:
            return str(FileSystems.join(temp, name))
        far = [place for sink in self.plan.sinks if "://" in (place := place_of(sink, self.plan.folder))]
        if far:
            return str(FileSystems.join(beside(far[0], self.spec.run_id), name))
        return str((self.folder / "beam.part").absolute())

    def _layouts(self) -> dict[str, tuple[Reading, list[Piece]]]:
        feed = Feed(self.folder / "spill.duckdb", self.plan.folder, self._batch_rows)
        try:
            found = {}
            for source in self.plan.sources:
                if self.plan.readers(source.id):
                    found[source.id] = Layout(source, feed, self.plan.folder, self.stage).found(self._batch_rows)
                    rows = [piece.rows for piece in found[source.id][1]]
                    known = [row for row in rows if row is not None]
                    self.desk.ledger.step(source.id).total = sum(known) if len(known) == len(rows) else None
            return found
        finally:
            feed.close()

    # The pipeline

    def _carried_out(self, layouts: Mapping[str, tuple[Reading, list[Piece]]]) -> PipelineResult:
        # One worker needs no rows dealt out: they go through it as they are read.
        self._alone = self._local and self.options.view_as(DirectOptions).direct_num_workers == 1
        name = self.options.view_as(StandardOptions).runner or "DirectRunner"
        pipeline = self._pipeline(name)
        self._build(pipeline, layouts)
        with quiet(), brisk(), watched(self.stop) as losses, followed(self.spec.run_id, self.desk.ledger):
            try:
                self._handing_over = not self._local  # the local runner does the work itself
                self._result = pipeline.run()
                self._handing_over = False
                self._result.wait_until_finish()
            except Stopped:
                raise
            except Exception as error:
                if losses.told:
                    raise RunFailed(f"{losses} (replies so far are kept: run again)") from error
                raise fault_of(error, name) from error
        if self._result.state != PipelineState.DONE:
            raise RunFailed(f"{name}: the job ended as {self._result.state} (the engine's own log says why)")
        return self._result

    def _pipeline(self, name: str) -> beam.Pipeline:
        try:
            pipeline = beam.Pipeline(runner=direct_runner(self.options) if self._local else None, options=self.options)
        except ValueError as error:  # an option that the runner needs is not there
            _, *missing = str(error).splitlines()
            raise Faults(Finding("--", f"{name}: {line}") for line in missing or [str(error)]) from None
        # Beam's own folder would stay in the one for temporary files if this process was killed.
        remove(Path(pipeline.local_tempdir))
        self._temp.mkdir()
        pipeline.local_tempdir = str(self._temp)
        return pipeline

    def _build(self, pipeline: beam.Pipeline, layouts: Mapping[str, tuple[Reading, list[Piece]]]) -> None:
        given = {}
        for name, (reading, pieces) in layouts.items():
            rows = (
                pipeline
                | f"{name}/pieces" >> beam.Create(pieces, reshuffle=not self._alone)
                | f"{name}/read" >> beam.ParDo(Read(name, reading)).with_output_types(pa.RecordBatch)
            )
            given[name] = rows if self._alone else rows | f"{name}/spread" >> beam.Reshuffle()
        graph = Graph(self.plan, self.spec, given)
        entries = []
        for place, sink in enumerate(self.plan.sinks):
            folder = beside(place_of(sink, self.plan.folder), self.spec.run_id)
            write = WriteShard(sink, self.plan.schema(sink.input), folder, place_of(sink, self.plan.folder))
            entries.append(
                graph.rows(sink.input)
                | f"sink {place}/cut" >> beam.ParDo(ByShard()).with_output_types(tuple[int, pa.RecordBatch])
                | f"sink {place}/gather" >> beam.GroupByKey()
                | f"sink {place}/write" >> beam.ParDo(write)
            )
        for kind, logs, schema in (("errors", graph.errors, ERRORS), ("calls", graph.calls, CALLS)):
            if logs and not self._local:
                entries.append(
                    tuple(logs)
                    | f"{kind}/all" >> beam.Flatten()
                    | f"{kind}/key" >> beam.ParDo(ByPart()).with_output_types(tuple[int, pa.RecordBatch])
                    | f"{kind}/gather" >> beam.GroupByKey()
                    | f"{kind}/write" >> beam.ParDo(WriteLog(kind, self.stage, schema))
                )
        entries += [
            state | f"{step}/keep" >> beam.ParDo(WriteState(step, self.stage)) for step, state in graph.learned.items()
        ]
        # Beam's local runner takes a turn of its own for a Flatten.
        written = tuple(entries) | "written" >> beam.Flatten() if len(entries) > 1 else entries[0]
        written | "all written" >> beam.GroupByKey() | "manifest" >> beam.ParDo(WriteManifest(self.stage))

    # What the workers left

    def _manifest(self) -> list[Entry]:
        """What was written; any manifest is whole, and where none is there no row was."""
        for path in listed(self.stage, "manifest-*.json"):
            with FileSystems.open(path) as file:
                return [tuple(entry) for entry in json.loads(file.read())]
        return []

    def _take_counts(self, result: PipelineResult) -> None:
        found = counts(result)
        ledger = self.desk.ledger
        for step in [*(source.id for source in self.plan.sources), *(node.id for node in self.plan.nodes)]:
            known = ledger.steps.pop(step, StepCount())  # put back in the order of the plan
            ledger.steps[step] = found.get(step, StepCount())
            ledger.steps[step].total = known.total

    def _take_logs(self, entries: Sequence[Entry]) -> None:
        """The errors and calls of all workers into the run's folder, errors in the order of their rows."""
        if self._local:
            take(self._notes, self.desk.ledger)
            return
        records = self.desk.ledger.records
        for table in _tables(entries, "calls"):
            records.calls([Call(*row) for row in zip(*(column.to_pylist() for column in table.columns), strict=True)])
        tables = list(_tables(entries, "errors"))
        if not tables:
            return
        order = {node.id: place for place, node in enumerate(self.plan.nodes)}
        rows = pa.concat_tables(tables).sort_by("row_key").to_pylist()
        for row in sorted(rows, key=lambda row: order.get(row["step"], 0)):
            failure = Failure(row["reason"], row["detail"], row["prompt"], row["raw_reply"], row["attempts"])
            count, detail = self.desk.ledger.reasons.get((row["step"], row["reason"]), (0, row["detail"]))
            self.desk.ledger.reasons[row["step"], row["reason"]] = (count + 1, detail)
            records.errors(row["step"], [(row["row_key"], failure)])

    def _take_rest(self) -> None:
        """Of a run that failed: what was noted until then, and what comes of it that is in flight."""
        self.desk.stop()
        withdraw(self.spec.run_id)
        beam_machine.dismiss(self.spec.run_id, ENDS_S)
        for step, sums in take(self._notes, self.desk.ledger).steps.items():
            count = self.desk.ledger.step(step)
            for key in ("calls", "cached", "prompt_tokens", "completion_tokens", "errors"):
                setattr(count, key, getattr(sums, key))

    def _take_learned(self, entries: Sequence[Entry]) -> None:
        """What steps learned, as they tell it."""
        for entry in entries:
            if entry[0] == "learned":
                node = next(node for node in self.plan.nodes if node.id == entry[1])
                with FileSystems.open(entry[3]) as file, pa.ipc.open_file(file) as reader:
                    self.desk.learned(node.id, node.op, reader.read_all())

    def _check_edges(self) -> None:
        if not self._local:
            return  # an engine that tries a bundle again may count its rows twice
        steps = self.desk.ledger.steps
        for node in self.plan.nodes:
            gave, got = steps.get(node.input), steps.get(node.id)
            if gave and got and gave.rows_out != got.rows_in:
                what = f"step '{node.id}' got {got.rows_in} rows of the {gave.rows_out} that '{node.input}' gave"
                raise RunFailed(f"{what} (a worker was lost on the way; run again: replies are kept)")

    def _clean(self) -> None:
        remove(self._temp)
        remove(self._notes)
        for folder in {self.stage, *(beside(place_of(s, self.plan.folder), self.spec.run_id) for s in self.plan.sinks)}:
            if "://" not in folder:
                remove(Path(folder))
            else:
                with suppress(Exception):  # it is not there, or never was
                    FileSystems.delete([f"{folder}/"])


def desk_spec(plan: Plan, run_id: str, cache: str | None, max_calls: int | None, max_tokens: int | None) -> DeskSpec:
    """What the workers of a run must know to ask; every model that a step names is in it."""
    asked = {word or DEFAULT_MODEL for node in plan.nodes for word in node.op.models_asked().values()}
    models = {**plan.models, **{name: resolve(name, dict(plan.models)) for name in asked}}
    return DeskSpec(run_id, models, plan.folder.resolve(), cache, max_calls, max_tokens)


def _tables(entries: Sequence[Entry], kind: str) -> Iterator[pa.Table]:
    for entry in entries:
        if entry[0] == kind:
            with FileSystems.open(entry[3]) as file:
                yield pq.read_table(file)

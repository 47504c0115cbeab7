"""Sinks on Beam: each some files, in the order of the rows; nobody sees one before all of them are whole.

Workers write beside the sink under names of their own; what a given-up attempt wrote is in no manifest, and goes with
the folder. The launcher renames at the end.
"""

import contextlib
import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from gdo.ask import ROW
from gdo.encode import Encoder
from gdo.errors import RunFailed
from gdo.plan import SinkNode
from gdo.runners.base import conform, numbered
from gdo.runners.beam_fault import told
from gdo.sink import shard, shards, stem, suffix

SHARD_ROWS = 100_000
"""Rows of one output file, at most."""
Entry = tuple[str, str, int, str, int]
"""What was written: its kind (`sink`, `errors`, `calls`, `learned`), which of them, its place in order, its file, its rows.

What writes gives it with the key 0: all of them meet in one place.
"""


def place_of(sink: SinkNode, folder: Path) -> str:
    """Where a sink is to be: a whole path of this machine, or a URL."""
    path = sink.sink.path or ""
    place = folder / path
    # Beam makes paths whole by itself, here and there; all of them must be alike.
    return path if "://" in path else str(place.parent.resolve() / place.name)


def shards_of(place: str) -> list[str]:
    """The files of a sink that are there."""
    folder, name = FileSystems.split(place)
    before, after = stem(name)
    return shards(place, listed(folder, f"{before}-*-of-*{after}"))


def listed(folder: str, pattern: str) -> list[str]:
    """The files of a folder whose names match; none where it is not there."""
    if "://" not in folder:
        return sorted(map(str, Path(folder).glob(pattern)))
    try:
        (match,) = FileSystems.match([FileSystems.join(folder, pattern)])
    except Exception:  # noqa: BLE001 (a folder that is not there; each filesystem says so in its own way)
        return []
    return sorted(str(meta.path) for meta in match.metadata_list)


def beside(place: str, run_id: str) -> str:
    """The folder in which the files of a sink wait."""
    parent, name = FileSystems.split(place)
    return FileSystems.join(parent, f".{name}.{run_id}.part")


class ByShard(beam.DoFn):
    """Rows by the file that they go to: one for so many row numbers."""

    def process(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        """A batch whose numbers ascend is cut; one whose do not is sorted first."""
        numbers = batch.column(ROW).to_numpy()
        if (numbers[1:] < numbers[:-1]).any():
            batch = batch.take(pc.sort_indices(batch.column(ROW)))
            numbers = batch.column(ROW).to_numpy()
        start = 0
        while start < len(numbers):
            place = int(numbers[start]) // SHARD_ROWS
            end = int(numbers.searchsorted((place + 1) * SHARD_ROWS))
            yield place, batch.slice(start, end - start)
            start = end


class ByPart(beam.DoFn):
    """Batches of a log by some number: several workers write it."""

    def process(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        """The batch, as it came."""
        yield hash((batch.num_rows, batch.nbytes)) % 8, batch


class WriteShard(beam.DoFn):
    """Writes the rows of one file in their order."""

    def __init__(self, sink: SinkNode, schema: pa.Schema, folder: str, place: str) -> None:
        self._sink = sink.sink.text()
        self._schema = schema
        self._folder = folder
        self._ending = stem(place)[1].lower()

    def process(self, element: tuple[int, Iterable[pa.RecordBatch]]) -> Iterator[tuple[int, Entry]]:
        """What was written."""
        place, batches = element
        path = FileSystems.join(self._folder, f"{place:012}-{secrets.token_hex(4)}{self._ending}")
        with told():
            rows = written(path, self._schema, self._in_order(list(batches)))
        yield 0, ("sink", self._sink, place, path, rows)

    def _in_order(self, batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        full = numbered(self._schema)
        batches = sorted((conform(batch, full) for batch in batches), key=lambda batch: batch.column(ROW)[0].as_py())
        ends = [batch.column(ROW)[-1].as_py() for batch in batches]
        starts = [batch.column(ROW)[0].as_py() for batch in batches]
        if any(end > start for end, start in zip(ends, starts[1:], strict=False)):
            table = pa.Table.from_batches(batches).sort_by(ROW)
            batches = table.to_batches(SHARD_ROWS)
        for batch in batches:
            yield conform(batch, self._schema)


def written(path: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write rows to a new file of any filesystem; how many there were.

    Raises:
        RunFailed: it cannot be written.
    """
    rows = 0
    try:
        compression = {".gz": "gzip", ".zst": "zstd"}.get(Path(path).suffix)
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            stream = pa.PythonFile(file, "w")
            if compression:
                stream = pa.CompressedOutputStream(stream, compression)
            encoder = Encoder(stream, suffix(path), schema)
            for batch in batches:
                rows += batch.num_rows
                encoder.write(batch)
            encoder.close()
    except OSError as error:
        raise RunFailed(f"{path}: cannot be written: {error}") from None
    return rows


class WriteLog(beam.DoFn):
    """Writes batches of errors or calls to a file of the run's folder."""

    def __init__(self, kind: str, folder: str, schema: pa.Schema) -> None:
        self._kind = kind
        self._folder = folder
        self._schema = schema

    def process(self, element: tuple[int, Iterable[pa.RecordBatch]]) -> Iterator[tuple[int, Entry]]:
        """What was written."""
        path = FileSystems.join(self._folder, f"{self._kind}-{element[0]}-{secrets.token_hex(4)}.parquet")
        with told():
            rows = written(path, self._schema, element[1])
        yield 0, (self._kind, "", element[0], path, rows)


class WriteState(beam.DoFn):
    """Writes what a step learned."""

    def __init__(self, step: str, folder: str) -> None:
        self._step = step
        self._folder = folder

    def process(self, state: pa.Table | None) -> Iterator[tuple[int, Entry]]:
        """What was written; nothing where there was nothing to learn from."""
        if state is None:
            return
        path = FileSystems.join(self._folder, f"learned-{secrets.token_hex(4)}.arrow")
        plain = CompressionTypes.UNCOMPRESSED
        with FileSystems.create(path, compression_type=plain) as file, pa.ipc.new_file(file, state.schema) as writer:
            writer.write_table(state)
        yield 0, ("learned", self._step, 0, path, state.num_rows)


class WriteManifest(beam.DoFn):
    """Writes down all that was written, once all of it is: what the launcher goes by."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, element: tuple[int, Iterable[Entry]]) -> None:
        """Nothing goes on from here."""
        path = FileSystems.join(self._folder, f"manifest-{secrets.token_hex(4)}.json")
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(json.dumps(sorted(element[1])).encode())


@dataclass(frozen=True)
class Commit:
    """Puts the files of all sinks in place, or of none."""

    run_id: str
    folder: Path

    def put(self, sinks: Sequence[tuple[SinkNode, pa.Schema]], entries: Sequence[Entry]) -> None:
        """Rename the files of every sink; a sink without a row gets one file without any.

        Raises:
            RunFailed: one cannot be put in place; those that were are taken away again.
        """
        moves: list[tuple[str, str]] = []
        for sink, schema in sinks:
            place = place_of(sink, self.folder)
            files = [
                entry[3] for entry in sorted(entries, key=lambda e: e[2]) if entry[:2] == ("sink", sink.sink.text())
            ]
            if not files:
                empty = FileSystems.join(beside(place, self.run_id), f"empty{stem(place)[1].lower()}")
                _folder(beside(place, self.run_id))
                written(empty, schema, [])
                files = [empty]
            moves += [(file, shard(place, i, len(files))) for i, file in enumerate(files)]
        done: list[str] = []
        try:
            for source, target in moves:
                FileSystems.rename([source], [target])
                done.append(target)
        except Exception as error:  # noqa: BLE001 (each filesystem raises its own)
            with contextlib.suppress(Exception):
                FileSystems.delete(done)
            raise RunFailed(f"{moves[len(done)][1]}: cannot be written: {error}") from None


def _folder(path: str) -> None:
    with contextlib.suppress(Exception):  # it is there
        FileSystems.mkdirs(path)

"""Sources on Beam: files of any filesystem that Beam knows, cut into pieces whose rows are numbered alike in every run."""

import glob
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems

from gdo.ask import ROW
from gdo.database import column_list, connect, literal, message
from gdo.distinct import counting
from gdo.errors import Faults, RunFailed, nearest
from gdo.plan import SourceNode
from gdo.runners.base import conform, numbered
from gdo.runners.beam_options import read_options
from gdo.runners.feed import MIN_ROWS, Feed
from gdo.sink import suffix
from gdo.spec import Pipeline
from gdo.tables import READERS, Source, paths_of, placed

PIECE_ROWS = 1 << 17
"""Rows of a parquet file that one worker reads at a time, about."""
BATCHES = 128
"""A table is cut into so many batches at least, if it is not tiny: there may be many workers."""
LARGEST = 8192
"""Rows of a batch: the more of them, the more prompts are alike, and each is looked at once a batch."""
SPARSE = 1 << 36
"""Where the rows of a far text are not counted: the distance between the first numbers of two files."""
ARROW = ".arrow"


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or a part of it: `parts` are row groups or batches, `start` is its first row's number, `rows` how many count."""

    path: str
    kind: str
    parts: tuple[int, ...] = ()
    start: int = 0
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How the pieces of a source are read: the columns, and how a text says them."""

    columns: tuple[str, ...]
    schema: pa.Schema
    batch_rows: int
    types: tuple[tuple[str, str], ...] = ()
    """Every column of a text and its type in SQL."""
    header: bool = True

    def batches(self, piece: Piece) -> Iterator[pa.RecordBatch]:
        """The numbered rows of a piece.

        Raises:
            RunFailed: the file cannot be read, or has other columns.
        """
        full = numbered(self.schema)
        start, left = piece.start, piece.rows
        try:
            for batch in self._raw(piece):
                kept = batch.slice(0, left)
                if not kept.num_rows:
                    return
                numbers = counting(kept.num_rows, start)
                yield conform(kept.append_column(ROW, numbers), full)
                start += kept.num_rows
                left = None if left is None else left - kept.num_rows
        except (OSError, duckdb.Error, pa.ArrowException) as error:
            raise RunFailed(f"{piece.path}: cannot be read: {message(error)}") from None

    def _raw(self, piece: Piece) -> Iterator[pa.RecordBatch]:
        if piece.kind == ".parquet":
            with FileSystems.open(piece.path) as file:
                parquet = pq.ParquetFile(file)
                inside, beside = self._in_file(parquet.schema_arrow.names, piece)
                read = parquet.iter_batches(self.batch_rows, list(piece.parts), inside)
                yield from (_with(batch, beside) for batch in read)
        elif piece.kind == ARROW:
            with FileSystems.open(piece.path) as file, pa.ipc.open_file(file) as reader:
                yield from (reader.get_batch(part) for part in piece.parts)
        else:
            with near(piece.path) as path, connect() as connection:
                connection.execute("SET threads = 1")
                rows = f"SELECT {column_list(self.columns)} FROM {self.text(path, piece.kind)}"
                yield from connection.sql(rows).to_arrow_reader(self.batch_rows)

    def _in_file(self, names: list[str], piece: Piece) -> tuple[list[str], dict[str, str]]:
        """The columns that a parquet file holds, and those that its folders are called by (`year=2024`)."""
        beside = dict(part.split("=", 1) for part in piece.path.split("/")[:-1] if "=" in part)
        missing = [name for name in self.columns if name not in names and name not in beside]
        if missing:
            hint = nearest(missing[0], names)
            raise RunFailed(f"{piece.path}: no column '{missing[0]}', which the first file has ({hint})")
        return [name for name in self.columns if name in names], {
            name: beside[name] for name in self.columns if name not in names
        }

    def text(self, path: Path, kind: str) -> str:
        """A text file as a table in SQL, read as its source says."""
        listed = f"[{literal(glob.escape(str(path)))}]"
        reader = READERS[kind].format(paths=listed)
        if kind in {".csv", ".tsv"}:
            types = ", ".join(f"{literal(name)}: {literal(word)}" for name, word in self.types)
            return f"{reader[:-1]}, header = {str(self.header).lower()}, types = {{{types}}})"
        wanted = ", ".join(f"{literal(name)}: {literal(word)}" for name, word in self.types if name in self.columns)
        return f"{reader[:-1]}, columns = {{{wanted}}})"


def _with(batch: pa.RecordBatch, beside: dict[str, str]) -> pa.RecordBatch:
    for name, value in beside.items():
        batch = batch.append_column(name, pa.array([value] * batch.num_rows, pa.string()))
    return batch


class near:  # noqa: N801 (a context manager, used as a word)
    """A file as one of this machine: itself, or a copy for as long as it is needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folder: str | None = None

    def __enter__(self) -> Path:
        if "://" not in self._path:
            return Path(self._path)
        self._folder = tempfile.mkdtemp(prefix="gdo-")
        copy = Path(self._folder) / self._path.rsplit("/", 1)[-1]
        # As it lies there: DuckDB reads what is compressed itself.
        with FileSystems.open(self._path, compression_type="uncompressed") as far, copy.open("wb") as file:
            shutil.copyfileobj(far, file)
        return copy

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


class Layout:
    """The pieces of one source, found by the launcher; `stage` is a folder of the run's for what lies in no file.

    Raises:
        Faults, RunFailed: the source cannot be read.
    """

    def __init__(self, source: SourceNode, feed: Feed, folder: Path, stage: str) -> None:
        self._source = source
        self._feed = feed
        self._folder = folder
        self._stage = stage

    def found(self, batch_rows: int | None) -> tuple[Reading, list[Piece]]:
        """How to read it, and its pieces in order."""
        source = self._source
        reading = Reading(source.columns, source.schema, batch_rows or LARGEST)
        if not (isinstance(source.source, Source) and source.source.path):
            pieces = list(self._staged(batch_rows))
        else:
            paths = far_paths(source.source.path) or [str(path) for path in paths_of(source.source.path, self._folder)]
            kind = f".{source.source.format}" if source.source.format else suffix(paths[0])
            if kind == ".parquet":
                pieces = list(_footers(paths))
            else:
                types, header = _told(paths, kind)
                reading = replace(reading, types=types, header=header)
                pieces = list(self._texts(paths, kind, reading))
        pieces = list(_limited(pieces, source.limit))
        if batch_rows is None:
            total = sum(LARGEST * BATCHES if piece.rows is None else piece.rows for piece in pieces)
            reading = replace(reading, batch_rows=max(MIN_ROWS, min(LARGEST, -(-total // BATCHES))))
        return reading, pieces

    def _texts(self, paths: list[str], kind: str, reading: Reading) -> Iterator[Piece]:
        """A text is read whole by one worker; one on this machine is counted, so that its rows have their true numbers."""
        start = 0
        for place, path in enumerate(paths):
            if "://" in path and self._source.limit is None:
                yield Piece(path, kind, start=place * SPARSE)
                continue
            if self._source.limit is not None and start >= self._source.limit:
                return
            try:
                with near(path) as local:
                    rows = self._feed.count(reading.text(local, kind))
            except (OSError, duckdb.Error) as error:
                raise Faults.one(path, f"cannot be read: {message(error)}") from None
            yield Piece(path, kind, start=start, rows=rows)
            start += rows

    def _staged(self, batch_rows: int | None) -> Iterator[Piece]:
        """What no worker could read (a query, a database, a stream of this process), put into Arrow files for them."""
        source = self._source
        if isinstance(source.source, Source):
            connection = self._feed.cursor()
            batches = self._feed.read(self._feed.scan(source, connection), connection=connection)
        else:
            batches = self._feed.stream(source)
        held: list[pa.RecordBatch] = []
        start = count = 0
        for batch in batches:
            held.append(conform(batch, source.schema))
            if sum(b.num_rows for b in held) >= PIECE_ROWS:
                yield self._put(held, count, start)
                start, count, held = start + sum(b.num_rows for b in held), count + 1, []
        if held:
            yield self._put(held, count, start)

    def _put(self, batches: list[pa.RecordBatch], count: int, start: int) -> Piece:
        path = FileSystems.join(self._stage, f"{self._source.id}-{count:05}{ARROW}")
        with FileSystems.create(path) as file, pa.ipc.new_file(file, self._source.schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        return Piece(path, ARROW, tuple(range(len(batches))), start, sum(batch.num_rows for batch in batches))


def _limited(pieces: Iterable[Piece], limit: int | None) -> Iterator[Piece]:
    for piece in pieces:
        if limit is None or piece.rows is None:
            yield piece
        elif piece.start < limit:
            yield replace(piece, rows=min(piece.rows, limit - piece.start))


def _footers(paths: list[str]) -> Iterator[Piece]:
    """The row groups of parquet files, some at a time."""
    start = 0
    for path in paths:
        with FileSystems.open(path) as file:
            footer = pq.ParquetFile(file).metadata
        held: list[int] = []
        rows = 0
        for group in range(footer.num_row_groups):
            held.append(group)
            rows += footer.row_group(group).num_rows
            if rows >= PIECE_ROWS or group == footer.num_row_groups - 1:
                yield Piece(path, ".parquet", tuple(held), start, rows)
                start, rows, held = start + rows, 0, []


def _told(paths: list[str], kind: str) -> tuple[tuple[tuple[str, str], ...], bool]:
    """The columns of texts with their types in SQL, and whether they have a header: as DuckDB finds them."""
    with near(paths[0]) as first, connect() as connection:
        # Of files that lie far away, the first one speaks for all.
        looked_at = [first] if "://" in paths[0] else [Path(path) for path in paths]
        listed = f"[{', '.join(literal(glob.escape(str(path))) for path in looked_at)}]"
        rows = connection.sql(f"DESCRIBE SELECT * FROM {READERS[kind].format(paths=listed)}").fetchall()
        header = True
        if kind in {".csv", ".tsv"}:
            query = READERS[kind].format(paths=literal(glob.escape(str(first)))).replace("read_csv", "sniff_csv", 1)
            header = bool(connection.sql(f"SELECT HasHeader FROM {query}").fetchall()[0][0])
    return tuple((str(row[0]), str(row[1])) for row in rows), header


def far_paths(pattern: str) -> list[str]:
    """The files of another filesystem that match, in order; none where it is this machine's.

    Raises:
        Faults: there is none (no place in the finding).
    """
    if "://" not in pattern:
        return []
    try:
        (match,) = FileSystems.match([pattern])
    except Exception as error:  # noqa: BLE001 (each filesystem raises its own)
        raise Faults.one("", f"'{pattern}' cannot be read: {error}", "is the filesystem's package installed?") from None
    found = sorted(str(meta.path) for meta in match.metadata_list)
    if not found:
        raise Faults.one("", f"no file matches '{pattern}'")
    return found


@contextmanager
def sampled(spec: Pipeline, options: Sequence[str] = ()) -> Iterator[Pipeline]:
    """The pipeline with the first file of each far source on this machine, for a look at its columns.

    Beam's own `options` may say how a filesystem is reached.

    Raises:
        Faults: a far source cannot be read.
    """
    with ExitStack() as stack:
        sources = dict(spec.sources)
        for name, source in spec.sources.items():
            if isinstance(source, Source) and source.path and "://" in source.path:
                loc = ("sources", name) if ("sources", name) in spec.document.marks else ("source",)
                FileSystems.set_options(read_options(options))
                try:
                    first = far_paths(source.path)[0]
                except Faults as error:
                    raise Faults(placed(error, spec.document.where((*loc, "path")))) from None
                sources[name] = source.model_copy(update={"path": str(stack.enter_context(near(first)))})
        yield replace(spec, sources=sources)

"""`backend: replay`: answers recorded in a parquet or jsonl file, looked up by prompt."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import duckdb
from pydantic import Field

from gdo.backend import Backend
from gdo.database import connect, message
from gdo.errors import Faults, ModelUnready, nearest
from gdo.model import Capabilities, Done, Reply, ReplyError, Request, Style
from gdo.tables import Source, source_query
from gdo.window import Window


class Replay(Backend, kind="replay"):
    """Recorded answers: `prompt` is the rendered prompt of a row (or the whole one), `reply` the model's text."""

    path: str = Field(description="A parquet or jsonl file, relative to the pipeline file")
    prompt_column: str = Field(default="prompt", description="The column of prompts")
    reply_column: str = Field(default="reply", description="The column of replies")
    style: Literal["chat", "plain"] = Field(default="chat", description="How the recorded model was spoken to")

    def build(self, folder: Path) -> "ReplayModel":
        """The model."""
        return ReplayModel(self, folder)


class ReplayModel:
    """Looks replies up; a prompt that is not there is an error of its row."""

    def __init__(self, options: Replay, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._replies: dict[str, str] = {}
        self._window = Window(64)

    @property
    def identity(self) -> str:
        """The file that it reads."""
        path = self._folder / self._options.path
        changed = path.stat().st_mtime_ns if path.is_file() else 0
        return f"replay/{path.resolve()}/{changed}"

    @property
    def style(self) -> Style:
        """As the recorded model was spoken to."""
        return self._options.style

    @property
    def capabilities(self) -> Capabilities:
        """Recorded text is what it is; calling it constrained keeps schemas out of the looked-up prompt."""
        return Capabilities(schema=True)

    @property
    def concurrency(self) -> int:
        """Look-ups at once."""
        return 64

    async def start(self, tell: Callable[[str], None]) -> None:
        """Read the file.

        Raises:
            ModelUnready: it is not there, or lacks a column.
        """
        options = self._options
        try:
            with connect() as connection:
                query = source_query(Source(path=options.path), self._folder, connection)
                rows = connection.execute(query)
                names = [str(column[0]) for column in rows.description or ()]
                for wanted in (options.prompt_column, options.reply_column):
                    if wanted not in names:
                        raise ModelUnready(
                            f"replay: {options.path} has no column '{wanted}' ({nearest(wanted, names)})"
                        )
                places = names.index(options.prompt_column), names.index(options.reply_column)
                for row in rows.fetchall():
                    if row[places[0]] is None or row[places[1]] is None:
                        continue
                    self._replies[str(row[places[0]])] = str(row[places[1]])
        except Faults as error:
            raise ModelUnready(f"replay: {error.findings[0].what} ({error.findings[0].hint})") from None
        except duckdb.Error as error:
            raise ModelUnready(f"replay: {options.path} cannot be read: {message(error)}") from None

    async def generate(self, requests: Iterable[Request], done: Done, order: int = 0) -> None:
        """Answer requests, a window of them at a time."""
        await self._window.run(requests, self._call, done, order)

    def stop(self) -> None:
        """Nothing is tried again here."""

    async def close(self) -> None:
        """Forget them."""
        self._replies.clear()

    async def _call(self, request: Request) -> Reply:
        for prompt in (request.body, request.text()):
            if prompt in self._replies:
                return Reply(text=self._replies[prompt])
        what = f"no reply is recorded in {self._options.path} for this prompt"
        return Reply(error=ReplyError("missing", what))

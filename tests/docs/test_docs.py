"""The documentation holds: every complete example in it runs, and every operator, backend and key is in it.

All of docs/*.md and README.md is read. A fenced block whose first line is `# example: NAME` is a pipeline (yaml), a
script (python) or commands (sh); one whose first line is `# file: PATH` is a file that stands beside the examples of its
page. A text block right behind an example is what it gives: the rows of its first sink, or what is printed.

An example that names no model runs with the fake backend: `model: fake` is put into each of its steps that asks and has
none. An example with `backend: local` among its models runs the bundled model, as it is, and is marked `model`; of its
table only the columns and the number of rows are held, since the last digits depend on the machine. An example that
reads ${env:LLM_URL} gets a small server on the loopback address there.
"""

import asyncio
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from aiohttp import web
from pydantic import BaseModel

import gdo
from gdo import api
from gdo.backend import Backend
from gdo.document import parse_document
from gdo.op import Operator
from gdo.sink import Sink
from gdo.spec import PipelineFile
from gdo.tables import Source

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"# (example|file): (\S+)\n")
ASKS_OF_ITS_OWN = re.compile(r"backend: +local")


@dataclass(frozen=True)
class Example:
    """A complete example: its text, the files beside it, and what it should give."""

    page: str
    name: str
    language: str
    text: str
    line: int
    wanted: str = ""
    files: dict[str, str] = field(default_factory=dict)

    @property
    def real(self) -> bool:
        return self.language == "yaml" and bool(ASKS_OF_ITS_OWN.search(self.text))


def examples_of(page: Path) -> Iterator[Example]:
    """The complete examples of a page, each with all of the page's files."""
    text = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(text))
    files: dict[str, str] = {}
    for block in blocks:
        mark = MARK.match(block[2])
        if mark and mark[1] == "file":
            assert mark[2] not in files, f"{page.name}: two files called {mark[2]}"
            files[mark[2]] = block[2][mark.end() :]
    for place, block in enumerate(blocks):
        mark = MARK.match(block[2])
        if mark and mark[1] == "example":
            after = blocks[place + 1] if place + 1 < len(blocks) else None
            close = after is not None and after[1] == "text" and not text[block.end() : after.start()].strip()
            wanted = after[2] if after is not None and close else ""
            line = text.count("\n", 0, block.start()) + 2
            yield Example(page.name, mark[2], block[1], block[2], line, wanted, files)


EXAMPLES = [example for page in PAGES if page.is_file() for example in examples_of(page)]


def named(example: Example) -> Any:
    marks = [pytest.mark.model] if example.real else []
    return pytest.param(example, id=f"{example.page}-{example.name}", marks=marks)


# What an example gives


def shown(table: pa.Table) -> str:
    """A table as the documentation shows it."""
    lines = [list(table.column_names), *([cell(value) for value in row.values()] for row in table.to_pylist())]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines)


def cell(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, float):
        return f"{value:.2f}"
    return json.dumps(value, default=str) if isinstance(value, (list, dict)) else str(value)


def prepared(example: Example) -> str:
    """The pipeline's text, with `model: fake` in each step that asks and names none."""
    if example.real:
        return example.text
    data = parse_document(example.text, f"{example.page}:{example.line}").data
    assert isinstance(data, dict)
    for step in data["steps"]:
        if Operator.kinds[step["op"]].asks and "model" not in step:
            step["model"] = "fake"
    return json.dumps(data)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; modules and operators that an example brings are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    modules, kinds = set(sys.modules), dict(Operator.kinds)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
    for name in Operator.kinds.keys() - kinds.keys():
        del Operator.kinds[name]


def write_files(example: Example, folder: Path) -> None:
    for name, text in example.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("example", [named(e) for e in EXAMPLES if e.language == "yaml"])
def test_a_pipeline_of_the_documentation_runs(example: Example, folder: Path, request: pytest.FixtureRequest) -> None:
    if "${env:LLM_URL}" in example.text:
        request.getfixturevalue("server")
    write_files(example, folder)
    path = folder / f"{example.name}.yaml"
    path.write_text(prepared(example), encoding="utf-8")
    run = gdo.run(path)
    assert run.errors().num_rows == 0, run.errors().to_pylist()
    if not example.wanted:
        return
    found = shown(run.table())
    if example.real:
        assert found.splitlines()[0].split() == example.wanted.splitlines()[0].split()
        assert found.count("\n") == example.wanted.count("\n")
    else:
        assert found == example.wanted


@pytest.mark.parametrize("example", [named(e) for e in EXAMPLES if e.language == "python"])
def test_a_script_of_the_documentation_runs(example: Example, folder: Path) -> None:
    write_files(example, folder)
    path = folder / f"{example.name}.py"
    path.write_text(example.text, encoding="utf-8")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(example.text, str(path), "exec"), {"__name__": example.name, "__file__": str(path)})  # noqa: S102
    if example.wanted:
        assert said.getvalue() == example.wanted


@pytest.mark.parametrize("example", [named(e) for e in EXAMPLES if e.language == "sh"])
def test_commands_of_the_documentation_run(example: Example, folder: Path) -> None:
    write_files(example, folder)
    environ = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", example.text], cwd=folder, env=environ, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    if example.wanted:
        assert done.stdout == example.wanted


# A server on the loopback address


def by_schema(schema: dict[str, Any]) -> Any:
    """The plainest value that a JSON Schema allows."""
    kind = schema["type"][0] if isinstance(schema["type"], list) else schema["type"]
    if kind == "object":
        return {name: by_schema(part) for name, part in schema["properties"].items()}
    if kind == "array":
        return [by_schema(schema["items"])]
    return schema["enum"][0] if "enum" in schema else {"string": "a word", "boolean": True}.get(kind, 1)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An OpenAI-compatible server that answers by schema; its URL is in ${env:LLM_URL}."""
    loop = asyncio.new_event_loop()
    ports: list[int] = []
    ready = threading.Event()

    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        value = by_schema(body["response_format"]["json_schema"]["schema"])
        choice = {"message": {"role": "assistant", "content": json.dumps(value)}}
        return web.json_response({"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})

    async def opened() -> web.AppRunner:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        ports.append(runner.addresses[0][1])
        return runner

    def serve() -> None:
        asyncio.set_event_loop(loop)
        runner = loop.run_until_complete(opened())
        ready.set()
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(30)
    monkeypatch.setenv("LLM_URL", f"http://127.0.0.1:{ports[0]}/v1")
    yield f"http://127.0.0.1:{ports[0]}/v1"
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)


# What the documentation must hold


def sections(page: str) -> dict[str, str]:
    """The sections of a page by their headings; what stands before the first one is under an empty name."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    text = re.sub(r"^```.*?^```$", lambda block: block[0].replace("\n#", "\n "), text, flags=re.M | re.S)
    parts = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    named = zip(["", *parts[1::2]], parts[::2], strict=True)
    return {name.replace("`", ""): body for name, body in named}


def table_keys(section: str) -> set[str]:
    """The first column of the tables whose header begins with `key`."""
    keys: set[str] = set()
    inside = False
    for line in section.splitlines():
        cells = [part.strip() for part in line.strip("|").split("|")] if line.startswith("|") else []
        inside = bool(cells) and (inside or cells[0] == "key")
        if inside:
            keys |= set(re.findall(r"`([^`]+)`", cells[0]))
    return keys


def keys_of(kind: type[BaseModel], base: type[BaseModel]) -> set[str]:
    own = kind.model_fields.keys() - (base.model_fields.keys() if kind is not base else set())
    return {kind.model_fields[name].alias or name for name in own}


def test_the_keys_of_every_step_are_documented() -> None:
    assert table_keys(sections("operators.md")["Keys of every step"]) == keys_of(Operator, Operator)


@pytest.mark.parametrize(("heading", "model"), [("", PipelineFile), ("Sources", Source), ("Sinks", Sink)])
def test_every_key_around_the_steps_is_documented(heading: str, model: type[BaseModel]) -> None:
    assert table_keys(sections("pipelines.md")[heading]) == keys_of(model, model)


# Kinds that other tests may add are not the documentation's.
SHIPPED = ("gdo.operators.", "gdo.models.")


def shipped(base: type[Operator] | type[Backend]) -> list[Any]:
    api.register_wings()
    return [kind for kind in base.kinds.values() if kind.__module__.startswith(SHIPPED)]


@pytest.mark.parametrize("kind", shipped(Operator), ids=lambda kind: kind.kind)
def test_every_operator_has_a_section_with_its_keys_and_an_example(kind: type[Operator]) -> None:
    section = sections("operators.md").get(kind.kind)
    assert section is not None, f"docs/operators.md has no section `{kind.kind}`"
    assert table_keys(section) == keys_of(kind, Operator)
    assert re.search(rf"^```yaml\n  ?example: .*^ +- op: {kind.kind}$", section, re.M | re.S)


@pytest.mark.parametrize("kind", shipped(Backend), ids=lambda kind: kind.kind)
def test_every_backend_has_a_section_with_its_keys_and_an_example(kind: type[Backend]) -> None:
    section = sections("backends.md").get(kind.kind)
    assert section is not None, f"docs/backends.md has no section `{kind.kind}`"
    assert table_keys(section) == keys_of(kind, Backend)
    assert re.search(rf"^```yaml\n  ?example: .*backend: {kind.kind}\b", section, re.M | re.S)


def test_every_page_is_on_the_map_and_every_link_leads_somewhere() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        assert page.name == "index.md" or f"({page.name})" in index
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
            place = page.parent / target if target else page
            assert place.exists(), f"{page.name}: {target}"
            headings = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.MULTILINE) if anchor else []
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, f"{page.name}: {target}#{anchor}"

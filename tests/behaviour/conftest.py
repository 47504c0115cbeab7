"""What the behaviour suite stands on: small projects in a folder of their own, run by every runner."""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml

import gdo

RUNNERS = ["duckdb"]
MODELS = {"chat": {"backend": "fake"}, "plain": {"backend": "fake", "style": "plain"}}


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Project:
    """A folder with a pipeline file and its data."""

    def __init__(self, folder: Path, runner: str) -> None:
        self.folder = folder
        self.runner = runner

    def source(self, rows: pa.Table, name: str = "in.parquet") -> dict[str, str]:
        pyarrow.parquet.write_table(rows, self.folder / name)
        return {"path": name}

    def write(self, steps: list[dict[str, object]], rows: pa.Table | None = None, **outer: object) -> Path:
        spec: dict[str, object] = {"models": MODELS, "steps": steps, **outer}
        if rows is not None:
            spec["source"] = self.source(rows)
        if "sinks" not in spec:
            spec.setdefault("sink", {"path": "result.parquet"})
        path = self.folder / "pipeline.yaml"
        path.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    def run(
        self,
        steps: list[dict[str, object]],
        rows: pa.Table | None = None,
        *,
        options: Mapping[str, object] | None = None,
        arrow: object = None,
        **outer: object,
    ) -> gdo.Run:
        path = self.write(steps, rows, **outer)
        return gdo.run(path, runner=self.runner, source=arrow, **(options or {}))  # type: ignore[arg-type]

    def module(self, text: str) -> str:
        """A Python module beside the pipeline file, under a name that no other test has."""
        name = f"beside_{abs(hash(str(self.folder)))}_{len(list(self.folder.glob('beside_*.py')))}"
        (self.folder / f"{name}.py").write_text(text, encoding="utf-8")
        return name


@pytest.fixture
def project(tmp_path: Path, runner: str) -> Iterator[Project]:
    before = list(sys.path)
    yield Project(tmp_path, runner)
    sys.path[:] = before


@pytest.fixture
def calls() -> Callable[[gdo.Run], int]:
    def count(run: gdo.Run) -> int:
        return sum(int(str(step["calls"])) for step in run.report.values())

    return count

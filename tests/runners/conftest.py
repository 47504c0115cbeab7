"""Small projects for the runners' tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a pipeline file of some steps; other outer keys as they come."""

    def written(steps: list[dict[str, Any]], **outer: Any) -> Path:
        path = tmp_path / "pipeline.yaml"
        spec = {"models": {"m": {"backend": "fake"}}, **outer, "steps": steps}
        path.write_text(yaml.safe_dump(spec, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    return written

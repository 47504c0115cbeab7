"""pandas, where it is installed, is imported when somebody wants it and not before."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

PANDAS = """\
from pathlib import Path
Path("imported").touch()
raise ImportError("half of it is missing")
"""


def run(tmp_path: Path, step: dict[str, object]) -> bool:
    """Whether a run of one step imports the module that is called pandas."""
    (tmp_path / "pandas.py").write_text(PANDAS)
    (tmp_path / "in.csv").write_text("id,name\n1,a\n")
    spec = {
        "models": {"m": {"backend": "fake"}},
        "source": {"path": "in.csv"},
        "steps": [step],
        "sink": {"path": "out.csv"},
    }
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(spec))
    paths = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "gdo.cli", "run", "p.yaml"]
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return (tmp_path / "imported").exists()


def test_a_run_of_prompts_leaves_pandas_alone(tmp_path: Path) -> None:
    assert not run(tmp_path, {"op": "map", "model": "m", "prompt": "{{ name }}", "output": {"a": "string"}})


def test_pandas_is_known_to_pyarrow_before_a_function_of_the_user_is_called(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def same(batch):\n    return batch\n")
    assert run(tmp_path, {"op": "python", "function": "own:same", "writes": {"name": "string"}})

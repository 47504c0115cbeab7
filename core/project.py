"""`gdo init`: a small working project to start from."""

import importlib.util
import shutil
from pathlib import Path

from gdo.errors import Faults

FILES = {"pipeline.yaml": "pipeline.yaml", "products.csv": "data/products.csv", "tidy_name.yaml": "udps/tidy_name.yaml"}
"""Files of the shipped starter, and where each goes."""


def make_project(folder: Path) -> list[Path]:
    """Write the starter's files into a folder; none is overwritten.

    Raises:
        Faults: one of them is there already, or the folder cannot be written.
    """
    spec = importlib.util.find_spec("gdo.pipelines")
    places = list(spec.submodule_search_locations or []) if spec else []
    starter = next(path for place in places if (path := Path(place) / "starter").is_dir())
    targets = {folder / target: starter / name for name, target in FILES.items()}
    there = [path for path in targets if path.exists()]
    if there:
        raise Faults.one(str(there[0]), "is there already", "gdo init overwrites nothing; name another folder")
    try:
        for target, source in targets.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    except OSError as error:
        raise Faults.one(str(folder), f"cannot be written: {error.strerror}") from None
    return list(targets)

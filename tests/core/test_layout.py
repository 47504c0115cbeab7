# ruff: noqa: E501 (a text in one piece)
import configparser
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import gdo

ROOT = Path(__file__).parents[2]
MODULES = ["gdo", *(module.name for module in pkgutil.walk_packages(gdo.__path__, "gdo."))]


def config():
    found = configparser.ConfigParser()
    found.read(ROOT / "setup.cfg")
    return found


def test_setup_lists_every_folder_that_is_a_package():
    places = dict(line.replace(" ", "").split("=") for line in config()["options"]["package_dir"].split("\n") if line)
    found = set()
    for package, folder in places.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([package, *init.parent.relative_to(ROOT / folder).parts]))
    assert sorted(config()["options"]["packages"].split()) == sorted(found)


def test_no_folder_of_code_is_forgotten():
    folders = {init.parent.name for init in ROOT.glob("*/__init__.py")}
    assert folders <= {"core", "operators", "runners", "udps", "pipelines"}


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported(name):
    assert importlib.import_module(name).__doc__


def test_importing_gdo_is_light_and_prints_nothing():
    code = "import sys, gdo; print(sorted({'duckdb', 'pyarrow', 'pydantic', 'yaml', 'jinja2', 'aiohttp', 'rich', 'xllamacpp'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_help_imports_nothing_heavy():
    code = "import sys\nfrom gdo.cli import main\ntry:\n    main(['run', '--help'])\nexcept SystemExit:\n    pass\nprint(sorted({'duckdb', 'pyarrow', 'pydantic', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")


def test_every_name_that_is_promised_is_there():
    assert all(getattr(gdo, name) for name in gdo.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        gdo.nothing  # noqa: B018


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("gdo.operators.")])
def test_an_operator_is_in_the_file_of_its_name(name):
    from gdo.op import Operator

    kinds = [kind for kind in Operator.kinds.values() if kind.__module__ == name]
    assert [kind.kind for kind in kinds] == [name.rpartition(".")[2]]


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("gdo.models.")])
def test_a_backend_is_in_the_file_of_its_name(name):
    from gdo.backend import Backend

    kinds = [kind for kind in Backend.kinds.values() if kind.__module__ == name]
    assert [kind.kind for kind in kinds] == [name.rpartition(".")[2]]

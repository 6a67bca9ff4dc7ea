"""What users may rely on: public names, docstrings, a light import."""

from __future__ import annotations

import ast
import importlib.metadata
import inspect
import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import xpath

PACKAGE = Path(xpath.__file__).parent
REPOSITORY = Path(__file__).resolve().parent.parent
MODULES = sorted(PACKAGE.rglob("*.py"))
FILLED = [path for path in MODULES if path.name != "__init__.py"]  # these: test_front_doors.py

PUBLIC = [
    "AttentionMIL",
    "Bag",
    "ObjectAwareMIL",
    "SegmentPredictor",
    "Slide",
    "XPathError",
    "attribute",
    "load_classifier",
    "load_labels",
    "predict",
    "read_features",
    "train",
]
HEAVY = ["captum", "h5py", "matplotlib", "openslide", "pandas", "sklearn", "timm", "zarr"]


def name_of(path):
    return str(path.relative_to(PACKAGE))


def names_in_all(path):
    """``__all__`` as written; None where there is none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return None


def test_public_names():
    """A name here is a promise: change the list together with CHANGELOG.md."""
    assert sorted(xpath.__all__) == PUBLIC
    assert all(hasattr(xpath, name) for name in PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    thing = getattr(xpath, name)

    assert thing.__doc__
    for attribute, value in vars(thing).items() if inspect.isclass(thing) else ():
        if inspect.isfunction(value) and not attribute.startswith("_"):
            assert inspect.getdoc(value), f"{name}.{attribute} has no docstring"


def test_every_paper_trail_names_the_same_version():
    """The project file rules; an editable install keeps the version it was made with."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    version = project["version"]

    assert xpath.__version__ == importlib.metadata.version(project["name"])
    assert xpath.__version__ == version, "the install is old: touch pyproject.toml; make install"
    assert f"\nversion: {version}\n" in (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{version}]" in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")


LIGHT = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.process_time()  # not wall time: other work on the machine is not our fault
from xpath import ObjectAwareMIL
seconds = time.process_time() - start
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps({"seconds": seconds, "loaded": sorted(loaded)}))
"""


@pytest.fixture(scope="module")
def light():
    command = [sys.executable, "-W", "ignore", "-c", LIGHT]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_root_loads_nothing_heavy(light):
    """So that a classifier runs on a node with nothing but torch."""
    assert "xpath" in light["loaded"]
    assert not set(HEAVY) & set(light["loaded"])


def test_the_root_is_quick_once_torch_is_there(light):
    assert light["seconds"] < 2


def test_the_command_loads_torch_only_for_work():
    code = "import sys; from xpath.cli.main import main; main([]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert done.stdout.endswith("False\n")


@pytest.mark.parametrize("path", FILLED, ids=name_of)
def test_a_module_says_what_it_is_and_what_is_public(path):
    names = names_in_all(path)

    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert names is not None, "has no __all__"
    assert len(names) == len(set(names))


@pytest.mark.parametrize("path", FILLED, ids=name_of)
def test_what_is_public_is_defined_there(path):
    """A name comes from the module that defines it; only front doors hand names on."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    defined = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)

    assert set(names_in_all(path) or ()) <= defined


def test_every_folder_is_a_package():
    """A folder without ``__init__.py`` would not be found by mypy, nor by the layer contract."""
    folders = {path.parent for path in MODULES}

    assert all((folder / "__init__.py").is_file() for folder in folders)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_first_lines_say_what_a_thing_is(path):
    """Plainly: no riddle that begins with "What", no second thought behind a semicolon."""
    documented = ast.Module | ast.ClassDef | ast.FunctionDef
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    texts = [ast.get_docstring(node) for node in nodes if isinstance(node, documented)]
    firsts = [text.partition("\n")[0] for text in texts if text]

    assert not [line for line in firsts if line.startswith("What ") or ";" in line]

"""Imports go down, and each heavy dependency has one door."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FILES = sorted((REPOSITORY / "xpath").rglob("*.py"))

ENCODERS = ("xpath/segment/model/image_encoder.py", "xpath/segment/model/timm_image_encoder.py")
DOORS = {
    "openslide": ("xpath/wsi/", "xpath/cli/doctor.py"),  # the doctor tells whether it loads
    "timm": ("xpath/features/encoders.py", "xpath/segment/baselines/sam_path.py", *ENCODERS),
    "captum": ("xpath/explain/captum_bridge.py",),
    "matplotlib": ("xpath/export/",),
    "h5py": ("xpath/store/", "xpath/pathseg/sources/cocahis.py"),
    "zarr": ("xpath/store/",),
    "transformers": (
        "xpath/segment/model/bert_encoder.py",
        "xpath/segment/baselines/",
        "xpath/grounded/",
    ),
    "peft": ("xpath/grounded/lora.py",),
    "segmentation_models_pytorch": ("xpath/segment/baselines/class_models.py",),
    "nnunetv2": ("xpath/segment/baselines/nnunet_trainer/",),
}
"""Package to the only places that may import it."""

LAZY = {"cv2", "pandas", "scipy", "skimage", "sklearn", "tifffile", *DOORS}
"""Imported inside functions, so that a module costs nothing until it is used."""
EAGER = {(name, "timm") for name in ENCODERS} | {
    ("xpath/segment/baselines/nnunet_trainer/xpath_nnunet_trainer.py", "nnunetv2")
}
"""Where a module *is* the package's use: its classes derive from the package's."""


def name_of(path):
    return path.relative_to(REPOSITORY).as_posix()


def imported(tree, *, inside_functions):
    """Root packages a tree imports when run; imports for typing only do not count."""
    found, nodes = set(), [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
        elif inside_functions or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            nodes += ast.iter_child_nodes(node)
    return found


def through_the_wall(name, packages):
    """Which packages may not be imported by the file of this name."""
    return {
        package
        for package in packages & set(DOORS)
        if not name.startswith(DOORS[package])  # a folder or the file itself
    }


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_heavy_packages_come_through_their_door(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    eager = {package for file, package in EAGER if file == name_of(path)}

    assert not through_the_wall(name_of(path), imported(tree, inside_functions=True))
    assert not (imported(tree, inside_functions=False) & LAZY) - eager


def test_every_door_is_in_use():
    """A door that moved must be moved here as well."""
    used = {
        package: [
            path
            for path in FILES
            if name_of(path).startswith(doors)
            and package in imported(ast.parse(path.read_text()), inside_functions=True)
        ]
        for package, doors in DOORS.items()
    }

    assert all(used.values()), used


SAMPLE = """
import numpy as np
from . import sibling
if TYPE_CHECKING:
    import openslide
else:
    import zarr.codecs
def read():
    from h5py import File
    class Local:
        import cv2
class Reader:
    import scipy
"""


def test_the_reader_of_imports_reads_right():
    tree = ast.parse(SAMPLE)

    assert imported(tree, inside_functions=False) == {"numpy", "zarr", "scipy"}
    assert imported(tree, inside_functions=True) == {"numpy", "zarr", "scipy", "h5py", "cv2"}
    assert through_the_wall("xpath/mil/bag.py", {"numpy", "h5py", "timm"}) == {"h5py", "timm"}
    assert through_the_wall("xpath/store/hdf5.py", {"h5py", "openslide"}) == {"openslide"}


def test_the_layer_contracts_hold():
    """The contracts stand in pyproject.toml; ``make lint`` runs them as well."""
    beside = Path(sys.executable).with_name("lint-imports")
    program = str(beside) if beside.is_file() else shutil.which("lint-imports")
    if program is None:
        pytest.skip("import-linter is not installed: pip install -e '.[dev]'")

    done = subprocess.run(
        [program, "--no-cache"], check=False, capture_output=True, text=True, cwd=REPOSITORY
    )

    assert done.returncode == 0, done.stdout + done.stderr

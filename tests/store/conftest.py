"""A small grid and small features, as files know them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import xpath.errors
from xpath.geometry import Size
from xpath.store.features import SlideFeatures
from xpath.testing.masks import grid_at


def make_grid(count=5, **changes):
    columns = np.arange(count)
    values = {"footprint": 257, "pixels": 256, "mpp": 0.5, "overlap": 16, "slide_mpp": 0.499}
    corners = np.stack([columns * 257, columns * 3], axis=1)
    return grid_at(corners, slide_size=Size(2220, 2967), **(values | changes))


def make_features(count=5, objects=("tumor", "stroma", "other"), dim=4, seed=0):
    rng = np.random.default_rng(seed)
    return SlideFeatures(
        slide_id="slide-1",
        grid=make_grid(count),
        features=rng.normal(size=(count, dim)).astype(np.float32),
        object_features=rng.normal(size=(count, len(objects), dim)).astype(np.float16),
        object_coverage=rng.random((count, len(objects))).astype(np.float32),
        objects=objects,
        provenance={"encoder": "tiny", "encoder_sha256": "ab" * 32},
    )


@pytest.fixture(name="make_grid")
def make_grid_fixture():
    return make_grid


@pytest.fixture(name="make_features")
def make_features_fixture():
    return make_features


CHILD = """
import os, signal, sys, types
package = types.ModuleType("xpath")  # its root imports torch, which takes seconds
package.__path__ = [sys.argv.pop(1)]
sys.modules["xpath"] = package
"""


@pytest.fixture
def python():
    """Runs code in a process of its own and returns the finished process."""

    def run(code, *arguments):
        folder = Path(xpath.errors.__file__).parent
        command = [sys.executable, "-c", CHILD + code, str(folder), *map(str, arguments)]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    return run

"""Patch grids in HDF5, as CLAM and TRIDENT expect them.

Both toolkits read a dataset ``coords`` and take the side of a patch from its attributes, but they
mean different things by ``patch_size``:

* CLAM: pixels at pyramid level ``patch_level``; on level 0 the side is ``patch_size *
  downsample[0]``.
* TRIDENT: pixels at ``target_magnification``; on level 0 the side is ``patch_size *
  level0_magnification / target_magnification``, also stored as ``patch_size_level0``.

We choose numbers for which all three agree: ``patch_size`` is counted at the pyramid level
(level 0, unless given otherwise), and ``target_magnification`` is the magnification of that same
level. It is therefore *not* the resolution patches are read at by xpath; that is ``mpp``, with
``pixels`` a side. Magnifications are ``10 / level0_mpp``, rounded; where the slide stores no
resolution they are left out, and TRIDENT then falls back to CLAM's attributes. Lengths in
``overlap`` are, as in TRIDENT, pixels at ``target_magnification``; ``overlap_level0`` is ours.
Paths are written as ``.``: files must not tell where they were made. Axes: N patches.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import DataError
from xpath.geometry import PatchGrid, Size
from xpath.store.hdf5 import create_h5, open_h5
from xpath.store.schema import GRID

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["PyramidLevel", "grid_attributes", "grid_from_attributes", "read_grid", "write_grid"]


class PyramidLevel(NamedTuple):
    """The pyramid level at which CLAM reads the patches."""

    number: int = 0
    downsample: float = 1.0
    """Level-0 pixels per pixel."""
    size: Size | None = None
    """Size of the level, None for the slide's size divided by ``downsample``."""


LEVEL0 = PyramidLevel()


def write_grid(
    path: Path,
    grid: PatchGrid,
    name: str,
    *,
    patch_level: int = 0,
    level_downsample: float = 1.0,
    level_size: Size | None = None,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Writes the coordinates of a grid, schema ``xpath.grid/1``.

    Args:
        path: HDF5 file to write.
        grid: The patches.
        name: The slide's name, kept as an attribute.
        patch_level: Pyramid level CLAM should read the patches at.
        level_downsample: Level-0 pixels per pixel of that level.
        level_size: Size of that level; by default the slide's size divided by the downsample.
        provenance: How the grid came about, kept as JSON.

    Raises:
        DataError: Level and downsample contradict each other or the grid.
        StoreError: The disk is full.
    """
    level = PyramidLevel(patch_level, level_downsample, level_size)
    with create_h5(path, GRID) as file:
        file.attrs["provenance"] = json.dumps(dict(provenance or {}), sort_keys=True)
        coords = file.create_dataset("coords", data=np.asarray(grid.coords, np.int64))
        coords.attrs.update(grid_attributes(grid, name, level))


def read_grid(path: Path) -> PatchGrid:
    """Reads the coordinates of a grid.

    Raises:
        StoreError: The file is missing, truncated, not HDF5, or not ours.
    """
    with open_h5(path, GRID) as file:
        return grid_from_attributes(file["coords"][()], dict(file["coords"].attrs))


def grid_attributes(grid: PatchGrid, name: str, level: PyramidLevel = LEVEL0) -> dict[str, Any]:
    """Attributes of ``coords``: ours, CLAM's and TRIDENT's (see the head of this file).

    Raises:
        DataError: Level and downsample contradict each other or the grid.
    """
    side = _side(grid, level)
    slide = [grid.slide_size.width, grid.slide_size.height]
    shrunk = level.size or Size(*(int(length / level.downsample) for length in slide))
    level_dim = np.array([shrunk.width, shrunk.height], np.int64)
    attributes: dict[str, Any] = {
        "pixels": grid.pixels,
        "overlap_level0": grid.overlap,
        # CLAM
        "patch_size": side,
        "patch_level": level.number,
        "downsample": np.array([level.downsample] * 2, np.float64),
        "level_dim": level_dim,
        "downsampled_level_dim": level_dim,
        "name": name,
        "save_path": ".",
        # TRIDENT
        "patch_size_level0": grid.footprint,
        "overlap": round(grid.overlap / level.downsample),
        "savetodir": ".",
        "level0_width": slide[0],
        "level0_height": slide[1],
    }
    if grid.mpp is not None:
        attributes["mpp"] = float(grid.mpp)
    if grid.slide_mpp is not None:
        magnification = max(1, round(10 / grid.slide_mpp))
        target = magnification if level.downsample == 1 else magnification / level.downsample
        attributes["level0_mpp"] = float(grid.slide_mpp)
        attributes["level0_magnification"] = magnification
        attributes["target_magnification"] = target
    return attributes


def grid_from_attributes(coords: NDArray[np.int64], attributes: Mapping[str, Any]) -> PatchGrid:
    """The grid behind coordinates and the attributes written by ``grid_attributes``.

    Raises:
        KeyError: An attribute is missing.
    """
    mpp, slide_mpp = attributes.get("mpp"), attributes.get("level0_mpp")
    return PatchGrid(
        coords=np.asarray(coords, np.int64),
        footprint=int(attributes["patch_size_level0"]),
        pixels=int(attributes["pixels"]),
        mpp=None if mpp is None else float(mpp),
        overlap=int(attributes["overlap_level0"]),
        slide_size=Size(int(attributes["level0_width"]), int(attributes["level0_height"])),
        slide_mpp=None if slide_mpp is None else float(slide_mpp),
    )


def _side(grid: PatchGrid, level: PyramidLevel) -> int:
    """Side of a patch in pixels of the level."""
    if (level.number == 0) != (level.downsample == 1):
        raise DataError(
            f"level {level.number} cannot have a downsample of {level.downsample}; pass both"
            " patch_level and level_downsample as the slide stores them"
        )
    side = round(grid.footprint / level.downsample)
    if abs(side * level.downsample - grid.footprint) > 1:
        raise DataError(
            f"patches of {grid.footprint} px are no whole number of pixels at a downsample of"
            f" {level.downsample}; pass the level the grid was cut at"
        )
    return side

"""Patch grids in HDF5, as CLAM and TRIDENT expect them.

Both toolkits read a dataset ``coords`` and take the side of a patch from its attributes: CLAM from
``patch_size * downsample``, TRIDENT from ``patch_size_level0``. We write both so that both
arrive at the same footprint. Axes: N patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import StoreError
from xpath.geometry import PatchGrid, Size
from xpath.store.schema import GRID, atomic, check_schema

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["grid_attributes", "grid_from_attributes", "open_h5", "read_grid", "write_grid"]


def write_grid(path: Path, grid: PatchGrid, name: str) -> None:
    """Writes the coordinates of a grid.

    Args:
        path: HDF5 file to write.
        grid: The patches.
        name: The slide's name, kept as an attribute.
    """
    import h5py

    with atomic(path) as draft, h5py.File(draft, "w", libver="latest") as file:
        file.attrs["schema"] = GRID
        coords = file.create_dataset("coords", data=grid.coords)
        coords.attrs.update(grid_attributes(grid, name))


def read_grid(path: Path) -> PatchGrid:
    """Reads the coordinates of a grid.

    Raises:
        StoreError: The file is truncated, not HDF5, or not ours.
    """
    with open_h5(path) as file:
        check_schema(path, file.attrs.get("schema"), GRID)
        try:
            return grid_from_attributes(file["coords"][()], dict(file["coords"].attrs))
        except (KeyError, OSError) as error:
            raise StoreError(f"{path} is damaged ({error}); remove it and make it again") from error


def open_h5(path: Path) -> Any:  # an h5py.File, which has no types
    """An HDF5 file for reading.

    Raises:
        StoreError: Missing, truncated, or not HDF5.
    """
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise StoreError(
            f"{path} is missing, truncated or not HDF5 ({error}); remove it and make it again"
        ) from error


def grid_attributes(grid: PatchGrid, name: str) -> dict[str, Any]:
    """Attributes of ``coords``: ours, CLAM's and TRIDENT's."""
    side = [grid.slide_size.width, grid.slide_size.height]
    attributes: dict[str, Any] = {
        "pixels": grid.pixels,
        # CLAM: patch_size is counted in pixels of patch_level, here level 0
        "patch_size": grid.footprint,
        "patch_level": 0,
        "downsample": np.array([1.0, 1.0]),
        "level_dim": np.array(side),
        "downsampled_level_dim": np.array(side),
        "name": name,
        "save_path": ".",
        # TRIDENT
        "patch_size_level0": grid.footprint,
        "overlap": grid.overlap,
        "savetodir": ".",
        "level0_width": side[0],
        "level0_height": side[1],
    }
    if grid.slide_mpp is not None:
        attributes["level0_mpp"] = grid.slide_mpp
        attributes["level0_magnification"] = _magnification(grid.slide_mpp)
    if grid.mpp is not None:
        attributes["mpp"] = grid.mpp
        attributes["target_magnification"] = _magnification(grid.mpp)
    return attributes


def grid_from_attributes(coords: np.ndarray, attributes: dict[str, Any]) -> PatchGrid:
    """The grid behind coordinates and the attributes written by ``grid_attributes``."""
    mpp, slide_mpp = attributes.get("mpp"), attributes.get("level0_mpp")
    return PatchGrid(
        coords=np.asarray(coords, np.int64),
        footprint=int(attributes["patch_size_level0"]),
        pixels=int(attributes["pixels"]),
        mpp=None if mpp is None else float(mpp),
        overlap=int(attributes["overlap"]),
        slide_size=Size(int(attributes["level0_width"]), int(attributes["level0_height"])),
        slide_mpp=None if slide_mpp is None else float(slide_mpp),
    )


def _magnification(mpp: float) -> int:
    """The objective power people call a resolution by: 0.25 is 40x."""
    return max(1, round(10 / mpp))

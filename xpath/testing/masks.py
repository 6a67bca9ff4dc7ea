"""Small grids and masks of known content, for tests.

Axes: N patches, L labels, H W pixels of a mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.geometry import Mpp, PatchGrid, Size
from xpath.store.masks import MaskWriter, open_masks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike, NDArray

    from xpath.store.masks import SlideMasks

__all__ = ["grid_at", "write_masks"]


def grid_at(
    corners: ArrayLike,
    footprint: int,
    *,
    pixels: int = 0,
    slide_size: Size | None = None,
    slide_mpp: float | None = 0.5,
    **changes: Any,
) -> PatchGrid:
    """A grid of patches at some corners.

    Args:
        corners: ``(N, 2)`` x, y in level-0 pixels.
        footprint: Side of a patch in level-0 pixels.
        pixels: Side of a patch as it is read; by default the footprint.
        slide_size: By default the slide ends with the last patches.
        slide_mpp: Microns per level-0 pixel; None for a slide that stores none.
        changes: Further fields of the grid.
    """
    coords = np.asarray(corners, np.int64).reshape(-1, 2)
    pixels = pixels or footprint
    mpp = None if slide_mpp is None else Mpp(slide_mpp * footprint / pixels)
    width, height = (coords.max(axis=0, initial=0) + footprint).tolist()
    values = {"overlap": 0, "mpp": mpp, "slide_mpp": slide_mpp, **changes}
    return PatchGrid(
        coords=coords,
        footprint=footprint,
        pixels=pixels,
        slide_size=slide_size or Size(width, height),
        **values,
    )


def write_masks(
    path: Path,
    grid: PatchGrid,
    masks: NDArray[np.bool_],
    labels: Sequence[str],
    *,
    provenance: Mapping[str, str] | None = None,
) -> SlideMasks:
    """Writes ``masks.zarr`` with presence 1 where a mask is not empty, and opens it.

    Args:
        path: The folder to write.
        grid: N patches.
        masks: ``(N, L, H, W)``.
        labels: L label ids.
        provenance: As ``MaskWriter`` takes it.
    """
    size, presence = masks.shape[-1], np.asarray(masks.any(axis=(2, 3)), np.float32)
    with MaskWriter(
        path, grid=grid, labels=labels, size=size, provenance=provenance or {}
    ) as writer:
        writer.write(0, masks, presence)
    return open_masks(path)

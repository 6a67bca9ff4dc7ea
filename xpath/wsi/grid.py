"""The patches of a slide, cut in microns.

Axes: N patches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError, EmptyTissueError
from xpath.geometry import PatchGrid
from xpath.wsi.tissue import shares

if TYPE_CHECKING:
    from xpath.wsi.slide import Slide
    from xpath.wsi.tissue import Tissue

__all__ = ["GridConfig", "cut_grid"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """Where patches are cut and how finely they are read."""

    patch_um: float = 128.0
    """Side of a patch on the tissue, in microns."""
    mpp: float = 0.5
    """Resolution patches are read at; 128 microns at 0.5 are 256 pixels."""
    patch_px: int = 0
    """Side in level-0 pixels instead of microns; 0 to use ``patch_um``. Slides of different
    resolution then get patches of different size."""
    overlap: float = 0.0
    """Share of a side that neighbours have in common, 0 to 0.9."""
    min_tissue: float = 0.3
    """Smallest share of a patch that is tissue; below it, blank glass dominates the features."""

    def __post_init__(self) -> None:
        """Refuses impossible numbers."""
        if min(self.patch_um, self.mpp) <= 0 or self.patch_px < 0:
            raise ConfigError(f"patch_um and mpp must be positive, patch_px not negative: {self}")
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(f"overlap must be within 0 and 0.9, got {self.overlap}")
        if not 0 <= self.min_tissue <= 1:
            raise ConfigError(f"min_tissue must be within 0 and 1, got {self.min_tissue}")


def cut_grid(slide: Slide, tissue: Tissue, config: GridConfig | None = None) -> PatchGrid:
    """Patches that hold enough tissue, row by row from the top left of the scanned part.

    Positions are multiples of an exact step, rounded one by one, so no error adds up.

    Raises:
        ResolutionError: The slide has no resolution (see ``Slide.mpp``).
        EmptyTissueError: No patch holds enough tissue.
    """
    config = config or GridConfig()
    side = float(config.patch_px) if config.patch_px else config.patch_um / slide.mpp
    pixels = round(side * slide.mpp / config.mpp)
    if side < 1 or pixels < 1:
        raise ConfigError(f"a patch would be {side:.2f} level-0 px and {pixels} px read: {config}")
    bounds = slide.bounds
    step = side * (1 - config.overlap)
    columns = np.arange(max(1, np.ceil((bounds.width - config.overlap * side) / step)))
    rows = np.arange(max(1, np.ceil((bounds.height - config.overlap * side) / step)))
    y, x = (part.ravel() for part in np.meshgrid(rows * step, columns * step, indexing="ij"))
    corners = np.stack((x + bounds.x, y + bounds.y), axis=1)
    share = shares(tissue, np.concatenate((corners, corners + side), axis=1))
    kept = np.rint(corners[share >= config.min_tissue]).astype(np.int64)
    if not len(kept):
        raise EmptyTissueError(
            f"{slide.path.name}: no patch has {config.min_tissue:.0%} tissue (the slide has"
            f" {tissue.mask.mean():.1%}); is it blank, or is min_tissue too high?"
        )
    return PatchGrid(
        coords=kept,
        footprint=round(side),
        pixels=pixels,
        mpp=config.mpp,
        overlap=round(config.overlap * side),
        slide_size=slide.size,
        slide_mpp=slide.mpp,
    )

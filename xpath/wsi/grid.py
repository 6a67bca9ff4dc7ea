"""The patches of a slide, cut in microns.

Axes: N patches.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ConfigError, EmptyTissueError
from xpath.geometry import PatchGrid
from xpath.wsi.tissue import shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.geometry import Box
    from xpath.wsi.slide import Slide
    from xpath.wsi.tissue import Tissue

__all__ = ["GridConfig", "cut_grid"]

logger = logging.getLogger(__name__)

MOST_PATCHES = 20_000_000
"""More are a slip in the settings, not a slide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GridConfig:
    """Where patches are cut and how finely they are read."""

    patch_um: float = 128.0
    """Side of a patch on the tissue, in microns."""
    mpp: float = 0.5
    """Resolution patches are read at: 128 microns at 0.5 are 256 pixels."""
    patch_px: int = 0
    """Side in level-0 pixels instead of microns, or 0 to use ``patch_um``. Slides of different
    resolution then get patches of different size. A slide that stores no resolution can only be
    cut so, and its patches are read pixel by pixel, whatever ``mpp`` says."""
    overlap: float = 0.0
    """Share of a side that neighbours have in common, 0 to 0.9."""
    min_tissue: float = 0.3
    """Smallest share of a patch that is tissue. Below it, blank glass dominates the features."""

    def __post_init__(self) -> None:
        """Refuses impossible numbers."""
        positive = all(0 < number < math.inf for number in (self.patch_um, self.mpp))
        if not positive or self.patch_px < 0:
            raise ConfigError(f"patch_um and mpp must be positive, patch_px not negative: {self}")
        if not 0 <= self.overlap <= 0.9:
            raise ConfigError(f"overlap must be within 0 and 0.9, got {self.overlap}")
        if not 0 <= self.min_tissue <= 1:
            raise ConfigError(f"min_tissue must be within 0 and 1, got {self.min_tissue}")


def cut_grid(slide: Slide, tissue: Tissue, config: GridConfig | None = None) -> PatchGrid:
    """Patches that hold enough tissue, row by row from the top left of the scanned part.

    Positions are multiples of an exact step, rounded one by one, so no error adds up. The last
    row and column may reach beyond the slide; what lies outside is not tissue, and reads white.

    Args:
        slide: Open slide.
        tissue: Its mask, from ``find_tissue``.
        config: Size, resolution and overlap of the patches.

    Raises:
        ResolutionError: The slide has no resolution (see ``Slide.mpp``) and ``patch_px`` is 0.
        ConfigError: Patches smaller than a pixel, or more than anyone can want.
        EmptyTissueError: No patch holds enough tissue.
    """
    config = config or GridConfig()
    patch = _patch(slide, config)
    corners = _corners(slide.bounds, patch.side, config.overlap)
    share = shares(tissue, np.concatenate((corners, corners + patch.side), axis=1))
    enough = share >= config.min_tissue - 1e-9  # the sums of a full patch may be a hair short
    kept = np.rint(corners[enough]).astype(np.int64)
    if not len(kept):
        raise EmptyTissueError(_advice(slide, tissue, config, float(share.max())))
    return PatchGrid(
        coords=kept,
        footprint=round(patch.side),
        pixels=patch.pixels,
        mpp=patch.mpp,
        overlap=round(config.overlap * patch.side),
        slide_size=slide.size,
        slide_mpp=slide.mpp_or_none,
    )


class _Patch(NamedTuple):
    side: float
    """Level-0 pixels."""
    pixels: int
    """Side once read."""
    mpp: float | None
    """Microns per pixel once read."""


def _patch(slide: Slide, config: GridConfig) -> _Patch:
    if config.patch_px and slide.mpp_or_none is None:
        logger.warning(
            "%s: no resolution known; patches of %d px are read pixel by pixel, not at %g mpp",
            slide.path.name,
            config.patch_px,
            config.mpp,
        )
        return _Patch(float(config.patch_px), config.patch_px, None)
    side = float(config.patch_px) if config.patch_px else config.patch_um / slide.mpp
    pixels = round(side * slide.mpp / config.mpp)
    if side < 1 or pixels < 1:
        raise ConfigError(
            f"{slide.path.name}: a patch would be {side:.2f} level-0 px, read as {pixels} px;"
            f" patch_um and mpp are in microns: {config}"
        )
    return _Patch(side, pixels, config.mpp)


def _corners(bounds: Box, side: float, overlap: float) -> NDArray[np.float64]:
    """Top left corners ``(N, 2)`` of patches that cover the bounds, row by row."""
    step = side * (1 - overlap)
    # Rounded first: 3.0000000001 columns are three.
    columns, rows = (
        max(1, math.ceil(round((length - overlap * side) / step, 6)))
        for length in (bounds.width, bounds.height)
    )
    if columns * rows > MOST_PATCHES:
        raise ConfigError(
            f"{columns} x {rows} patches of {side:.1f} level-0 px are more than {MOST_PATCHES:,};"
            " is patch_um in microns, and is overlap a share?"
        )
    y, x = np.meshgrid(np.arange(rows) * step, np.arange(columns) * step, indexing="ij")
    return np.stack((x.ravel() + bounds.x, y.ravel() + bounds.y), axis=1)


def _advice(slide: Slide, tissue: Tissue, config: GridConfig, most: float) -> str:
    """Why there are no patches, and what to do."""
    share = float(tissue.mask.mean())
    if share == 0 and not tissue.coloured:
        return (
            f"{slide.path.name}: no tissue found: it is blank, or scanned without colour, by which"
            " tissue is told from glass; scan it in colour"
        )
    if share == 0:
        return (
            f"{slide.path.name}: no tissue found; look at the slide: if it is not blank, lower"
            " min_saturation (pale tissue) or min_area_um2 (small pieces) of TissueConfig"
            " (--set tissue.min_saturation=5 for xpath segment)"
        )
    return (
        f"{slide.path.name}: {share:.1%} of the slide is tissue, but no patch holds"
        f" {config.min_tissue:.0%} (the best {most:.0%}); lower min_tissue or the patch size"
    )

"""Tissue and patches exactly as CLAM finds them (Lu et al. 2021), for comparison and re-use.

Written from CLAM's documented behaviour, its quirks included: the level's downsample is truncated
to an integer where patches are laid out, and ``four_pt`` accepts a patch if any one of its four
test points is tissue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.errors import ConfigError, EmptyTissueError
from xpath.geometry import PatchGrid
from xpath.wsi.clam_contours import (
    CONTOUR_TESTS,
    ClamPreset,
    find_tissue_contours,
    in_hole,
    size_ratio,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.wsi.clam_contours import TissueContour
    from xpath.wsi.slide import Slide

__all__ = ["CLAM_PRESETS", "clam_grid", "grid_from_preset"]


CLAM_PRESETS = {
    "default": ClamPreset(),
    "tcga": ClamPreset(a_t=16, a_h=4),
    "bwh_biopsy": ClamPreset(sthresh=15, mthresh=11, close=2, a_t=1, a_h=1, max_n_holes=2),
    "bwh_resection": ClamPreset(sthresh=15, mthresh=11, close=4, a_t=100, a_h=16),
}
"""CLAM's preset files, by their names."""


def grid_from_preset(
    slide: Slide,
    preset: str,
    *,
    patch_size: int = 256,
    step_size: int | None = None,
    patch_level: int = 0,
) -> PatchGrid:
    """A grid by the name of a preset, such as ``clam:bwh_biopsy`` (see ``clam_grid``).

    Raises:
        ConfigError: No such preset.
    """
    family, _, name = preset.partition(":")
    if family != "clam":
        raise _unknown(preset)
    return clam_grid(
        slide, name, patch_size=patch_size, step_size=step_size, patch_level=patch_level
    )


def clam_grid(
    slide: Slide,
    preset: str | ClamPreset = "bwh_biopsy",
    *,
    patch_size: int = 256,
    step_size: int | None = None,
    patch_level: int = 0,
) -> PatchGrid:
    """CLAM's patches: contour by contour, then column by column.

    Args:
        slide: Open slide; its resolution is not asked for.
        preset: Parameters of the segmentation, or their name in ``CLAM_PRESETS``.
        patch_size: Side in pixels of ``patch_level``.
        step_size: Distance of neighbours in pixels of ``patch_level``; by default the side.
        patch_level: Level of the pyramid that patches are read from.

    Raises:
        ConfigError: No such preset or level, or sizes that cannot be.
        SlideError: The level CLAM segments is too large, as for CLAM, or cannot be read.
        EmptyTissueError: No patch was found.
    """
    preset = _preset(preset)
    step = patch_size if step_size is None else step_size
    if patch_size < 1 or step < 1:
        raise ConfigError(f"patch_size and step_size must be positive, got {patch_size}, {step}")
    if not 0 <= patch_level < len(slide.levels):
        raise ConfigError(
            f"{slide.path.name} has levels 0 to {len(slide.levels) - 1}, got {patch_level=}"
        )
    scale = size_ratio(slide, patch_level)
    layout = _Layout(slide, preset, patch_size, step, int(scale[0]), int(scale[1]))
    corners = [layout.patches(tissue) for tissue in find_tissue_contours(slide, preset)]
    coords = np.concatenate([np.empty((0, 2), np.int64), *corners])
    if not len(coords):
        raise EmptyTissueError(
            f"{slide.path.name}: CLAM's segmentation finds no patch with {preset}; try another"
            " preset, a smaller a_t, or a grid without preset"
        )
    footprint = round(patch_size * scale[0])  # what is read: here CLAM does not truncate
    return PatchGrid(
        coords=coords,
        footprint=footprint,
        pixels=patch_size,
        mpp=None if slide.mpp_or_none is None else slide.mpp * scale[0],
        overlap=max(0, footprint - step * int(scale[0])),
        slide_size=slide.size,
        slide_mpp=slide.mpp_or_none,
    )


class _Layout(NamedTuple):
    """How patches are laid over a tissue contour."""

    slide: Slide
    preset: ClamPreset
    patch: int
    """Side in pixels of the patch level."""
    step: int
    """Likewise."""
    across: int
    """Level-0 pixels per pixel of the patch level, truncated."""
    down: int

    def patches(self, tissue: TissueContour) -> NDArray[np.int64]:
        """Corners ``(N, 2)`` of the patches on a tissue contour, column by column."""
        import cv2

        left, top, width, height = cv2.boundingRect(tissue.contour)
        right, bottom = left + width, top + height
        if not self.preset.use_padding:
            right = min(right, self.slide.size.width - self.patch * self.across + 1)
            bottom = min(bottom, self.slide.size.height - self.patch * self.down + 1)
        x, y = np.meshgrid(
            np.arange(left, right, self.step * self.across),
            np.arange(top, bottom, self.step * self.down),
            indexing="ij",
        )
        corners = np.stack((x.ravel(), y.ravel()), axis=1).astype(np.int64)
        kept = [self._holds(tissue, x, y) for x, y in corners.tolist()]
        return np.asarray(corners[np.array(kept, bool)], np.int64)

    def _holds(self, tissue: TissueContour, x: int, y: int) -> bool:
        """The points asked for are in the contour, and the centre is in no hole."""
        side = self.patch * self.across
        if not CONTOUR_TESTS[self.preset.contour_fn](tissue.contour, x, y, side):
            return False
        return not in_hole(tissue, x + side / 2, y + side / 2)


def _preset(preset: str | ClamPreset) -> ClamPreset:
    if isinstance(preset, ClamPreset):
        return preset
    if preset not in CLAM_PRESETS:
        raise _unknown(f"clam:{preset}")
    return CLAM_PRESETS[preset]


def _unknown(preset: str) -> ConfigError:
    known = ", ".join(f"clam:{name}" for name in CLAM_PRESETS)
    return ConfigError(f"no preset {preset!r}; known are {known}")

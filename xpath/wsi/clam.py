"""Tissue and patches exactly as CLAM finds them (Lu et al. 2021), for comparison and re-use.

Written from CLAM's documented behaviour, its quirks included: the level's downsample is truncated
to an integer, and ``four_pt`` accepts a patch if any one of its four test points is tissue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpath.errors import ConfigError, EmptyTissueError
from xpath.geometry import Box, PatchGrid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.wsi.slide import Slide

__all__ = ["CLAM_PRESETS", "ClamPreset", "clam_grid", "grid_from_preset"]

Contour = Any  # an int32 array (points, 1, 2), as OpenCV has it

REFERENCE_PATCH = 512
SEGMENTATION_DOWNSAMPLE = 64
CENTER_SHIFT = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class ClamPreset:
    """CLAM's parameters under CLAM's names."""

    sthresh: int = 8
    """Saturation above which a pixel is tissue."""
    mthresh: int = 7
    """Side of the median filter."""
    close: int = 4
    """Side of the closing kernel."""
    use_otsu: bool = False
    """Otsu's threshold instead of ``sthresh``."""
    a_t: int = 100
    """Smallest tissue, in patches of 512 by 512 level-0 pixels."""
    a_h: int = 16
    """Smallest hole, likewise."""
    max_n_holes: int = 8
    """Holes kept per piece of tissue, largest first."""


CLAM_PRESETS = {
    "default": ClamPreset(),
    "tcga": ClamPreset(a_t=16, a_h=4),
    "bwh_biopsy": ClamPreset(sthresh=15, mthresh=11, close=2, a_t=1, a_h=1, max_n_holes=2),
    "bwh_resection": ClamPreset(sthresh=15, mthresh=11, close=4, a_t=100, a_h=16),
}


class Piece(NamedTuple):
    """A contour of tissue and the holes in it, in level-0 pixels."""

    contour: Contour
    holes: list[Contour]


def grid_from_preset(
    slide: Slide, preset: str, *, patch_size: int = 256, step_size: int | None = None
) -> PatchGrid:
    """A grid by the name of a preset, such as ``clam:bwh_biopsy``.

    Raises:
        ConfigError: No such preset.
    """
    family, _, name = preset.partition(":")
    if family != "clam" or name not in CLAM_PRESETS:
        known = ", ".join(f"clam:{name}" for name in CLAM_PRESETS)
        raise ConfigError(f"no preset {preset!r}; known are {known}")
    return clam_grid(slide, CLAM_PRESETS[name], patch_size=patch_size, step_size=step_size)


def clam_grid(
    slide: Slide, preset: ClamPreset, *, patch_size: int = 256, step_size: int | None = None
) -> PatchGrid:
    """CLAM's patches at level 0: contour by contour, then column by column.

    Args:
        slide: Open slide; its resolution is not asked for.
        preset: Parameters of the tissue segmentation.
        patch_size: Side in level-0 pixels.
        step_size: Distance of neighbours; by default the side.

    Raises:
        EmptyTissueError: No patch was found.
    """
    step = patch_size if step_size is None else step_size
    if patch_size < 1 or step < 1:
        raise ConfigError(f"patch_size and step_size must be positive, got {patch_size}, {step}")
    parts = [_patches_in(piece, patch_size, step) for piece in find_pieces(slide, preset)]
    coords = np.concatenate([np.empty((0, 2), np.int64), *parts])
    if not len(coords):
        raise EmptyTissueError(
            f"{slide.path.name}: CLAM's segmentation finds no patch with {preset}; try another"
            " preset, a smaller a_t, or no preset"
        )
    return PatchGrid(
        coords=coords,
        footprint=patch_size,
        pixels=patch_size,
        mpp=slide.mpp_or_none,
        overlap=max(0, patch_size - step),
        slide_size=slide.size,
        slide_mpp=slide.mpp_or_none,
    )


def find_pieces(slide: Slide, preset: ClamPreset) -> list[Piece]:
    """The tissue contours CLAM finds."""
    import cv2

    level = slide.levels[slide.best_level(SEGMENTATION_DOWNSAMPLE)]
    scale = (slide.size.width / level.size.width, slide.size.height / level.size.height)
    image = slide.read(Box(0, 0, slide.size.width, slide.size.height), level.size)
    contours, hierarchy = cv2.findContours(
        _tissue(image, preset), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
    )
    if not contours:
        return []
    parents = hierarchy[0][:, 3]
    unit = int(REFERENCE_PATCH**2 / (scale[0] * scale[1]))
    pieces = []
    for index in np.flatnonzero(parents == -1).tolist():
        holes = [contours[hole] for hole in np.flatnonzero(parents == index).tolist()]
        area = cv2.contourArea(contours[index]) - sum(cv2.contourArea(hole) for hole in holes)
        if area > 0 and area > preset.a_t * unit:
            kept = _largest(holes, preset.max_n_holes, preset.a_h * unit)
            pieces.append(
                Piece(_scaled(contours[index], scale), [_scaled(hole, scale) for hole in kept])
            )
    return pieces


def _tissue(image: NDArray[np.uint8], preset: ClamPreset) -> NDArray[np.uint8]:
    import cv2

    saturation = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1]
    smooth = cv2.medianBlur(np.ascontiguousarray(saturation), preset.mthresh)
    method = cv2.THRESH_OTSU + cv2.THRESH_BINARY if preset.use_otsu else cv2.THRESH_BINARY
    _, mask = cv2.threshold(smooth, 0 if preset.use_otsu else preset.sthresh, 255, method)
    if preset.close > 0:
        kernel = np.ones((preset.close, preset.close), np.uint8)
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel)
    return np.asarray(mask, np.uint8)


def _largest(holes: list[Contour], count: int, smallest: float) -> list[Contour]:
    import cv2

    ranked = sorted(holes, key=cv2.contourArea, reverse=True)[:count]
    return [hole for hole in ranked if cv2.contourArea(hole) > smallest]


def _scaled(contour: Contour, scale: tuple[float, float]) -> Contour:
    return np.array(contour * np.array(scale), dtype=np.int32)


def _patches_in(piece: Piece, patch: int, step: int) -> NDArray[np.int64]:
    import cv2

    left, top, width, height = cv2.boundingRect(piece.contour)
    x, y = np.meshgrid(
        np.arange(left, left + width, step), np.arange(top, top + height, step), indexing="ij"
    )
    corners = np.stack((x.ravel(), y.ravel()), axis=1).astype(np.int64)
    kept = [_is_tissue(piece, corner, patch) for corner in corners]
    return np.asarray(corners[np.array(kept, bool)])


def _is_tissue(piece: Piece, corner: NDArray[np.int64], patch: int) -> bool:
    """Any of four points around the centre in the contour, and the centre in no hole."""
    import cv2

    x, y = (float(value) for value in corner + patch // 2)
    shift = int(patch // 2 * CENTER_SHIFT)
    points = [(x + i * shift, y + j * shift) for i in (-1, 1) for j in (-1, 1)]
    if not any(
        cv2.pointPolygonTest(piece.contour, point, measureDist=False) >= 0 for point in points
    ):
        return False
    centre = (float(corner[0] + patch / 2), float(corner[1] + patch / 2))
    return not any(
        cv2.pointPolygonTest(hole, centre, measureDist=False) > 0 for hole in piece.holes
    )

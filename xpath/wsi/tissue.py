"""Where on the slide there is tissue.

Axes: h w pixels of the overview.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError
from xpath.geometry import Size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.geometry import Box
    from xpath.wsi.slide import Slide

__all__ = ["Tissue", "TissueConfig", "find_tissue"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TissueConfig:
    """How tissue is told from glass."""

    mpp: float = 8.0
    """Resolution of the overview in microns per pixel: a nucleus is one pixel."""
    downsample: float = 32.0
    """Instead of ``mpp`` where the slide stores no resolution."""
    min_saturation: int = 12
    """Tissue is at least this much more colourful than glass, 0..255. Otsu's threshold always
    finds two classes, even on an empty slide."""
    ink: int = 40
    """Brightness below which a pixel is ink or the scanner's black frame, 0..255."""
    close_um: float = 40.0
    """Gaps narrower than this are closed."""
    min_area_um2: float = 40_000.0
    """Smaller pieces are dust; 200 by 200 microns."""
    max_hole_um2: float = 40_000.0
    """Smaller holes are filled."""

    def __post_init__(self) -> None:
        """Refuses impossible numbers."""
        if min(self.mpp, self.downsample) <= 0:
            raise ConfigError(f"mpp and downsample must be positive, got {self}")


@dataclass(frozen=True, slots=True)
class Tissue:
    """A mask of the whole slide at low resolution."""

    mask: NDArray[np.bool_]
    """``(h, w)``."""
    downsample: tuple[float, float]
    """Level-0 pixels per pixel of the mask, across and down."""

    def integral(self) -> NDArray[np.float64]:
        """Sums of the mask above and to the left, ``(h + 1, w + 1)``, for fast shares."""
        table = np.zeros((self.mask.shape[0] + 1, self.mask.shape[1] + 1))
        table[1:, 1:] = self.mask.cumsum(axis=0).cumsum(axis=1)
        return table

    def share(self, box: Box) -> float:
        """Share of a box that is tissue, 0 to 1; outside the slide there is none."""
        sides = np.array([[box.x, box.y, box.right, box.bottom]], float)
        return float(shares(self, sides)[0])


def shares(tissue: Tissue, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tissue share of many boxes ``(N, 4)``: left, top, right, bottom in level-0 pixels.

    Exact also where box edges cut through pixels of the mask: the integral is interpolated.
    """
    table = tissue.integral()
    height, width = tissue.mask.shape
    scale_x, scale_y = tissue.downsample

    def at(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        x, y = np.clip(x / scale_x, 0, width), np.clip(y / scale_y, 0, height)
        left = np.minimum(x.astype(int), width - 1)
        top = np.minimum(y.astype(int), height - 1)
        fx, fy = x - left, y - top
        upper = table[top, left] * (1 - fx) + table[top, left + 1] * fx
        lower = table[top + 1, left] * (1 - fx) + table[top + 1, left + 1] * fx
        return np.asarray(upper * (1 - fy) + lower * fy)

    left, top, right, bottom = boxes.T
    inside = at(right, bottom) - at(left, bottom) - at(right, top) + at(left, top)
    area = (right - left) * (bottom - top) / (scale_x * scale_y)
    return np.asarray(inside / area)


def find_tissue(slide: Slide, config: TissueConfig | None = None) -> Tissue:
    """Tissue by colour: saturation above Otsu's threshold, cleaned of dust and pinholes.

    A slide without tissue gives an empty mask, not an error.
    """
    config = config or TissueConfig()
    mpp = slide.mpp_or_none
    scale = config.downsample if mpp is None else config.mpp / mpp
    scale = max(1.0, min(scale, max(slide.size.width, slide.size.height) / 64))
    size = Size(max(1, round(slide.size.width / scale)), max(1, round(slide.size.height / scale)))
    overview = slide.thumbnail(max(size.width, size.height))
    downsample = (slide.size.width / overview.shape[1], slide.size.height / overview.shape[0])
    pixel_um = config.mpp if mpp is None else downsample[0] * mpp
    return Tissue(_clean(_colourful(overview, config), pixel_um, config), downsample)


def _colourful(overview: NDArray[np.uint8], config: TissueConfig) -> NDArray[np.bool_]:
    import cv2

    hsv = cv2.cvtColor(overview, cv2.COLOR_RGB2HSV)
    saturation = cv2.medianBlur(np.ascontiguousarray(hsv[..., 1]), 5)
    threshold, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    glass = float(np.percentile(saturation, 5))
    if glass > 60:  # no glass in sight: everything is tissue
        threshold, glass = 0.0, 0.0
    threshold = min(max(threshold, glass + config.min_saturation), glass + 60)
    return (saturation > threshold) & (hsv[..., 2] >= config.ink)


def _clean(mask: NDArray[np.bool_], pixel_um: float, config: TissueConfig) -> NDArray[np.bool_]:
    import cv2
    from skimage.morphology import remove_small_holes, remove_small_objects

    side = max(1, round(config.close_um / pixel_um))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel).astype(bool)
    smallest = int(config.min_area_um2 / pixel_um**2)
    largest_hole = int(config.max_hole_um2 / pixel_um**2)
    if smallest > 1:
        closed = remove_small_objects(closed, max_size=smallest - 1)
    if largest_hole > 1:
        closed = remove_small_holes(closed, max_size=largest_hole - 1)
    return np.asarray(closed, bool)

"""Where on the slide there is tissue.

Axes: h w pixels of the overview.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xpath.errors import ConfigError
from xpath.wsi.artefacts import find_pen, find_shadows, without_lines

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.geometry import Box
    from xpath.wsi.slide import Slide

__all__ = ["Tissue", "TissueConfig", "find_tissue", "shares"]

SMALLEST_OVERVIEW = 64
"""Pixels along the longer side of the overview, at least: small slides would vanish."""
GLASS_BRIGHTNESS = 200
"""Glass has at least this much red, green and blue, 0..255."""
GLASS_TINT = 30.0
"""Glass is never more saturated than this, 0..255."""
SMALLEST_GLASS = 0.005
"""Share of the overview that must look like glass to be measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TissueConfig:
    """Settings that separate tissue from glass."""

    mpp: float = 8.0
    """Resolution of the overview in microns per pixel: a nucleus is one pixel."""
    downsample: float = 32.0
    """Instead of ``mpp`` where the slide stores no resolution."""
    min_saturation: int = 10
    """Tissue is at least this much more colourful than glass, 0..255. Otsu's threshold always
    finds two classes, even on an empty slide."""
    max_saturation: int = 20
    """Pixels this much more colourful than glass are tissue, 0..255. On a slide of dark and pale
    tissue Otsu's threshold falls between the two; it is then sought again among the paler pixels,
    until it is no higher than this."""
    ink: int = 40
    """Brightness below which a pixel is black ink or the scanner's frame, 0..255."""
    exclude_pen: bool = False
    """Leave out strokes of pen in any colour but pale violet. Else coloured pen is tissue."""
    exclude_glass: bool = False
    """Leave out bubbles and edges of glass: what is grey, or a line thinner than 40 microns. On
    slides whose tissue is nearly grey, as some counterstains are, leave it off."""
    close_um: float = 40.0
    """Gaps narrower than this are closed."""
    min_area_um2: float = 40_000.0
    """Smaller components are dust: 200 by 200 microns."""
    max_hole_um2: float = 40_000.0
    """Smaller holes are filled."""

    def __post_init__(self) -> None:
        """Refuses impossible numbers."""
        if min(self.mpp, self.downsample) <= 0:
            raise ConfigError(f"mpp and downsample must be positive, got {self}")
        if not 0 <= self.min_saturation <= self.max_saturation:
            raise ConfigError(f"wanted 0 <= min_saturation <= max_saturation, got {self}")
        if min(self.close_um, self.min_area_um2, self.max_hole_um2) < 0:
            raise ConfigError(f"close_um, min_area_um2, max_hole_um2 are not negative, got {self}")


@dataclass(frozen=True, slots=True)
class Tissue:
    """A mask of the whole slide at low resolution."""

    mask: NDArray[np.bool_]
    """``(h, w)``."""
    downsample: tuple[float, float]
    """Level-0 pixels per pixel of the mask, across and down."""
    coloured: bool = True
    """Whether the slide has any colour. Without, no tissue can be found."""

    def integral(self) -> NDArray[np.int32]:
        """Sums of the mask above and to the left, ``(h + 1, w + 1)``, for fast shares."""
        import cv2

        return np.asarray(cv2.integral(self.mask.view(np.uint8)), np.int32)

    def share(self, box: Box) -> float:
        """Share of a box that is tissue, 0 to 1. Outside the slide there is none.

        For many boxes ``shares`` is faster.
        """
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
    """Tissue by colour: more saturated than glass, cleaned of dust and pinholes.

    A slide without tissue gives an empty mask, not an error.

    Raises:
        SlideError: The slide cannot be read.
    """
    config = config or TissueConfig()
    longest = max(slide.size.width, slide.size.height)
    mpp = slide.mpp_or_none
    if mpp is None:  # then the usual downsample is taken to be the usual resolution
        mpp = config.mpp / config.downsample
    side = min(max(round(longest * mpp / config.mpp), SMALLEST_OVERVIEW), longest)
    overview = slide.thumbnail(side)
    downsample = (slide.size.width / overview.shape[1], slide.size.height / overview.shape[0])
    pixel_um = mpp * float(np.sqrt(downsample[0] * downsample[1]))
    coloured = bool((overview.max(axis=2) - overview.min(axis=2)).any())
    mask = _colourful(_without_artefacts(overview, pixel_um, config), config)
    del overview  # of a large slide, hundreds of megabytes
    if config.exclude_glass:
        mask = without_lines(mask, pixel_um)
    return Tissue(_clean(mask, pixel_um, config), downsample, coloured)


def _without_artefacts(
    overview: NDArray[np.uint8], pixel_um: float, config: TissueConfig
) -> NDArray[np.uint8]:
    """The overview ``(h, w, 3)``, white where what is to be left out was."""
    if not (config.exclude_pen or config.exclude_glass):
        return overview
    left_out = np.zeros(overview.shape[:2], bool)
    if config.exclude_pen:
        left_out |= find_pen(overview, pixel_um)
    if config.exclude_glass:
        left_out |= find_shadows(overview)
    return np.where(left_out[..., None], np.uint8(255), overview)


def _colourful(overview: NDArray[np.uint8], config: TissueConfig) -> NDArray[np.bool_]:
    """Pixels ``(h, w)`` more saturated than glass: Otsu's threshold within guard rails."""
    import cv2

    hsv = cv2.cvtColor(overview, cv2.COLOR_RGB2HSV)
    light = hsv[..., 2] >= config.ink
    if not light.any():
        return light
    # The saturation of nearly black pixels is noise.
    smooth = cv2.medianBlur(np.where(light, hsv[..., 1], np.uint8(0)), 5)
    del hsv
    saturation = np.asarray(smooth, np.uint8)
    glass = _glass(overview, saturation)
    lowest, highest = glass + config.min_saturation, glass + config.max_saturation
    threshold = np.clip(_palest_otsu(saturation[light], highest), lowest, highest)
    return np.asarray((saturation > threshold) & light, bool)


def _palest_otsu(saturation: NDArray[np.uint8], highest: float) -> float:
    """Otsu's threshold, again among the paler pixels as long as it is above ``highest``.

    The first falls between dark and pale tissue where there is much of both; the pale one, mucus,
    fat or goblet cells, would be lost. OpenCV puts it at the top of the paler class, which may be
    pale tissue itself; halfway between the means of both classes is where it belongs (Otsu 1979).
    """
    import cv2

    while True:
        otsu, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        paler, richer = saturation[saturation <= otsu], saturation[saturation > otsu]
        if not (paler.size and richer.size):
            return float(otsu)
        halfway = (float(paler.mean()) + float(richer.mean())) / 2
        if halfway <= highest:
            return halfway
        saturation = paler


def _glass(overview: NDArray[np.uint8], saturation: NDArray[np.uint8]) -> float:
    """Saturation of empty glass, which may be tinted, or 0 where there is none in sight."""
    darkest = overview.min(axis=2)
    padding = darkest == 255  # pure white was never under the microscope
    glass = saturation[(darkest >= GLASS_BRIGHTNESS) & ~padding]
    if glass.size < padding.size * SMALLEST_GLASS:
        return 0.0
    return min(
        float(np.percentile(glass, 25, overwrite_input=True)), GLASS_TINT
    )  # pale tissue may be among it


def _clean(mask: NDArray[np.bool_], pixel_um: float, config: TissueConfig) -> NDArray[np.bool_]:
    """Closes gaps, removes small components and fills small holes."""
    import cv2

    side = max(1, round(config.close_um / pixel_um))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, kernel).astype(bool)
    large = _without_small(closed, config.min_area_um2 / pixel_um**2, 8)
    return ~_without_small(~large, config.max_hole_um2 / pixel_um**2, 4)


def _without_small(mask: NDArray[np.bool_], smallest: float, neighbours: int) -> NDArray[np.bool_]:
    """A mask without its connected components of fewer than ``smallest`` pixels."""
    import cv2

    _, components, table, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=neighbours
    )
    kept = table[:, cv2.CC_STAT_AREA] >= smallest
    kept[0] = False  # what is not in the mask
    return np.asarray(kept[components], bool)

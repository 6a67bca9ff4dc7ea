"""Where the pixels of a level lie on level 0, to a part of a pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpath.geometry import Box, Size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xpath.wsi.resample import Span

__all__ = ["Level", "Scale", "Stretch", "continued", "inside_of", "scale_of", "span_of"]

EDGE_TOLERANCE = 1e-6
"""Level-0 pixels by which the edge of a read may miss whole pixels of a level and counts as them:
rounding errors of the numbers."""


class Level(NamedTuple):
    """One picture of the pyramid."""

    downsample: float
    """Level-0 pixels per pixel of this level as the reader has it: a mean of both axes."""
    size: Size


class Scale(NamedTuple):
    """Level-0 pixels per pixel of a level."""

    x: float
    """Across."""
    y: float
    """Down."""


class Stretch(NamedTuple):
    """Pixels of a level along one axis."""

    first: int
    pixels: int
    begin: float
    """Position in the level at which the first really begins, see ``Reader.shift``."""


def scale_of(level: Size, full: Size) -> Scale:
    """How much a level is smaller than level 0, from their sizes.

    Scanners halve again and again and cut off what is left over, or add to it: then each pixel is
    an average of a whole number of pixels, and the ratio of the sizes is a little off, which adds
    up to many pixels at the far border. Otherwise the level is taken for a picture of the whole.
    """
    ratios = full.width / level.width, full.height / level.height
    whole = round(math.sqrt(ratios[0] * ratios[1]))
    cut = _rest(full.width, level.width, whole), _rest(full.height, level.height, whole)
    if all(0 <= rest < whole for rest in cut):
        return Scale(whole, whole)
    if _is_power_of_two(whole) and all(-whole < rest < whole for rest in cut):
        return Scale(whole, whole)
    return Scale(*ratios)


def _rest(full: int, pixels: int, whole: int) -> int:
    """Level-0 pixels that a level leaves out, negative for those it adds."""
    return full - pixels * whole


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


def span_of(start: float, length: float, scale: float) -> Span:
    """A stretch of level 0 in pixels of a level, in whole numbers if it misses them by a hair.

    Args:
        start: In level-0 pixels.
        length: Likewise.
        scale: Level-0 pixels per pixel of the level.
    """
    first, last = start / scale, (start + length) / scale
    whole = round(first), max(round(first) + 1, round(last))
    off = max(abs(whole[0] - first), abs(whole[1] - last)) * scale
    return whole if off <= EDGE_TOLERANCE else (first, last)


def inside_of(region: Box, size: Size) -> Box:
    """The part of a region inside a level, or the nearest pixel where that would be empty."""
    left, right = _clipped(region.x, region.right, size.width)
    top, bottom = _clipped(region.y, region.bottom, size.height)
    return Box(left, top, right - left, bottom - top)


def _clipped(first: int, last: int, length: int) -> tuple[int, int]:
    low = min(max(first, 0), length - 1)
    return low, max(min(last, length), low + 1)


def continued(
    stretch: Stretch, stored: int, length: float
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Stored pixels for a stretch that reaches beyond them, and how far each pixel is slide.

    Args:
        stretch: Pixels along one axis.
        stored: Pixels the level has.
        length: Pixels it would have, had nothing been cut off.
    """
    wanted = np.arange(stretch.first, stretch.first + stretch.pixels)
    end = max(length, stored) + stretch.first - stretch.begin
    share = np.where(wanted < 0, 0.0, np.clip(end - wanted, 0.0, 1.0))
    return wanted.clip(0, stored - 1), share

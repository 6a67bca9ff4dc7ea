"""Where the pixels of a level lie on level 0, to a part of a pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from xpath.geometry import Size

__all__ = ["Level", "Scale", "scale_of"]


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

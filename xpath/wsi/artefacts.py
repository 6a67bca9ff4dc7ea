"""Pen, bubbles and edges of glass: coloured or dark, but no stained tissue.

Told by what they absorb. Haematoxylin and eosin absorb green most, and blue least or hardly more
than red (Ruifrok and Johnston 2001); brown DAB absorbs blue most, red least. Pens absorb otherwise
or far more, and the shadows at glass and air take the same share of all colours.

Axes: h w pixels of the overview.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["find_pen", "find_shadows", "without_lines"]

GLASS = 244.0
"""Usual brightness of bare glass, 0..255."""
STROKE_UM = 24.0
"""Thinner ink is no stroke, and single dark nuclei are none either."""
RIM_UM = 48.0
"""Pale ink around a stroke, which goes with it."""
LINE_UM = 40.0
"""Width of the edge of a glass at most."""


def find_pen(overview: NDArray[np.uint8], pixel_um: float) -> NDArray[np.bool_]:
    """Strokes of pen ``(h, w)``, with their pale rims.

    Blue, green, black, and what is brighter than blood in red, orange and yellow. A violet pen that
    is as pale as tissue is not told from it.

    Args:
        overview: ``(h, w, 3)`` RGB.
        pixel_um: Side of a pixel in microns.
    """
    import cv2

    red, green, blue = _densities(overview)
    cool = (red > 1.25 * green) & (red > green + 0.2)
    warm = (green > 1.5) & (blue > 0.6 * green) & (red < 0.3 * green)
    yellow = (blue > 0.6) & (blue > 1.6 * green) & (red < 0.3 * green + 0.1)
    dark = np.minimum(red, green) > 1.5
    least, most = _extremes(red, green, blue)
    black = (least > 0.9) & (least > 0.7 * most)
    ink = (cool | warm | yellow | dark | black).astype(np.uint8)
    strokes = cv2.morphologyEx(ink, cv2.MORPH_OPEN, _disc(STROKE_UM, pixel_um))
    return np.asarray(cv2.dilate(strokes, _disc(2 * RIM_UM, pixel_um)), bool)


def find_shadows(overview: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Grey pixels ``(h, w)``: the rims of bubbles, the edges of glass, dirt. No stain is grey."""
    least, most = _extremes(*_densities(overview))
    return np.asarray((most > 0.12) & (least > 0.75 * most), bool)


def without_lines(mask: NDArray[np.bool_], pixel_um: float) -> NDArray[np.bool_]:
    """A mask ``(h, w)`` without the components that are lines: nowhere wider than 40 microns."""
    import cv2

    pixels = mask.astype(np.uint8)
    wide = cv2.morphologyEx(pixels, cv2.MORPH_OPEN, _disc(LINE_UM, pixel_um))
    _, components = cv2.connectedComponents(pixels, connectivity=8)
    kept = np.unique(components[wide > 0])
    return np.asarray(mask & np.isin(components, kept), bool)


def _densities(overview: NDArray[np.uint8]) -> tuple[NDArray[np.float32], ...]:
    """Optical densities of red, green and blue, ``(h, w)`` each, 0 for glass."""
    light = overview.astype(np.float32) + 1
    density = np.log(np.float32(GLASS + 1) / light).clip(0)
    return density[..., 0], density[..., 1], density[..., 2]


def _extremes(*densities: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest of the three densities."""
    return np.minimum.reduce(densities), np.maximum.reduce(densities)


def _disc(diameter_um: float, pixel_um: float) -> NDArray[np.uint8]:
    import cv2

    side = max(1, round(diameter_um / pixel_um)) | 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)

"""How large a pixel is: what a slide stores, in whatever unit, and whether it can be.

OME-XML: https://docs.openmicroscopy.org/ome-model, ``UnitsLength``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xpath.geometry import Size

__all__ = ["SANE_MPP", "PixelSize", "contradiction", "is_sane", "stored_mpp", "stored_objective"]

SANE_MPP = (0.02, 20.0)
"""Microns per pixel that a microscope may have."""
OBJECTIVE_TIMES_MPP = (7.0, 15.0)
"""A 40x objective gives about 0.25 microns per pixel, a 20x one 0.5: their product is near 10."""
MICRON = "\u00b5m"
"""With the micro sign, as OME writes it. Others take the Greek letter, or a u."""
MICRONS = {
    "km": 1e9,
    "m": 1e6,
    "dm": 1e5,
    "cm": 1e4,
    "mm": 1e3,
    MICRON: 1.0,
    "\u03bcm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "fm": 1e-9,
    "Å": 1e-4,
    "thou": 25.4,
    "mil": 25.4,
    "li": 25_400 / 12,
    "in": 25_400.0,
    "inch": 25_400.0,
    "ft": 304_800.0,
    "pt": 25_400 / 72,
}
"""Units of length in OME-XML, and as other programs write them there, in microns."""


class PixelSize(NamedTuple):
    """Microns per pixel, across and down."""

    x: float
    y: float


def stored_mpp(properties: Mapping[str, str], size: Size) -> PixelSize | None:
    """Microns per pixel of level 0 as the file stores them, sane or not, or None.

    An OME-TIFF's own PhysicalSize goes first: its TIFF tags are often those of a screen.

    Args:
        properties: By OpenSlide's names.
        size: Level 0 in pixels; tells the slide from other images in OME-XML.
    """
    ome = _ome_pixels(properties, size)
    if ome is not None:
        lengths = [_microns(ome, axis) for axis in "XY"]
        if all(map(is_sane, lengths)):
            return PixelSize(*lengths)
    try:
        return PixelSize(*(float(properties[f"openslide.mpp-{axis}"]) for axis in "xy"))
    except (KeyError, ValueError):
        return None


def stored_objective(properties: Mapping[str, str]) -> float | None:
    """Objective power a slide was scanned with, None where it is not stored."""
    try:
        return float(properties["openslide.objective-power"].lower().removesuffix("x"))
    except (KeyError, ValueError):
        pass
    root = _ome(properties)
    elements = [] if root is None else [each for each in root.iter() if _tag(each) == "Objective"]
    powers = {_number(element.get("NominalMagnification")) for element in elements}
    known = {power for power in powers if power > 0}
    return known.pop() if len(known) == 1 else None


def contradiction(mpp: float | None, objective: float | None) -> str:
    """A sentence if a resolution does not go with an objective, else an empty text.

    Not an error: some 20x scanners have 0.23 microns per pixel.
    """
    if mpp is None or objective is None or not objective > 0:
        return ""
    low, high = OBJECTIVE_TIMES_MPP
    if low <= mpp * objective <= high:
        return ""
    return (
        f"{mpp:g} microns per pixel do not go with the {objective:g}x objective it was scanned"
        f" with, which gives about {10 / objective:.2g}"
    )


def is_sane(mpp: object) -> bool:
    """True for a resolution that a microscope may have."""
    return isinstance(mpp, int | float | np.floating) and bool(SANE_MPP[0] <= mpp <= SANE_MPP[1])


def _ome_pixels(properties: Mapping[str, str], size: Size) -> ET.Element | None:
    """The ``Pixels`` of the slide in OME-XML: of the image as large as level 0."""
    root = _ome(properties)
    if root is None:
        return None
    wanted = (str(size.width), str(size.height))
    for pixels in root.iter():
        if _tag(pixels) == "Pixels" and (pixels.get("SizeX"), pixels.get("SizeY")) == wanted:
            return pixels
    return None


def _ome(properties: Mapping[str, str]) -> ET.Element | None:
    text = properties.get("tiff.ImageDescription", "")
    if "<OME" not in text:
        return None
    try:
        return ET.fromstring(text.encode())
    except (ET.ParseError, ValueError):  # ValueError: no text that can be encoded
        return None


def _microns(pixels: ET.Element, axis: str) -> float:
    """Length of a pixel along an axis, NaN where it is not stored, or in no unit of length."""
    unit = MICRONS.get(pixels.get(f"PhysicalSize{axis}Unit", MICRON), math.nan)
    return _number(pixels.get(f"PhysicalSize{axis}")) * unit


def _number(text: str | None) -> float:
    try:
        return float((text or "nan").replace(",", "."))
    except ValueError:
        return math.nan


def _tag(element: ET.Element) -> str:
    """Name of an element without its namespace."""
    return element.tag.rpartition("}")[2]

"""Regions drawn or corrected in QuPath, read back as outlines and as masks.

QuPath writes coordinates from the corner of the scanned part, so that corner is added again. A
pixel belongs to a region if its centre does; so masks that were written come back as they were.
Axes: N patches, H W pixels, K corners.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xpath.errors import DataError
from xpath.export.qupath.rules import OBJECT_TYPES, find_problems, load_features

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xpath.geometry import Box, PatchGrid, Size

__all__ = ["Region", "grid_masks", "named", "read_regions", "region_mask"]

Polygon = tuple["NDArray[np.float64]", ...]
LOWER_TYPES = {name.lower(): name for name in OBJECT_TYPES}


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)  # arrays do not compare to one bool
class Region:
    """An object as it stands in the file, in level-0 pixels."""

    type: str
    """``annotation``, ``detection``, ``tile``, ``cell``, ..."""
    label: str
    """Its class; parts of a derived class are joined by ``": "``. Empty if unclassified."""
    polygons: tuple[Polygon, ...]
    """Each closed rings ``(K, 2)`` of x, y: the outline, then holes."""
    id: str = ""
    """Empty where there is none."""
    measurements: Mapping[str, float] = field(default_factory=dict)
    locked: bool = False
    title: str = ""
    """Name given by the person who drew it; empty for none."""
    colour: tuple[int, int, int] | None = None
    """Of the class; None where the file gives none."""

    @property
    def area(self) -> float:
        """Square level-0 pixels, holes left out."""
        return sum(
            abs(_area(rings[0])) - sum(abs(_area(hole)) for hole in rings[1:])
            for rings in self.polygons
        )


def read_regions(path: Path, *, bounds: Box) -> list[Region]:
    """Areas of a GeoJSON file as QuPath writes it, parents before their child objects.

    Points and lines have no area and are left out.

    Args:
        path: ``.geojson`` or ``.json``, also gzipped or zipped.
        bounds: The slide's scanned part (``Slide.bounds``).

    Raises:
        DataError: No GeoJSON, or a broken feature, which the message names.
    """
    return [region for feature in load_features(path) for region in _read(path, feature, bounds)]


def named(regions: Iterable[Region], name: str) -> list[Region]:
    """Regions of a class, or without a class but with that title.

    Case, spaces, ``-``, ``_`` and ``/`` make no difference: a person types names by hand.
    """
    wanted = _plain(name)
    return [region for region in regions if _plain(region.label or region.title) == wanted]


def region_mask(regions: Iterable[Region], box: Box, size: Size) -> NDArray[np.bool_]:
    """Pixels ``(H, W)`` whose centre lies in any of the regions.

    Args:
        regions: In level-0 pixels.
        box: What the mask shows of the slide.
        size: Pixels of the mask.
    """
    canvas = np.zeros((size.height, size.width), np.bool_)
    scale = np.array([size.width / box.width, size.height / box.height])
    for region in regions:
        for rings in region.polygons:
            _fill(canvas, [(ring - (box.x, box.y)) * scale for ring in rings])
    return canvas


def grid_masks(
    regions: Sequence[Region], grid: PatchGrid, size: int
) -> Iterator[NDArray[np.bool_]]:
    """Masks ``(H, W)`` of the regions in every patch of a grid, in order.

    Args:
        regions: In level-0 pixels.
        grid: Patches.
        size: Side of a mask in pixels; it covers its patch from border to border.
    """
    from xpath.geometry import Size as Pixels

    ends = [_extent(region) for region in regions]
    low = np.array([end[0] for end in ends]).reshape(-1, 2)
    high = np.array([end[1] for end in ends]).reshape(-1, 2)
    for box in grid.boxes():
        met = (low < (box.right, box.bottom)) & (high > (box.x, box.y))
        near = [regions[index] for index in np.flatnonzero(met.all(axis=1)).tolist()]
        yield region_mask(near, box, Pixels(size, size))


def _read(path: Path, feature: dict[str, Any], bounds: Box) -> Iterator[Region]:
    broken = [problem.message for problem in find_problems([feature]) if problem.fatal]
    colourless = "classification has the colour"  # QuPath minds; what was drawn is still clear
    broken = [message for message in broken if not message.startswith(colourless)]
    properties = feature.get("properties") or {}
    if broken:
        name = feature.get("id") or properties.get("name")
        raise DataError(f"{path}: feature {name!r} {'; '.join(broken)}; correct or remove it")
    polygons = _polygons(feature["geometry"], bounds)
    if polygons:
        label, colour = _class(properties.get("classification"))
        yield Region(
            id=str(feature.get("id") or ""),
            type=_type(properties),
            label=label,
            polygons=polygons,
            measurements=_measurements(properties.get("measurements")),
            locked=bool(properties.get("isLocked", False)),
            title=str(properties.get("name") or ""),
            colour=colour,
        )
    for child in properties.get("childObjects") or ():
        yield from _read(path, child, bounds)


def _polygons(geometry: dict[str, Any], bounds: Box) -> tuple[Polygon, ...]:
    coordinates = geometry["coordinates"]
    polygons = {"Polygon": [coordinates], "MultiPolygon": coordinates}.get(geometry["type"], [])
    corner = (bounds.x, bounds.y)
    return tuple(
        tuple(np.array([point[:2] for point in ring], np.float64) + corner for ring in rings)
        for rings in polygons
    )


def _type(properties: Mapping[str, Any]) -> str:
    """Object type by the first alias QuPath looks for, an annotation if it is unknown."""
    for key in ("objectType", "object_type", "type"):
        if key in properties:
            return LOWER_TYPES.get(str(properties[key]).lower(), "annotation")
    return "annotation"


def _class(classification: Any) -> tuple[str, tuple[int, int, int] | None]:
    if not isinstance(classification, dict):
        return str(classification or ""), None
    name = str(classification.get("name") or "") or ": ".join(
        map(str, classification.get("names") or ())
    )
    colour = classification.get("color", classification.get("colorRGB"))
    if isinstance(colour, int):
        return name, (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
    if isinstance(colour, list) and len(colour) >= 3:
        return name, (int(colour[0]), int(colour[1]), int(colour[2]))
    return name, None


def _measurements(given: Any) -> dict[str, float]:
    """Numbers by name, where null is left out and ``"NaN"`` and ``"inf"`` are numbers."""
    pairs = given or {}
    if isinstance(pairs, list):
        pairs = {each["name"]: each.get("value") for each in pairs}
    return {str(name): float(value) for name, value in pairs.items() if value is not None}


def _extent(region: Region) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    points = np.concatenate([rings[0] for rings in region.polygons])
    return points.min(axis=0), points.max(axis=0)


def _fill(canvas: NDArray[np.bool_], rings: Sequence[NDArray[np.float64]]) -> None:
    """Adds pixels whose centre is inside a polygon, its rings taken even-odd.

    Every edge that passes a row of pixel centres switches inside and outside from there on.
    """
    corners = rings[0]
    left, top = np.maximum(0, np.floor(corners.min(axis=0))).astype(int).tolist()
    right, bottom = (np.ceil(corners.max(axis=0))).astype(int).tolist()
    window = canvas[top : max(top, bottom), left : max(left, right)]
    height, width = window.shape
    if not window.size:
        return
    edges = np.concatenate([np.hstack((ring[:-1], ring[1:])) for ring in rings])
    x0, y0, x1, y1 = (edges - (left, top, left, top)).T
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    stop = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    times = stop - first
    edge = np.repeat(np.arange(len(edges)), times)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(times) - times, times) + first[edge]
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * slope
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    switches = np.bincount(row * (width + 1) + column, minlength=height * (width + 1))
    inside = switches.reshape(height, width + 1).cumsum(axis=1) % 2
    window |= inside[:, :width].astype(np.bool_)


def _area(ring: NDArray[np.float64]) -> float:
    x, y = ring.T
    return math.fsum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2


def _plain(name: str) -> str:
    return "".join(sign for sign in name.casefold() if sign not in " -_/:")
